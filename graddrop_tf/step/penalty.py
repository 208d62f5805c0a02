"""The gradient penalty on the inputs.

Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017,
section 4 (a penalty on the norm of a gradient with respect to the input), at
target norm 0, as the GradDrop paper compares with.
"""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf

from graddrop_tf import replicas


class GradientPenalty:
    """Tapes around a step that adds `factor * mean_b |d(sum L)_b/dx_b|^2`.

    `(sum L)_b` is the sum of the losses of example b, so that the penalty
    does not depend on the batch size or the number of replicas.

    Args:
        factor: Its weight; with 0 nothing is recorded and nothing added.
        inputs: The model's inputs; those with a float dtype count.

    Raises:
        ValueError: Where no input is of a float dtype.
    """

    def __init__(self, factor: float, inputs):
        self._factor = factor
        self._inputs = []
        self._tapes = contextlib.ExitStack()
        self.value = None
        if not factor:
            return
        self._inputs = [
            x
            for x in keras.tree.flatten(inputs)
            if x is not None and x.dtype.is_floating
        ]
        if not self._inputs:
            raise ValueError(
                "A gradient penalty needs an input of a float dtype. "
                "Received: "
                f"{[x.dtype.name for x in keras.tree.flatten(inputs)]}."
            )

    def __enter__(self):
        """Starts recording."""
        if self._factor:
            self._outer = self._tapes.enter_context(tf.GradientTape())
            self._inner = self._tapes.enter_context(
                tf.GradientTape(watch_accessed_variables=False)
            )
            self._inner.watch(self._inputs)
        return self

    def __exit__(self, *error):
        """Stops recording."""
        return self._tapes.__exit__(*error)

    def compute(self, losses) -> tf.Tensor | None:
        """Computes the penalty inside the recording; None with factor 0.

        Args:
            losses: The losses, divided by the number of replicas.

        Returns:
            A scalar, divided by the number of replicas.
        """
        if not self._factor:
            return None
        gradients = self._inner.gradient(
            losses, self._inputs, unconnected_gradients="zero"
        )
        squares = tf.zeros([], tf.float32)
        for x, gradient in zip(self._inputs, gradients, strict=True):
            gradient = tf.cast(gradient, tf.float32)
            # The losses are means over the global batch.
            examples = replicas.unscale_loss(
                tf.cast(tf.shape(x)[0], tf.float32)
            )
            squares += tf.reduce_sum(tf.square(gradient)) * examples
        self.value = self._factor * squares
        return self.value

    def gradients(self, variables, scale: tf.Tensor):
        """Computes the penalty's gradients, None for each with factor 0."""
        if self.value is None:
            return [None] * len(variables)
        return self._outer.gradient(
            self.value, variables, output_gradients=scale
        )
