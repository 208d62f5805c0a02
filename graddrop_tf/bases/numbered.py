"""A layer with numbers that may change while it trains.

A number is declared in the class, given to the constructor, and read in the
method's mathematics by `number`. It is kept in a variable: a new value acts on
the next step, in the graph of the step that is already traced. A Keras
schedule in its place is a function of the step.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from graddrop_tf import random
from graddrop_tf.bases.numbers import Number
from graddrop_tf.bases.state import Stateful
from graddrop_tf.schedules import Schedule, describe, has_schedule, kind_of


class Numbered(Stateful):
    """A layer with numbers that may change while it trains.

    Files of weights and checkpoints hold them beside the state.
    """

    # Set by the bases of the methods.
    loss_names: Sequence[str] | None = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        # Past Keras, as in `Stateful`.
        object.__setattr__(self, "_first", {})
        object.__setattr__(self, "_given", {})
        object.__setattr__(self, "_numbers", {})
        object.__setattr__(self, "_described", False)

    @classmethod
    def declared_numbers(cls) -> dict[str, Number]:
        """Returns the numbers that the class and its bases declare, by name."""
        found: dict[str, Any] = {}
        for base in reversed(cls.__mro__):
            found.update(vars(base))
        return {k: v for k, v in found.items() if isinstance(v, Number)}

    @property
    def number_variables(self) -> dict[str, keras.Variable]:
        """The variables of the numbers, by name, as far as they are made."""
        return dict(self._numbers)

    def number(
        self, name: str, dtype=tf.float64, num_losses: int | None = None
    ) -> tf.Tensor:
        """Returns a number as it is in this step, to compute with.

        Args:
            name: Its name.
            dtype: The dtype of the tensor.
            num_losses: T, for a `PerLossNumber`.

        Returns:
            A scalar, or `[T]` of a `PerLossNumber`.

        Raises:
            ValueError: If it follows a schedule, and there is no step: outside
                of `graddrop_tf.random.drawing`.
        """
        variable = self._numbers.get(name)
        if variable is not None and num_losses in (None, *variable.shape):
            return tf.cast(variable.value, dtype)
        declared = self.declared_numbers()[name]
        parts = declared.parts(self._given[name], num_losses, self.loss_names)
        values = [
            tf.cast(v(random.current_step()), dtype)
            if isinstance(v, Schedule)
            # A cast would round a Python number to float32.
            else tf.constant(v, dtype)
            for v in parts
        ]
        return tf.convert_to_tensor(declared.shaped(values))

    def given_number(self, name: str):
        """Returns what was given for a number.

        Raises:
            AttributeError: If nothing was.
        """
        if name not in self._given:
            raise AttributeError(f"{type(self).__name__} has no `{name}` yet.")
        return self._given[name]

    def assign_number(self, declared: Number, value) -> None:
        """Puts a checked value in place of a number.

        Args:
            declared: The number.
            value: The value.

        Raises:
            AttributeError: If it cannot change.
            ValueError: If there are values for other losses.
        """
        name = declared.name
        if name in self._given:
            self._check_change(name, value)
        self._first.setdefault(name, value)
        variable = self._numbers.get(name)
        if variable is not None:
            count = next(iter(variable.shape), None)
            parts = declared.parts(value, count, self.loss_names)
            variable.assign(tf.constant(declared.shaped(parts), tf.float64))
        self._given[name] = value

    def check_numbers(
        self, num_losses: int, names: Sequence[str] | None
    ) -> None:
        """Checks that the numbers fit the losses.

        Args:
            num_losses: T.
            names: Their names, None if they have none.

        Raises:
            ValueError: If they do not.
        """
        for name, declared in self.declared_numbers().items():
            declared.parts(self._given.get(name), num_losses, names)

    def changed_numbers(self) -> dict[str, Any]:
        """Returns the numbers that are not those of the constructor."""
        return {
            name: getattr(self, name)
            for name, first in self._first.items()
            if getattr(self, name) != first
        }

    def _check_change(self, name: str, value) -> None:
        """Checks that a number may become a value.

        Raises:
            AttributeError: If it may not.
        """
        received = f"Received: {name}={describe(value)}."
        if self.describes_only:
            raise AttributeError(
                f"This {type(self).__name__} only describes a recipe: assign "
                f"`{name}` to the model's own, `model.method(...)`. {received}"
            )
        kinds = {kind_of(self._given[name]), kind_of(value)}
        if self.built and kinds != {"numbers"}:
            raise AttributeError(
                f"`{name}` of {type(self).__name__} may change to another "
                "number, not from or to a schedule or None: make a new one. "
                f"{received}"
            )

    @property
    def describes_only(self) -> bool:
        """Whether recipes were made of this object, and nothing else."""
        return self._described and not self.built

    def describe_a_recipe(self) -> None:
        """Marks an object whose arguments became part of a recipe."""
        object.__setattr__(self, "_described", True)

    def make_state(self, num_losses):
        """See base class; with the variables of the numbers."""
        super().make_state(num_losses)
        # A step that is traced may be the first to know the losses.
        with tf.init_scope():
            for name, declared in self.declared_numbers().items():
                parts = declared.parts(
                    self._given.get(name), num_losses, self.loss_names
                )
                if parts is not None and not has_schedule(parts):
                    value = tf.constant(declared.shaped(parts), tf.float64)
                    self._make_number(name, value)

    def _make_number(self, name: str, value: tf.Tensor) -> None:
        known = self._numbers.get(name)
        if known is None or known.shape != value.shape:
            self._numbers[name] = self.new_variable(name, value)
        elif isinstance(self._given[name], Mapping):
            # The losses may have other names now.
            known.assign(value)

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        numbers = {f"number_{k}": v for k, v in self._numbers.items()}
        return {**children, **numbers}

    @property
    def variables(self) -> list[keras.Variable]:
        """The state, the numbers, then the variables that Keras tracks."""
        state = super().variables
        count = len(self._kept)
        return [*state[:count], *self._numbers.values(), *state[count:]]

    def save_own_variables(self, store) -> None:
        """See base class; with the numbers."""
        super().save_own_variables(store)
        for name, variable in self._numbers.items():
            store[name] = variable

    def load_own_variables(self, store) -> None:
        """See base class; numbers that a file does not hold stay."""
        super().load_own_variables(store)
        for name, variable in self._numbers.items():
            if name not in store.keys():  # noqa: SIM118
                continue
            before = variable.numpy().tolist()
            variable.assign(store[name])
            saved = variable.numpy().tolist()
            if saved != before:
                warnings.warn(
                    f"{type(self).__name__} goes on with {name}={saved}, as "
                    f"saved, in place of {before}; assign `{name}` to change "
                    "it.",
                    stacklevel=2,
                )
                self._given[name] = getattr(self, name)
