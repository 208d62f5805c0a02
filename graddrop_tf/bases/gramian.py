"""Methods that see nothing but the inner products of the gradients."""

from __future__ import annotations

import abc

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.joint import JointCombiner
from graddrop_tf.rows import Rows


class GramianCombiner(JointCombiner):
    """Base class of the combiners that are a function of the Gram matrix.

    A method implements `weigh` alone. The Gram matrix is that of the global
    batch and of all tensors that the losses share, which costs a sum of T x T
    floats over the replicas in each step. Batch-separated gradients have no
    example in common: their Gram matrix is diagonal.

    Attributes:
        needs_rounding: Whether `weigh` takes a second argument: the relative
            rounding error of the Gram matrix.

    Args:
        num_losses: T, as in `Combiner`.
        **kwargs: `sync_replicas`, `separate`, `name`, `dtype`.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class InverseNorm(gd.GramianCombiner):
        ...     def weigh(self, gram):
        ...         return tf.math.rsqrt(tf.linalg.diag_part(gram))
    """

    needs_rounding = False

    @abc.abstractmethod
    def weigh(self, gram: tf.Tensor, *rounding: float) -> tf.Tensor:
        """Computes weights from the inner products of the gradients.

        Args:
            gram: `[T, T]` `float64`, `gram[i, j] = <g_i, g_j>`.
            *rounding: 1e-12 for `float64` gradients, else 1e-6, where
                `needs_rounding`; else nothing.

        Returns:
            Weights `[T]`: loss i gets `w_i g_i`; or coefficients `[T, T]`:
            loss i gets `sum_j c_ij g_j`.
        """

    def combine_at(self, gradients, place):
        """See base class; final."""
        rows = place.rows(gradients)
        weights = self._weights(rows, gradients)
        if weights.shape.rank == 1:
            return linalg.scale_each(gradients, weights)
        return rows.mix(weights)

    def combine_to_sum(self, gradients, place):
        """See base class; final. One row of coefficients is enough."""
        rows = place.rows(gradients)
        weights = self._weights(rows, gradients)
        if weights.shape.rank == 2:
            weights = tf.reduce_sum(weights, axis=0)
        return rows.weighted_sum(weights)

    def _weights(self, rows: Rows, gradients) -> tf.Tensor:
        gram = tf.stop_gradient(rows.gram(self.replica_sum))
        if self.needs_rounding:
            dtypes = [g.dtype for g in tf.nest.flatten(gradients)]
            rounding = max(linalg.rounding_error(dtype) for dtype in dtypes)
            weights = self.weigh(gram, rounding)
        else:
            weights = self.weigh(gram)
        weights = tf.convert_to_tensor(weights)
        count = len(gradients)
        if weights.shape not in ([count], [count, count]):
            raise ValueError(
                f"`weigh` must return weights of shape [{count}] or "
                f"coefficients of shape [{count}, {count}]. Received: shape "
                f"{weights.shape}."
            )
        return tf.cast(weights, gram.dtype)
