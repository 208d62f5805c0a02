"""Arguments of a method that have a value for each loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from graddrop_tf.schedules import describe

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class PerLoss(Generic[Value]):
    """An argument: one value for all losses, one for each, or by their names.

    Attributes:
        name: The argument's name.
        given: A value, a sequence of T values, or a dict of values by the
            names of losses.
        is_valid: Tells whether a value is in its range.
        range: The range in words, such as "in [0, 1]".
        default: The value of a loss that a dict does not name; None where a
            dict must name all.

    Raises:
        ValueError: If a value is out of its range.

    Example:
        >>> leak = PerLoss("leak", {"a": 0.5}, is_share, "in [0, 1]", 0.0)
        >>> leak.of(2, ["a", "b"])
        [0.5, 0.0]
    """

    name: str
    given: Value | Sequence[Value] | Mapping[str, Value]
    is_valid: Callable[[Any], bool]
    range: str
    default: Value | None = None

    def __post_init__(self):
        """Checks the values, as far as that is possible without the losses."""
        if not all(map(self.is_valid, self._values())):
            raise ValueError(
                f"`{self.name}` must be {self.range}, for each loss. "
                f"Received: {self.name}={describe(self.given)}."
            )

    def _values(self) -> list[Value]:
        if self.is_valid(self.given):
            return [self.given]
        if isinstance(self.given, Mapping):
            return [*self.given.values()]
        if isinstance(self.given, str):
            return [self.given]
        try:
            return list(self.given)
        except TypeError:
            return [self.given]

    def of(
        self, num_losses: int, names: Sequence[str] | None = None
    ) -> list[Value]:
        """Returns the value of each loss.

        Args:
            num_losses: T.
            names: The names of the losses in their order; None if they have
                none.

        Returns:
            A list of T values.

        Raises:
            ValueError: If there are values for other losses.
        """
        if isinstance(self.given, Mapping):
            return self._by_name(names)
        values = self._values()
        if self.is_valid(self.given):
            return values * num_losses
        if len(values) != num_losses:
            raise ValueError(
                f"`{self.name}` must be one value or one for each loss. "
                f"Received: {len(values)} values for {num_losses} losses."
            )
        return values

    def _by_name(self, names: Sequence[str] | None) -> list[Value]:
        if names is None:
            raise ValueError(
                f"A `{self.name}` by name needs a `gd.MultiLossModel`, which "
                "knows the names of its losses. Received: "
                f"{self.name}={self.given}."
            )
        unknown = sorted({*self.given} - {*names})
        if unknown:
            raise ValueError(
                f"`{self.name}` names no such loss: {unknown}. The losses are "
                f"{list(names)}."
            )
        missing = [name for name in names if name not in self.given]
        if missing and self.default is None:
            raise ValueError(
                f"`{self.name}` must name every loss. Received: none for "
                f"{missing}."
            )
        return [self.given.get(name, self.default) for name in names]
