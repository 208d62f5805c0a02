"""The losses of the same batch after the update."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from graddrop_tf.step.losses import Values


class SecondPass:
    """Runs a batch once more through an updated model.

    The pass is one of training: batch norm uses the batch, and `Dropout` draws
    the masks of the first pass. Nothing that it computes is kept: no moving
    average moves and no metric counts the batch twice.

    Args:
        model: A model with a `trunk` and `heads`, before the first pass.
    """

    def __init__(self, model: keras.Model):
        trunk, heads = self._trunk, self._heads = model.trunk, model.heads
        self._optimizer = model.optimizer
        self._num_updates = tf.identity(model.optimizer.iterations)
        weights = {id(w) for part in (trunk, heads) for w in part.weights}
        self._seeds = [
            (seed, tf.identity(seed.value))
            for part in (trunk, heads)
            for seed in part.variables
            if id(seed) not in weights
        ]

    def run(
        self, x, losses_of: Callable[..., Values]
    ) -> tuple[Values, tf.Tensor]:
        """Computes the losses.

        Args:
            x: The inputs.
            losses_of: Maps the outputs to the T losses.

        Returns:
            The losses, and whether the optimizer has updated the model since
            the first pass. It does not after a micro-batch that is
            accumulated, nor where the loss scale is too large.
        """
        with keras.StatelessScope(self._seeds):
            activations = self._trunk(x, training=True)
            losses = losses_of(self._heads(activations, training=True))
        num_updates = self._optimizer.iterations
        return losses, tf.not_equal(self._num_updates, num_updates)
