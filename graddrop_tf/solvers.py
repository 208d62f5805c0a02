"""Small optimization problems on the Gram matrix of the gradients.

Each is solved on the cosine matrix, which is as well conditioned for losses
whose gradients differ a million times in size as for those of one size; the
norms enter last. All is `float64` with a fixed number of iterations, in
operations that run on a GPU and compile under XLA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

# 14 converge for 100 losses; tests hold the gap that is left after 16.
_NUM_ITERATIONS = 16
_CONVERGED = 1e-14
# Up to here an unrolled elimination is faster than a factorization.
_FEW_ROWS = 8


class CosineForm(NamedTuple):
    """A Gram matrix, split into directions and lengths.

    Attributes:
        cosines: `[T, T]` `float64`: `cos(g_i, g_j)`; a row of the identity
            where `g_i` is zero.
        norms: `[T]` `float64`: `|g_i|`; any positive value where that is zero.
        zero: `[T]` `bool`: whether `g_i` is zero.
        finite: Whether the Gram matrix is finite; if not, the others stand for
            orthonormal gradients.
    """

    cosines: tf.Tensor
    norms: tf.Tensor
    zero: tf.Tensor
    finite: tf.Tensor


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
    finite = tf.reduce_all(tf.math.is_finite(gram))
    gram = tf.where(finite, gram, eye)
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    zero = tf.equal(norms, 0)
    largest = tf.reduce_max(norms)
    largest = tf.where(tf.equal(largest, 0), tf.ones_like(largest), largest)
    norms = tf.where(zero, largest, norms)
    cosines = gram / norms[:, None] / norms[None, :]
    return CosineForm(
        tf.linalg.set_diag(cosines, tf.ones_like(norms)), norms, zero, finite
    )


def minimize_on_simplex(
    matrix: tf.Tensor, prices: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Minimises `x' M x` over `x >= 0` with `b' x = 1`.

    A primal-dual interior-point method with Mehrotra's predictor and
    corrector (Nocedal and Wright, "Numerical Optimization", 2006, section
    16.6). A multiple of the identity keeps the equations of each step regular.
    It does not move the solution: the residuals are those of M itself
    (Friedlander and Orban, "A primal-dual regularized interior-point method
    for convex quadratic programs", 2012).

    Args:
        matrix: M, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        prices: b, `[T]` `float64`, positive, of maximum 1.
        rounding: The error of the values of M.

    Returns:
        x, `[T]` `float64`.

    Example:
        >>> x = minimize_on_simplex(tf.eye(2, dtype="float64"), b, 1e-12)
    """
    num_rows = matrix.shape[0]
    # An error in each value moves the eigenvalues by up to T times as much.
    regular = matrix + num_rows * rounding * tf.eye(num_rows, dtype=tf.float64)
    ones = tf.ones_like(prices)
    start = (0, ones / tf.reduce_sum(prices), ones, tf.zeros([], tf.float64))
    return tf.while_loop(
        lambda position, *_: position < _NUM_ITERATIONS,
        lambda position, *point: (
            position + 1,
            *_iterate(matrix, regular, prices, *point),
        ),
        start,
    )[1]


def _iterate(matrix, regular, prices, x, z, nu):
    """Takes a predictor-corrector step; z, nu: multipliers of x, b'x = 1."""
    mu = tf.reduce_mean(x * z)
    dual = tf.linalg.matvec(matrix, x) - nu * prices - z
    primal = tf.reduce_sum(prices * x) - 1
    solve = make_solver(regular + tf.linalg.diag(z / x))
    response = solve(prices)

    def newton(complementarity):
        step = solve(complementarity / x - dual)
        d_nu = -primal - tf.reduce_sum(prices * step)
        d_nu /= tf.reduce_sum(prices * response)
        d_x = step + d_nu * response
        return d_x, (complementarity - z * d_x) / x, d_nu

    d_x, d_z, _ = newton(-x * z)
    length = _step_length(x, d_x, z, d_z, 1.0)
    ahead = tf.reduce_mean((x + length * d_x) * (z + length * d_z))
    centring = (ahead / mu) ** 3
    d_x, d_z, d_nu = newton(centring * mu - x * z - d_x * d_z)
    length = _step_length(x, d_x, z, d_z, 0.99)
    length *= tf.cast(mu > _CONVERGED, tf.float64)
    return x + length * d_x, z + length * d_z, nu + length * d_nu


def _step_length(x, d_x, z, d_z, fraction: float) -> tf.Tensor:
    """Returns the longest step, at most 1, that keeps x and z positive."""
    values = tf.concat([x, z], 0)
    steps = tf.concat([d_x, d_z], 0)
    towards = tf.where(steps < 0, steps, -tf.ones_like(steps))
    bounds = tf.where(steps < 0, -values / towards, tf.ones_like(values) * 2)
    return tf.minimum(fraction * tf.reduce_min(bounds), 1.0)


def make_solver(matrix: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that solves `matrix x = right` for `right` `[T]`.

    Args:
        matrix: `[T, T]`, positive definite.
    """
    num_rows = matrix.shape[0]
    if num_rows > _FEW_ROWS:
        root = tf.linalg.cholesky(matrix)
        return lambda right: tf.linalg.cholesky_solve(root, right[:, None])[
            :, 0
        ]
    # Gauss-Jordan; a positive definite matrix needs no pivots.
    eye = tf.eye(num_rows, dtype=matrix.dtype)
    both = tf.concat([matrix, eye], axis=1)
    for i in range(num_rows):
        row = both[i] / both[i, i]
        both -= (both[:, i] - eye[i])[:, None] * row
    inverse = both[:, num_rows:]
    return lambda right: tf.reduce_sum(inverse * right, axis=1)
