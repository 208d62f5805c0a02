"""Several combiners in one place, in order."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf.bases.combiner import Combiner, Streaming


class _StreamingSum(Streaming):
    """The plain sum."""

    def start(self, num_losses, activations):
        self._total = None

    def add(self, indices, gradients):
        if self._total is not None:
            gradients = [self._total, *gradients]
        self._total = tf.add_n(gradients)
        return [self._total]

    def finish(self):
        return self._total


@keras.saving.register_keras_serializable("graddrop_tf")
class Chain(Combiner):
    """Several combiners in one place, in order.

    Args:
        combiners: Combiners; none of them: the plain sum.
        num_losses: T, as in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.Chain([gd.MGDA(), gd.GradDrop()], num_losses=2)
    """

    def __init__(
        self,
        combiners: Sequence[Combiner],
        num_losses: int | None = None,
        **kwargs,
    ):
        super().__init__(num_losses, **kwargs)
        for combiner in combiners:
            if not isinstance(combiner, Combiner):
                raise ValueError(
                    "A chain is made of combiners. Received: "
                    f"{combiner!r} of type {type(combiner).__name__}."
                )
        self.combiners = list(combiners)
        if num_losses is not None:
            self.set_losses(num_losses)

    def set_losses(self, num_losses, names=None):
        """See base class."""
        super().set_losses(num_losses, names)
        for combiner in self.combiners:
            combiner.set_losses(num_losses, names)

    def build(self, input_shape=None):
        """Creates the chain's counter, which serves its combiners too."""
        super().build(input_shape)
        for combiner in self.combiners:
            combiner.built = True

    def combine(self, gradients, activations):
        """See base class."""
        for combiner in self.combiners:
            gradients = combiner._checked(gradients, activations)
        return gradients

    def combine_to_sum(self, gradients, activations):
        """See base class."""
        if not self.combiners:
            return tf.add_n(gradients)
        for combiner in self.combiners[:-1]:
            gradients = combiner._checked(gradients, activations)
        return self.combiners[-1].combine_to_sum(gradients, activations)

    def streaming(self):
        """See base class; two methods in a row need all gradients at once."""
        if not self.combiners:
            return _StreamingSum()
        if len(self.combiners) > 1:
            return None
        return self.combiners[0].streaming()
