"""Configurations: a class and its arguments, before anything is built."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from graddrop_tf.bases.numbered import Numbered
from graddrop_tf.schedules import describe

_NOT_IN_A_RECIPE = ("name", "trainable", "dtype", "num_losses", "separate")


class Configurable(Numbered):
    """Records the arguments of its constructor.

    Keras' `get_config` describes a layer as built, with the seed that it
    drew. A recipe needs the arguments as given, so that each model draws its
    own seed; both come from the constructor's signature.

    Of the arguments only numbers may be assigned later, see `gd.Number`.

    Attributes:
        search_space: Ranges of the arguments worth tuning, see `gd.Combiner`.
    """

    search_space: ClassVar[Mapping[str, str]] = {}

    def __new__(cls, *args, **kwargs):
        """Records the arguments as a `Configuration`."""
        instance = super().__new__(cls, *args, **kwargs)
        signature = inspect.signature(cls)
        _check_positions(cls, signature, args)
        bound = signature.bind(*args, **kwargs)
        arguments = dict(bound.arguments)
        arguments.update(arguments.pop("kwargs", {}))
        # Past Keras, which would track the recorded arguments as state.
        object.__setattr__(
            instance, "_configuration", Configuration(cls, arguments)
        )
        return instance

    @property
    def configuration(self) -> Configuration:
        """The class and the arguments of this object, numbers as they are."""
        made = self._configuration
        numbers = self.changed_numbers()
        return Configuration(made.make, {**made.arguments, **numbers})

    def __setattr__(self, name: str, value):
        """Sets an attribute; refuses an argument that cannot change."""
        if (
            name in vars(self)
            and name in constructor_arguments(type(self))
            and name not in _NOT_IN_A_RECIPE
            and vars(self)[name] != value
        ):
            raise AttributeError(
                f"`{name}` of {type(self).__name__} cannot change: make a new "
                f"one. Received: {name}={value!r}."
            )
        super().__setattr__(name, value)

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


def _check_positions(cls: type, signature: inspect.Signature, args) -> None:
    """Checks that positional arguments have a name.

    Raises:
        TypeError: If there are too many.
    """
    by_position = [
        p.name
        for p in signature.parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    has_any = any(
        p.kind is p.VAR_POSITIONAL for p in signature.parameters.values()
    )
    if has_any or len(args) <= len(by_position):
        return
    by_name = [n for n in constructor_arguments(cls) if n not in by_position]
    raise TypeError(
        f"{cls.__name__} takes {', '.join(by_position) or 'nothing'} by "
        f"position and the others by name: {', '.join(by_name)}. Received: "
        f"{len(args)} arguments by position."
    )


@functools.cache
def constructor_arguments(cls: type) -> tuple[str, ...]:
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
    return tuple(names)


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
            f"{k}={describe(v)}"
            for k, v in self.arguments.items()
            if v is not None and k not in _NOT_IN_A_RECIPE
        ]
        return f"{name}({', '.join(listed)})" if listed else name
