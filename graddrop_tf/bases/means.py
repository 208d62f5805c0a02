"""The means of the losses over a window of steps, as part of a state."""

from __future__ import annotations

import tensorflow as tf

_SUMS, _COUNT = "window_sums", "window_count"


def start(num_losses: int) -> dict[str, tf.Tensor]:
    """Returns the state of an empty window."""
    return {_SUMS: tf.zeros([num_losses]), _COUNT: tf.zeros([])}


def add(state: dict[str, tf.Tensor], losses: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns the state of a window with a step more.

    Args:
        state: A state with that of a window in it.
        losses: `[T]`.
    """
    return {
        _SUMS: state[_SUMS] + tf.cast(losses, tf.float32),
        _COUNT: state[_COUNT] + 1,
    }


def count(state: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the number of steps in the window."""
    return state[_COUNT]


def mean(state: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns the mean losses `[T]` of the window, 0 if it is empty."""
    return state[_SUMS] / tf.maximum(state[_COUNT], 1.0)
