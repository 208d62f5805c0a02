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
        trunk: The trunk.
        heads: The heads. Both as they are before the first pass.
    """

    def __init__(self, trunk: keras.Model, heads: keras.Model):
        self._trunk = trunk
        self._heads = heads
        weights = {id(w) for part in (trunk, heads) for w in part.weights}
        self._seeds = [
            (seed, tf.identity(seed.value))
            for part in (trunk, heads)
            for seed in part.variables
            if id(seed) not in weights
        ]

    def losses(self, x, losses_of: Callable[..., Values]) -> Values:
        """Computes the losses.

        Args:
            x: The inputs.
            losses_of: Maps the outputs to the T losses.
        """
        with keras.StatelessScope(self._seeds):
            activations = self._trunk(x, training=True)
            return losses_of(self._heads(activations, training=True))
