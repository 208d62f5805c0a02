"""Checks of arguments."""

from __future__ import annotations

import math
import numbers


def check_count(name: str, value) -> None:
    """Checks that a value is a positive integer.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )


def check_positive(name: str, value) -> None:
    """Checks that a value is a finite number above 0.

    Raises:
        ValueError: If it is not.
    """
    if not is_number(value, above=0):
        raise ValueError(
            f"`{name}` must be a number above 0. Received: {name}={value!r}."
        )


def is_number(value, above: float | None = None) -> bool:
    """Returns whether a value is a finite real number, above a bound."""
    return (
        isinstance(value, numbers.Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
    )


def is_share(value) -> bool:
    """Returns whether a value is a number in [0, 1]."""
    return is_number(value) and 0 <= value <= 1
