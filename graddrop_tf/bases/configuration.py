"""Configurations: what to build, before there is anything built."""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
from typing import Any


class Configurable:
    """Remembers the arguments that an object was made with."""

    def __new__(cls, *args, **kwargs):
        """Records the arguments as a `Configuration`."""
        instance = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls).bind(*args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.update(arguments.pop("kwargs", {}))
        # Keras tracks what is set on a layer; this is no state of its own.
        object.__setattr__(
            instance, "_configuration", Configuration(cls, arguments)
        )
        return instance

    @property
    def configuration(self) -> Configuration:
        """The class and the arguments that this object was made with."""
        return self._configuration


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A class and the arguments to make an instance of it.

    Args:
        make: The class.
        arguments: Its constructor's arguments by name.
    """

    make: type
    arguments: dict[str, Any] = dataclasses.field(hash=False)

    def build(self, **arguments) -> Any:
        """Makes a new instance; `arguments` replace the recorded ones."""
        return self.make(**{**self.arguments, **arguments})

    def describe(self, name: str) -> str:
        """Returns the constructor call as text, under the given name."""
        if not self.arguments:
            return name
        listed = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        return f"{name}({listed})"


def check_count(name: str, value) -> None:
    """Checks that a value is a positive integer.

    Raises:
        ValueError: Where it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )


def is_number(value, above: float | None = None) -> bool:
    """Returns whether a value is a finite real number, above a bound."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
    )
