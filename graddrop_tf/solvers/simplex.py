"""The shortest combination of vectors whose weights have a given sum."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf.solvers.linear import make_solver, predictor_corrector

# 14 converge for 100 losses; tests hold the gap that is left after 16.
_NUM_ITERATIONS = 16
# Of up to 8 losses, 12 leave a gap below 1e-13.
_FEW_ROWS, _FOR_FEW_ROWS = 8, 12
_CONVERGED = 1e-14


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
    if num_rows == 2:
        return _between_two(matrix[0, 1], prices)
    # An error in each value moves the eigenvalues by up to T times as much.
    regular = matrix + num_rows * rounding * tf.eye(num_rows, dtype=tf.float64)
    ones = tf.ones_like(prices)
    start = (0, ones / tf.reduce_sum(prices), ones, tf.zeros([], tf.float64))
    # A number that values decide could not be compiled for many problems at
    # once, and a GPU would wait for it.
    iterations = _NUM_ITERATIONS if num_rows > _FEW_ROWS else _FOR_FEW_ROWS
    return tf.while_loop(
        lambda position, *_: position < iterations,
        lambda position, *point: (
            position + 1,
            *_iterate(matrix, regular, prices, *point),
        ),
        start,
    )[1]


def _between_two(cosine: tf.Tensor, prices: tf.Tensor) -> tf.Tensor:
    """Solves the problem of two vectors.

    With `x_i = w_i / b_i` it is the point of a segment that is closest to 0
    (Sener and Koltun, NeurIPS 2018, Algorithm 1).
    """
    lengths = 1 / prices
    difference = lengths[1] - lengths[0]
    product = lengths[0] * lengths[1]
    # 1 - cosine is accurate where the lengths' squares would cancel.
    spread = product * tf.maximum(1 - cosine, 0.0)
    square = difference**2 + 2 * spread
    share = (lengths[1] * difference + spread) / tf.where(
        square > 0, square, 1.0
    )
    share = tf.where(square > 0, tf.clip_by_value(share, 0.0, 1.0), 0.5)
    return tf.stack([share, 1 - share]) * lengths


def _iterate(matrix, regular, prices, x, z, nu):
    """Takes a predictor-corrector step; z, nu: multipliers of x, b'x = 1."""
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

    return predictor_corrector(newton, x, z, nu, _CONVERGED)
