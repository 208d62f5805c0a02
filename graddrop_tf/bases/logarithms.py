"""Losses in logarithms, for weightings that do not depend on their units.

Only a loss above 0 has a logarithm. One at or below 0, such as that of a batch
without labels, does not count; one that is NaN does, and shows.
"""

from __future__ import annotations

import tensorflow as tf

# Smaller values have an inverse that is not finite.
_SMALLEST = 2.0**-126


def counts(losses: tf.Tensor) -> tf.Tensor:
    """Returns which losses are above 0, or NaN."""
    return tf.logical_not(losses < _SMALLEST)


def log(losses: tf.Tensor) -> tf.Tensor:
    """Returns the logarithms of the losses, 0 for those that do not count."""
    return tf.math.log(tf.where(counts(losses), losses, 1.0))


def inverse(losses: tf.Tensor) -> tf.Tensor:
    """Returns `1 / L`, 0 for losses that do not count."""
    counted = counts(losses)
    return tf.where(counted, 1.0 / tf.where(counted, losses, 1.0), 0.0)


def softmax(
    logits: tf.Tensor, counted: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Returns the softmax over the losses that count, 0 for the others.

    Args:
        logits: `[T]`.
        counted: `[T]`, as `counts` returns it.
        temperature: What the logits are divided by.
    """
    largest = tf.reduce_max(tf.where(counted, logits, logits.dtype.min))
    # Before the division, which may overflow.
    logits = tf.where(counted, logits - largest, 0.0) / temperature
    powers = tf.where(counted, tf.exp(logits), 0.0)
    return tf.math.divide_no_nan(powers, tf.reduce_sum(powers))


def follow(
    scales: tf.Tensor, losses: tf.Tensor, learning_rate: float
) -> tf.Tensor:
    """Takes a step of gradient descent on `exp(-s) L + s`.

    The step ends at the minimum, `s = log L`, if it is longer: for a loss far
    above exp(s) it would lead to weights of 0. Where a loss does not count, s
    stays.

    Args:
        scales: s, `[T]`.
        losses: L, `[T]`.
        learning_rate: Of the step.

    Returns:
        The next s, `[T]`.
    """
    goal = log(losses)
    step = learning_rate * (tf.exp(goal - scales) - 1.0)
    distance = goal - scales
    step = tf.where(distance > 0, tf.minimum(step, distance), step)
    step = tf.where(distance < 0, tf.maximum(step, distance), step)
    return tf.where(counts(losses), scales + step, scales)
