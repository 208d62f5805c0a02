"""The cosine form of a Gram matrix: directions apart from lengths."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from graddrop_tf import linalg


class CosineForm(NamedTuple):
    """A Gram matrix, split into directions and lengths.

    Attributes:
        cosines: `[T, T]` `float64`: `cos(g_i, g_j)`; a row of the identity
            where `g_i` is zero.
        norms: `[T]` `float64`: `|g_i|`; any positive value where that is zero.
        zero: `[T]` `bool`: whether `g_i` is zero.
        defect: 0 if the Gram matrix is finite; if not it is NaN, and the
            others stand for orthonormal gradients.
    """

    cosines: tf.Tensor
    norms: tf.Tensor
    zero: tf.Tensor
    defect: tf.Tensor

    @property
    def finite(self) -> tf.Tensor:
        """Whether the Gram matrix is finite."""
        return tf.math.is_finite(self.defect)

    @property
    def live(self) -> tf.Tensor:
        """`[T]` `float64`: 0 for a gradient of zero, else 1."""
        return 1 - tf.cast(self.zero, tf.float64)

    @property
    def largest(self) -> tf.Tensor:
        """The largest norm; 1 if all gradients are zero."""
        return tf.reduce_max(self.norms)

    @property
    def relative_norms(self) -> tf.Tensor:
        """`[T]` `float64`: `|g_i|` in units of the largest; 0 for zero."""
        return self.live * self.norms / self.largest

    def weights(self, lengths: tf.Tensor) -> tf.Tensor:
        """Returns what to multiply gradients by for parts of given lengths.

        Args:
            lengths: `[..., T]` `float64`, x: coefficients of the unit vectors
                `g_i / |g_i|`.

        Returns:
            `x_i / |g_i|`, 0 for a gradient of zero; NaN where the Gram matrix
            is not finite.
        """
        return self.live * lengths / self.norms + self.defect


def cosine_form(gram) -> CosineForm:
    """Splits a Gram matrix into directions and lengths.

    Args:
        gram: `[T, T]`, the inner products of the gradients.

    Returns:
        A `CosineForm`.

    Example:
        >>> form = cosine_form([[4.0, -1.0], [-1.0, 1.0]])
        >>> form.cosines  # [[1.0, -0.5], [-0.5, 1.0]]
    """
    gram = tf.stop_gradient(tf.cast(gram, tf.float64))
    eye = tf.eye(gram.shape[0], dtype=gram.dtype)
    # A factorization raises on NaN, which must reach the caller as a NaN.
    defect = tf.reduce_sum(linalg.defects(gram))
    gram = tf.where(tf.math.is_finite(defect), gram, eye)
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    zero = tf.equal(norms, 0)
    largest = tf.reduce_max(norms)
    largest = tf.where(tf.equal(largest, 0), tf.ones_like(largest), largest)
    norms = tf.where(zero, largest, norms)
    cosines = gram / norms[:, None] / norms[None, :]
    return CosineForm(
        tf.linalg.set_diag(cosines, tf.ones_like(norms)), norms, zero, defect
    )
