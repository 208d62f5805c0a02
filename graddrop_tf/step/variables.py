"""The variables of a custom loop: in any nesting, once each, by name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Variables:
    """Variables as a user passes them.

    Attributes:
        form: Their nesting, with a list of its trainable variables in place of
            each module.
        flat: All of them, in order.
        names: The name of each.
    """

    form: Any
    flat: Sequence[tf.Variable]
    names: Sequence[str]

    @classmethod
    def of(cls, variables: Any) -> Variables:
        """Reads variables, modules, and lists, tuples and dicts of them.

        Raises:
            ValueError: If something else is among them.
        """
        form = tf.nest.map_structure(_expand, variables)
        flat = tf.nest.flatten(form)
        return cls(
            form, [_tf_variable(v) for v in flat], list(map(_name, flat))
        )

    @property
    def unique(self) -> list[tf.Variable]:
        """Each variable once."""
        return list({id(v): v for v in self.flat}.values())

    def pack(self, grads: Sequence[Any]) -> Any:
        """Returns gradients in the nesting of the variables.

        Args:
            grads: A gradient, or None, for each of `unique`.
        """
        flat = self._of_each(grads)
        return tf.nest.pack_sequence_as(self.form, flat)

    def check_gradients(self, grads: Sequence[Any]) -> None:
        """Warns of variables without a gradient.

        Args:
            grads: A gradient, or None, for each of `unique`.

        Raises:
            ValueError: If there are variables, and none has one.
        """
        pairs = zip(self.names, self._of_each(grads), strict=True)
        missing = [name for name, gradient in pairs if gradient is None]
        if not missing:
            return
        if len(missing) == len(self.flat):
            raise ValueError(
                "No gradients provided for any variable: no loss depends on "
                "them, or the tape did not record it. Received: variables "
                f"{missing}."
            )
        warnings.warn(
            f"Gradients do not exist for variables {missing}: no loss depends "
            "on them, or the tape did not record it.",
            stacklevel=4,
        )

    def _of_each(self, grads) -> list[Any]:
        by_id = dict(zip(map(id, self.unique), grads, strict=True))
        return [by_id[id(v)] for v in self.flat]


def _expand(leaf):
    """Returns a variable as it is, a module as a list."""
    if isinstance(leaf, (keras.Layer, tf.Module)):
        return list(leaf.trainable_variables)
    if isinstance(leaf, (keras.Variable, tf.Variable)):
        return leaf
    raise ValueError(
        "`variables` must be variables of Keras or TensorFlow, layers, models, "
        "or modules: one, or lists, tuples and dicts of them. Received: "
        f"{leaf!r} of type {type(leaf).__name__}."
    )


def _tf_variable(variable: keras.Variable | tf.Variable) -> tf.Variable:
    is_of_keras = isinstance(variable, keras.Variable)
    return variable.value if is_of_keras else variable


def _name(variable: keras.Variable | tf.Variable) -> str:
    is_of_keras = isinstance(variable, keras.Variable)
    return variable.path if is_of_keras else variable.name
