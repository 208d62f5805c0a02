"""PCGrad: projecting conflicting gradients.

Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
Algorithm 1; the iterative form is that of Chen et al. (GradDrop), NeurIPS
2020, appendix A.3.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg, random, replicas
from graddrop_tf.bases.combiner import Combiner


def pcgrad(
    gradients,
    order,
    *,
    iterative: bool = False,
    row_order=None,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Projects each gradient off those that it conflicts with.

    For each i, over the others j in order: if `h_i . g_j < 0` then
    `h_i -= (h_i . g_j / |g_j|^2) g_j`. A zero g_j is skipped.

    Args:
        gradients: T tensors of one shape, or a stack `[T, ...]`.
        order: Integers `[T, T]`: row i is a permutation of all losses, the
            order in which i meets the others.
        iterative: Whether projections see already updated gradients h_j in
            place of the originals.
        row_order: Integers `[T]`, the order of i; for the iterative form.
        replica_sum: Sums a tensor over replicas.

    Returns:
        T tensors h_i.

    Raises:
        ValueError: Where `gradients` is empty, or the iterative form has no
            `row_order`.

    Example:
        >>> h = pcgrad([[1.0, 0.0], [-1.0, 1.0]], [[0, 1], [1, 0]])
    """
    gradients = linalg.as_list(gradients)
    if iterative and row_order is None:
        raise ValueError("The iterative form needs `row_order`.")
    rows = linalg.Rows.of(gradients)
    gram = rows.gram(replica_sum)
    coefficients = _coefficients(
        gram, order, row_order if iterative else None, gradients[0].dtype
    )
    mixed = rows.mix(coefficients, gradients[0])
    return tf.unstack(mixed, num=len(gradients))


def _coefficients(gram, order, row_order, dtype) -> tf.Tensor:
    """Returns c with `h_i = sum_j c_ij g_j`; a row order: iterative."""
    gram = tf.stop_gradient(gram)
    order = tf.cast(order, tf.int32)
    if row_order is None:
        return _parallel(gram, order)
    rounding = linalg.gram_ridge(dtype)
    return _iterative(gram, order, tf.cast(row_order, tf.int32), rounding)


def _projection(dot, square, skip) -> tf.Tensor:
    """Dot / square where they conflict, 0 elsewhere, NaN kept."""
    keep = skip | (dot >= 0) | tf.equal(square, 0)
    return tf.where(keep, tf.zeros_like(dot), linalg.safe_ratio(dot, square))


def _parallel(gram: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Coefficients c with `h_i = sum_j c_ij g_j`, for all i at once."""
    num_losses = gram.shape[0]
    rows = tf.range(num_losses)
    squares = tf.linalg.diag_part(gram)

    def project(position, coefficients, dots):
        j = order[:, position]
        dot = tf.gather(dots, j, batch_dims=1)
        factor = _projection(dot, tf.gather(squares, j), tf.equal(j, rows))
        picked = tf.one_hot(j, num_losses, dtype=gram.dtype)
        return (
            position + 1,
            coefficients - factor[:, None] * picked,
            dots - factor[:, None] * tf.gather(gram, j),
        )

    start = (0, tf.eye(num_losses, dtype=gram.dtype), gram)
    return _repeat(project, start, num_losses)[1]


def _iterative(gram, order, row_order, rounding: float) -> tf.Tensor:
    """The same, one pair at a time: h_j may have changed before."""
    num_losses = gram.shape[0]

    def project(position, coefficients, dots):
        i = row_order[position // num_losses]
        j = order[i, position % num_losses]
        # What is left of a fully projected h_j is rounding, no direction.
        gone = dots[j, j] <= rounding * gram[j, j]
        factor = _projection(dots[i, j], dots[j, j], tf.equal(i, j) | gone)
        at_i = tf.one_hot(i, num_losses, dtype=gram.dtype)
        coefficients -= factor * at_i[:, None] * coefficients[j]
        dots -= factor * at_i[:, None] * dots[j]
        dots -= factor * dots[:, j, None] * at_i
        return position + 1, coefficients, dots

    start = (0, tf.eye(num_losses, dtype=gram.dtype), gram)
    return _repeat(project, start, num_losses**2)[1]


def _repeat(body, start, count: int):
    return tf.while_loop(lambda position, *_: position < count, body, start)


@keras.saving.register_keras_serializable("graddrop_tf")
class PCGrad(Combiner):
    """Projects each loss's gradient off those that it conflicts with.

    Batch-separated gradients are orthogonal: there it is the identity.

    Reference: Yu et al., NeurIPS 2020, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        iterative: Whether projections see already updated gradients (Chen et
            al., NeurIPS 2020, appendix A.3).
        sync_replicas: Whether inner products are those of the global batch;
            costs a sum of T x T floats in each step.
        seed: Integer seed of the random orders; drawn where it is None.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.PCGrad(num_losses=2)
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        iterative: bool = False,
        sync_replicas: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            num_losses, sync_replicas=sync_replicas, seed=seed, **kwargs
        )
        self.iterative = bool(iterative)

    def combine(self, gradients, activations):
        """See base class."""
        if linalg.is_separate(activations):
            return list(gradients)
        row_order, order = self._orders(len(gradients))
        return pcgrad(
            gradients,
            order,
            iterative=self.iterative,
            row_order=row_order,
            replica_sum=self.replica_sum,
        )

    def combine_to_sum(self, gradients, activations):
        """See base class; one row of coefficients is enough."""
        row_order, order = self._orders(len(gradients))
        rows = linalg.Rows.of(gradients)
        coefficients = _coefficients(
            rows.gram(self.replica_sum),
            order,
            row_order if self.iterative else None,
            gradients[0].dtype,
        )
        total = tf.reduce_sum(coefficients, axis=0, keepdims=True)
        return rows.mix(total, gradients[0])[0]

    def _orders(self, num_losses: int):
        orders = random.permutations(num_losses + 1, num_losses, self.seed)
        return orders[0], orders[1:]

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "iterative": self.iterative}
