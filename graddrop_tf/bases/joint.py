"""Methods that act on all tensors of a place at once."""

from __future__ import annotations

import abc

from graddrop_tf.bases.combiner import Combiner


class JointCombiner(Combiner):
    """Base class of the combiners that act on all tensors of a place at once.

    A method implements `combine_at` alone.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class EqualNorms(gd.JointCombiner):
        ...     def combine_at(self, gradients, place):
        ...         squares = linalg.squared_norms(gradients, self.replica_sum)
        ...         return linalg.scale_each(gradients, tf.math.rsqrt(squares))
    """

    @abc.abstractmethod
    def combine_at(self, gradients, place):
        """See base class."""

    def combine(self, gradients, activations):
        """See base class; final."""
        return self.combine_at(list(gradients), self.place_of(activations))
