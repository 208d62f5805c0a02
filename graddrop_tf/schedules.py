"""Keras' schedules in the place of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

Schedule = keras.optimizers.schedules.LearningRateSchedule

_PROBED = (0, *(2**i for i in range(0, 31, 2)))


def probe(schedule: Schedule) -> Iterator[float]:
    """Yields the values of a schedule at some steps, from 0 to 2^30."""
    with tf.init_scope():
        for step in _PROBED:
            yield float(schedule(tf.constant(step, tf.int64)))


def has_schedule(values: Sequence) -> bool:
    """Returns whether a schedule is among values."""
    return any(isinstance(value, Schedule) for value in values)


def kind_of(value) -> str:
    """Returns whether an argument is of "numbers" or "schedules", or "none"."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        value = list(value.values())
    values = value if isinstance(value, list) else [value]
    return "schedules" if has_schedule(values) else "numbers"


def describe(value) -> str:
    """Returns an argument as text, a schedule by its own arguments."""
    if not isinstance(value, Schedule):
        return repr(value)
    config = {k: v for k, v in value.get_config().items() if v is not None}
    config.pop("name", None)
    listed = ", ".join(f"{k}={v!r}" for k, v in config.items())
    return f"{type(value).__name__}({listed})"
