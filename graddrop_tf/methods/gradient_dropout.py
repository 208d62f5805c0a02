"""Gradient Dropout: gradients dropped at random, whatever their signs.

Tseng et al., "Regularizing Meta-Learning via Gradient Dropout", 2020 (arXiv
2004.05859), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases.combiner import RandomCombiner
from graddrop_tf.bases.numbers import Number
from graddrop_tf.schedules import Schedule


@keras.saving.register_keras_serializable("graddrop_tf")
class GradientDropout(RandomCombiner):
    """Drops each value of the summed gradient with a fixed probability.

    Values that stay are divided by `1 - rate`, so that the mean is that of the
    sum, with a variance of `g^2 rate / (1 - rate)`. All losses have the same
    mask; batch-separated losses, which share no example, one each. Unlike
    GradDrop it does not look at signs: it tells what dropping alone is worth.
    The authors drop gradients of parameters in the inner loop of a
    meta-learner; this drops those of activations.

    Reference: Tseng et al., 2020 (arXiv 2004.05859), Eq. 4.

    Args:
        num_losses: T, as in `Combiner`.
        rate: Probability of dropping a value, in [0, 1).
        seed: Integer seed of the masks; drawn if None.
        **kwargs: `separate`, `name`, `dtype`.

    Raises:
        ValueError: If the rate is out of its range, or `sync_replicas` is
            False.

    Example:
        >>> layer = gd.GradientDropout(num_losses=2, rate=0.1)
    """

    search_space: ClassVar[Mapping[str, str]] = {"rate": "uniform(0.0, 0.5)"}
    rate = Number("[0, 1)")

    def __init__(
        self, num_losses=None, *, rate: float | Schedule = 0.1, **kwargs
    ):
        super().__init__(num_losses, **kwargs)
        if not self.sync_replicas:
            raise ValueError(
                "GradientDropout computes nothing of the batch and has nothing "
                "to synchronize. Received: sync_replicas=False."
            )
        self.rate = rate

    def combine(self, gradients, activations):
        """See base class."""
        if isinstance(activations, (list, tuple)):
            return [self._masked(g, self._factor(g)) for g in gradients]
        factor = self._factor(gradients[0])
        return [self._masked(g, factor) for g in gradients]

    def _factor(self, like: tf.Tensor) -> tf.Tensor:
        """Draws 0, or what a value that stays is multiplied by."""
        drawn = self.uniform(tf.shape(like), per_example=True)
        rate = self.number("rate", drawn.dtype)
        kept = tf.ensure_shape(drawn, like.shape) > rate
        return tf.cast(kept, drawn.dtype) / (1 - rate)

    def _masked(self, gradient: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return gradient * tf.cast(factor, gradient.dtype)
