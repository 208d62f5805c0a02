"""Methods that see nothing but the inner products of the gradients."""

from __future__ import annotations

import abc
from collections.abc import Callable

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.bases.combiner import Combiner

Weigh = Callable[[tf.Tensor], tf.Tensor]


class GramianCombiner(Combiner):
    """Base class of the combiners that are a function of the Gram matrix.

    A method implements `weigh` alone. The Gram matrix is that of the global
    batch, which costs a sum of T x T floats over the replicas in each step.
    Batch-separated gradients have no example in common: their Gram matrix is
    diagonal.

    Attributes:
        rounding: Relative rounding error of the Gram matrix: 1e-12 for
            `float64` gradients, else 1e-6.

    Args:
        num_losses: T, as in `Combiner`.
        **kwargs: `sync_replicas`, `name`, `dtype`.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class EqualNorm(gd.GramianCombiner):
        ...     def weigh(self, gram):
        ...         return tf.math.rsqrt(tf.linalg.diag_part(gram))
    """

    rounding = linalg.gram_ridge(tf.float64)

    @abc.abstractmethod
    def weigh(self, gram: tf.Tensor) -> tf.Tensor:
        """Computes weights from the inner products of the gradients.

        Args:
            gram: `[T, T]` `float64`, `gram[i, j] = <g_i, g_j>`.

        Returns:
            Weights `[T]`: loss i gets `w_i g_i`; or coefficients `[T, T]`:
            loss i gets `sum_j c_ij g_j`.
        """

    def combine(self, gradients, activations):
        """See base class; final."""
        self.rounding = linalg.gram_ridge(gradients[0].dtype)
        return combine_by_gram(
            gradients, activations, self.weigh, self.replica_sum
        )

    def combine_to_sum(self, gradients, activations):
        """See base class; final. One row of coefficients is enough."""
        self.rounding = linalg.gram_ridge(gradients[0].dtype)
        rows = linalg.Rows.of(gradients)
        weights = _checked(self.weigh, rows.gram(self.replica_sum))
        if weights.shape.rank == 2:
            weights = tf.reduce_sum(weights, axis=0)
        return rows.mix(weights[None], gradients[0])[0]


def combine_by_gram(
    gradients: list[tf.Tensor],
    activations,
    weigh: Weigh,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Rewrites per-loss gradients by a function of their Gram matrix.

    Args:
        gradients: T tensors, dL_i/dA (batch separated: dL_i/dA_i).
        activations: A; a list of T tensors where batch separated.
        weigh: Maps the Gram matrix `[T, T]` to weights `[T]` or coefficients
            `[T, T]`, as `GramianCombiner.weigh` does.
        replica_sum: Sums a tensor over replicas.

    Returns:
        T tensors of the same shapes and dtypes.

    Raises:
        ValueError: If `weigh` returns another shape.

    Example:
        >>> halves = combine_by_gram(
        ...     gradients, activations, lambda gram: tf.fill([2], 0.5)
        ... )
    """
    if places.of(activations).separate:
        squares = linalg.squared_norms(gradients, replica_sum)
        weights = _checked(weigh, tf.linalg.diag(squares))
        if weights.shape.rank == 2:
            weights = tf.linalg.diag_part(weights)
        return linalg.scale_each(gradients, weights)
    rows = linalg.Rows.of(gradients)
    weights = _checked(weigh, rows.gram(replica_sum))
    if weights.shape.rank == 1:
        return linalg.scale_each(gradients, weights)
    return tf.unstack(rows.mix(weights, gradients[0]), num=len(gradients))


def _checked(weigh: Weigh, gram: tf.Tensor) -> tf.Tensor:
    weights = tf.convert_to_tensor(weigh(tf.stop_gradient(gram)))
    count = gram.shape[0]
    if weights.shape not in ([count], [count, count]):
        raise ValueError(
            f"`weigh` must return weights of shape [{count}] or coefficients "
            f"of shape [{count}, {count}]. Received: shape {weights.shape}."
        )
    return tf.cast(weights, gram.dtype)
