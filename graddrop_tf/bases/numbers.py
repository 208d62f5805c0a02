"""Declarations of numbers that may change while a method trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from graddrop_tf.checks import is_number
from graddrop_tf.per_loss import PerLoss
from graddrop_tf.schedules import Schedule, describe, probe

if TYPE_CHECKING:
    from graddrop_tf.bases.numbered import Numbered

_WORDS = {
    "(-inf, inf)": "a number",
    "(0, inf)": "a number above 0",
    "[0, inf)": "a number of at least 0",
}


class Number:
    """Declares an argument of a method: one number, or a Keras schedule.

    Reading the attribute gives the number as it is, or the schedule.
    Assigning a number changes it, during training too. What cannot change
    while training, a schedule or a number that is None, raises
    `AttributeError`.

    Args:
        interval: Its range, such as "[0, 1)".
        optional: Whether it may be None.

    Raises:
        ValueError: On assignment, if a value is out of the range.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class Shrink(gd.Combiner):
        ...     factor = gd.Number("[0, 1]")
        ...
        ...     def __init__(self, num_losses=None, *, factor=0.5, **kwargs):
        ...         super().__init__(num_losses, **kwargs)
        ...         self.factor = factor
        ...
        ...     def combine(self, gradients, activations):
        ...         factor = self.number("factor", gradients[0].dtype)
        ...         return [factor * g for g in gradients]
    """

    def __init__(self, interval: str = "(-inf, inf)", optional: bool = False):
        self._contains = _interval(interval)
        self._words = _WORDS.get(interval, f"in {interval}")
        self._optional = optional
        self.name = ""

    def __set_name__(self, owner: type, name: str):
        """Learns the name of the argument."""
        self.name = name

    def __get__(self, method: Numbered | None, owner: type | None = None):
        """Returns the number, or the schedule."""
        if method is None:
            return self
        return self.read(method)

    def __set__(self, method: Numbered, value):
        """Checks a value and puts it in place of the one before."""
        method.assign_number(self, self.checked(value))

    def checked(self, value):
        """Returns a value that is in the range.

        Raises:
            ValueError: If it is not.
        """
        if value is None and self._optional:
            return None
        if not self._is_valid(value):
            or_none = ", or None" if self._optional else ""
            raise ValueError(
                f"`{self.name}` must be {self._words}{or_none}. Received: "
                f"{self.name}={describe(value)}."
            )
        return value

    def _is_valid(self, value) -> bool:
        if not isinstance(value, Schedule):
            return is_number(value) and self._contains(value)
        return all(map(self._contains, probe(value)))

    def parts(
        self, value, num_losses: int | None, names: Sequence[str] | None
    ) -> list | None:
        """Returns the values of which a variable is made.

        Args:
            value: What was given.
            num_losses: T, None where it is unknown.
            names: The names of the losses, None where there are none.

        Returns:
            Numbers or schedules; None where there is no value yet.
        """
        del num_losses, names
        return None if value is None else [value]

    def shaped(self, values):
        """Returns a list of values in the form of the number: a scalar."""
        return values[0]

    def read(self, method: Numbered):
        """Returns the number as it is in its variable, or what was given."""
        given = method.given_number(self.name)
        variable = method.number_variables.get(self.name)
        if variable is None or not tf.executing_eagerly():
            return given
        return self._as_given(given, variable.numpy().tolist(), method)

    def _as_given(self, given, current, method):
        del method
        return given if given == current else current


class PerLossNumber(Number):
    """Declares numbers of the losses.

    One for all losses, a list with one for each, or a dict by their names;
    each a number or a Keras schedule.

    Args:
        interval: As in `Number`.
        default: The number of a loss that a dict does not name; None where a
            dict must name all.
        optional: As in `Number`.

    Raises:
        ValueError: If a number is out of the range, or numbers do not fit the
            losses.
    """

    def __init__(
        self,
        interval: str = "(-inf, inf)",
        default: float | None = None,
        optional: bool = False,
    ):
        super().__init__(interval, optional)
        self._default = default

    def checked(self, value):
        """See base class."""
        if value is None and self._optional:
            return None
        self._of(value, self._is_valid)
        if isinstance(value, Mapping):
            return dict(value)
        return value if self._is_valid(value) else list(value)

    def _of(self, value, is_valid: Callable[[Any], bool]) -> PerLoss:
        return PerLoss(self.name, value, is_valid, self._words, self._default)

    def parts(self, value, num_losses, names):
        """See base class.

        Raises:
            ValueError: If the numbers do not fit the losses.
        """
        if value is None or num_losses is None:
            return None
        return self._of(value, _is_one).of(num_losses, names)

    def shaped(self, values):
        """See base class: `[T]`."""
        return values

    def _as_given(self, given, current, method):
        if current == self.parts(given, len(current), method.loss_names):
            return given
        return current[0] if len({*current}) == 1 else current


def _is_one(value) -> bool:
    return isinstance(value, Schedule) or is_number(value)


def _interval(text: str) -> Callable[[float], bool]:
    low, high = (float(end) for end in text[1:-1].split(","))

    def contains(value: float) -> bool:
        above = value >= low if text[0] == "[" else value > low
        below = value <= high if text[-1] == "]" else value < high
        return above and below and math.isfinite(value)

    return contains
