"""Configurations: a class and its arguments, before anything is built."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

_NOT_IN_A_RECIPE = ("name", "trainable", "dtype", "num_losses", "separate")


class Configurable:
    """Records the arguments of its constructor.

    Keras' `get_config` describes a layer as built, with the seed that it
    drew. A recipe needs the arguments as given, so that each model draws its
    own seed; both come from the constructor's signature.

    Attributes:
        search_space: Ranges of the arguments worth tuning, see `gd.Combiner`.
    """

    search_space: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *args, **kwargs):
        """Records the arguments as a `Configuration`."""
        instance = super().__new__(cls, *args, **kwargs)
        bound = inspect.signature(cls).bind(*args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.update(arguments.pop("kwargs", {}))
        # Past Keras, which would track the recorded arguments as state.
        object.__setattr__(
            instance, "_configuration", Configuration(cls, arguments)
        )
        return instance

    @property
    def configuration(self) -> Configuration:
        """The class and the arguments that this object was made with."""
        return self._configuration

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, read from the attributes.

        Raises:
            ValueError: If the object does not keep an argument in an
                attribute of its name.
        """
        config = super().get_config()
        for name in constructor_arguments(type(self)):
            if not hasattr(self, name):
                raise ValueError(
                    f"{type(self).__name__} must keep its argument `{name}` "
                    "in an attribute of that name, or override `get_config`."
                )
            config[name] = keras.saving.serialize_keras_object(
                getattr(self, name)
            )
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """Rebuilds the object from `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        return cls(**{k: deserialize(v) for k, v in config.items()})


def constructor_arguments(cls: type) -> list[str]:
    """Returns the names of a constructor's arguments.

    The class's own come first; a class that passes `**kwargs` on has those
    of its base as well.
    """
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if base is Configurable:
            break
        if "__init__" not in vars(base):
            continue
        _, *parameters = inspect.signature(base.__init__).parameters.values()
        passes_on = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        names.update((p.name, None) for p in parameters if p not in passes_on)
        if not passes_on:
            break
    return list(names)


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
        """Returns the constructor call as text, under the given name.

        A saved model gives all arguments: what is None, or no part of a
        recipe, is left out.
        """
        listed = [
            f"{k}={v!r}"
            for k, v in self.arguments.items()
            if v is not None and k not in _NOT_IN_A_RECIPE
        ]
        return f"{name}({', '.join(listed)})" if listed else name
