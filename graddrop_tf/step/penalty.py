"""The gradient penalty on the inputs.

Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017,
section 4 (a penalty on the norm of a gradient with respect to the input), at
target norm 0, as the GradDrop paper compares with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from graddrop_tf import replicas
from graddrop_tf.step.gradients import Losses


@dataclasses.dataclass(frozen=True)
class Penalty:
    """The term `factor * mean_b |d(sum L)_b/dx_b|^2` of one step.

    `(sum L)_b` is the sum of the losses of example b, so that the penalty
    depends neither on the batch size nor on the number of replicas.

    Attributes:
        value: A scalar, divided by the number of replicas.
        tape: The tape that recorded it.
    """

    value: tf.Tensor
    tape: tf.GradientTape

    def gradients(self, variables, scale: tf.Tensor):
        """Returns its gradients times `scale`, None for unrelated variables."""
        return self.tape.gradient(self.value, variables, output_gradients=scale)


def measure(
    factor: float, inputs, forward: Callable[[], tuple[Any, Losses]]
) -> tuple[Any, Penalty | None]:
    """Runs a forward pass and measures its penalty on the inputs.

    Args:
        factor: Weight of the penalty; with 0 nothing is recorded.
        inputs: The model's inputs; those of a float dtype count.
        forward: Returns any value, and the losses divided by the number of
            replicas.

    Returns:
        The value, and the penalty, None with factor 0.

    Raises:
        ValueError: If no input is of a float dtype.
    """
    if not factor:
        return forward()[0], None
    flat = [x for x in keras.tree.flatten(inputs) if x is not None]
    watched = [x for x in flat if x.dtype.is_floating]
    if not watched:
        raise ValueError(
            "A gradient penalty needs an input of a float dtype. Received: "
            f"{[x.dtype.name for x in flat]}."
        )
    with tf.GradientTape() as outer:
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(watched)
            value, losses = forward()
        gradients = inner.gradient(
            losses, watched, unconnected_gradients="zero"
        )
        squares = tf.zeros([], tf.float32)
        for x, gradient in zip(watched, gradients, strict=True):
            gradient = tf.cast(gradient, tf.float32)
            # The losses are means over the global batch.
            examples = replicas.unscale_loss(
                tf.cast(tf.shape(x)[0], tf.float32)
            )
            squares += tf.reduce_sum(tf.square(gradient)) * examples
        penalty = factor * squares
    return value, Penalty(penalty, outer)
