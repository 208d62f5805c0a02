"""PCGrad: projecting conflicting gradients.

Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020,
Algorithm 1; the iterative form is that of Chen et al. (GradDrop), NeurIPS
2020, appendix A.3.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.combiner import RandomCombiner
from graddrop_tf.bases.gramian import GramianCombiner


def project(gram: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Projects each gradient off the originals that it conflicts with.

    For each i, over the others j in order: if `h_i . g_j < 0` then
    `h_i -= (h_i . g_j / |g_j|^2) g_j`. A zero g_j is skipped.

    Args:
        gram: `[T, T]`, the inner products of the g_i.
        order: `int32` `[T, T]`: row i is a permutation of all losses, the
            order in which i meets the others.

    Returns:
        Coefficients c `[T, T]` with `h_i = sum_j c_ij g_j`.

    Example:
        >>> c = project([[1.0, -1.0], [-1.0, 2.0]], [[0, 1], [1, 0]])
    """
    gram = tf.convert_to_tensor(gram)
    num_losses = gram.shape[0]
    rows = tf.range(num_losses)
    squares = tf.linalg.diag_part(gram)

    def step(position, c, dots):
        j = tf.gather(order, position, axis=1)
        dot = tf.gather(dots, j, batch_dims=1)
        factor = _factor(dot, tf.gather(squares, j), tf.equal(j, rows))
        picked = tf.one_hot(j, num_losses, dtype=gram.dtype)
        dots -= factor[:, None] * tf.gather(gram, j)
        return position + 1, c - factor[:, None] * picked, dots

    return _repeat(step, gram, num_losses)


def project_iteratively(
    gram: tf.Tensor, order: tf.Tensor, row_order: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Projects one pair at a time, off the already projected h_j.

    Args:
        gram: As in `project`.
        order: As in `project`.
        row_order: `int32` `[T]`, the order of i.
        rounding: Relative rounding error of `gram`: what is left of a fully
            projected h_j below it has no direction and is skipped.

    Returns:
        As in `project`.
    """
    num_losses = gram.shape[0]

    def step(position, c, dots):
        i = tf.gather(row_order, position // num_losses)
        j = tf.gather(tf.gather(order, i), position % num_losses)
        gone = dots[j, j] <= rounding * gram[j, j]
        factor = _factor(dots[i, j], dots[j, j], tf.equal(i, j) | gone)
        at_i = tf.one_hot(i, num_losses, dtype=gram.dtype)
        c -= factor * at_i[:, None] * c[j]
        dots -= factor * at_i[:, None] * dots[j]
        dots -= factor * dots[:, j, None] * at_i
        return position + 1, c, dots

    return _repeat(step, gram, num_losses**2)


def _factor(dot, square, skip) -> tf.Tensor:
    """Returns dot / square if they conflict, else 0; keeps NaN."""
    keep = skip | (dot >= 0) | tf.equal(square, 0)
    return tf.where(keep, tf.zeros_like(dot), linalg.safe_ratio(dot, square))


def _repeat(step, gram, count: int) -> tf.Tensor:
    start = (0, tf.eye(gram.shape[0], dtype=gram.dtype), gram)
    return tf.while_loop(lambda position, *_: position < count, step, start)[1]


@keras.saving.register_keras_serializable("graddrop_tf")
class PCGrad(GramianCombiner, RandomCombiner):
    """Projects each loss's gradient off those that it conflicts with.

    Reference: Yu et al., NeurIPS 2020, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        iterative: Whether projections see already updated gradients (Chen et
            al., NeurIPS 2020, appendix A.3).
        seed: Integer seed of the random orders; drawn where it is None.
        **kwargs: `sync_replicas`, `name`, `dtype`.

    Example:
        >>> layer = gd.PCGrad(num_losses=2)
    """

    needs_rounding = True

    def __init__(self, num_losses=None, *, iterative: bool = False, **kwargs):
        super().__init__(num_losses, **kwargs)
        self.iterative = bool(iterative)

    def weigh(self, gram, rounding):
        """See base class."""
        orders = self.permutations(gram.shape[0] + 1, gram.shape[0])
        if not self.iterative:
            return project(gram, orders[1:])
        return project_iteratively(gram, orders[1:], orders[0], rounding)
