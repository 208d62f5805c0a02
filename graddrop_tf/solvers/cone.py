"""Projections on the cone of the directions in which no loss rises."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf.solvers.linear import make_solver, predictor_corrector

# 8 suffice for most matrices, before the equations are solved; 14 for all of
# thousands of 3 to 40 losses.
_NUM_ITERATIONS = 14
_NUM_REFINEMENTS = 3
# Below, rounding drives the steps.
_CONVERGED = 1e-18


def minimize_above(
    matrix: tf.Tensor, bounds: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Minimises `x' M x` over `x >= b`, for several b at once.

    Args:
        matrix: M, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        bounds: `[m, T]` `float64`, a b in each row, of values up to 1.
        rounding: The error of the values of M.

    Returns:
        `[m, T]` `float64`, an x for each b.

    Example:
        >>> x = minimize_above(cosines, tf.eye(2, dtype="float64"), 1e-12)
    """
    return bounds + complement(matrix, tf.matmul(bounds, matrix), rounding)


def complement(
    matrix: tf.Tensor, slopes: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Minimises `y' M y / 2 + q' y` over `y >= 0`, for several q at once.

    At the minimum `z = M y + q` is at least 0, and 0 where y is positive. A
    primal-dual interior-point method tells which, with Mehrotra's predictor
    and corrector (Nocedal and Wright, "Numerical Optimization", 2006, section
    16.6); then the equations `z_i = 0` of the positive y are solved. The
    matrices of all equations have a multiple of the identity added, their
    residuals are those of M itself, as in `minimize_on_simplex`. 14 steps, 15
    factorizations for each q.

    Args:
        matrix: M, as in `minimize_above`.
        slopes: `[m, T]` `float64`, a q in each row.
        rounding: The error of the values of M.

    Returns:
        `[m, T]` `float64`, a y for each q. Finite, though of no meaning, where
        no minimum exists.

    Example:
        >>> y = complement(cosines, tf.constant([[-1.0, 1.0]], "float64"), 0.0)
    """
    num_rows = matrix.shape[0]
    ridge = num_rows * rounding * tf.eye(num_rows, dtype=tf.float64)
    # y is in proportion to q; a step is made for values of about 1.
    size = tf.reduce_max(tf.abs(slopes), axis=-1, keepdims=True)
    size = tf.where(size > 0, size, 1.0)
    slopes /= size
    y = tf.ones_like(slopes)
    z = tf.maximum(tf.linalg.matvec(matrix, y) + slopes, 1.0)
    _, y, z = tf.while_loop(
        lambda position, *_: position < _NUM_ITERATIONS,
        lambda position, *point: (
            position + 1,
            *_iterate(matrix, ridge, slopes, *point),
        ),
        (0, y, z),
    )
    refined = _refine(matrix, ridge, slopes, y, free=y > z)
    better = shortfall(matrix, slopes, refined) < shortfall(matrix, slopes, y)
    y = tf.where(better[..., None], refined, y)
    return size * tf.maximum(y, 0.0)


def shortfall(matrix: tf.Tensor, slopes: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Returns how far y is from what `complement` finds.

    Args:
        matrix: M, as in `complement`.
        slopes: q, `[m, T]`.
        y: `[m, T]`.

    Returns:
        `[m]`, the largest `min(y_i, z_i)` in magnitude.

    Example:
        >>> shortfall(cosines, slopes, complement(cosines, slopes, 1e-12))
    """
    z = tf.linalg.matvec(matrix, y) + slopes
    return tf.reduce_max(tf.abs(tf.minimum(y, z)), axis=-1)


def _iterate(matrix, ridge, slopes, y, z):
    """Takes a predictor-corrector step."""
    dual = tf.linalg.matvec(matrix, y) + slopes - z
    solve = make_solver(matrix + ridge + tf.linalg.diag(z / y))

    def newton(complementarity):
        d_y = solve(complementarity / y - dual)
        return d_y, (complementarity - z * d_y) / y, 0.0

    return predictor_corrector(newton, y, z, 0.0, _CONVERGED)[:2]


def _refine(matrix, ridge, slopes, y, free) -> tf.Tensor:
    """Solves the equations of the free y; the others are 0."""
    free = tf.cast(free, tf.float64)
    part = matrix * free[..., :, None] * free[..., None, :]
    solve = make_solver(part + ridge + tf.linalg.diag(1 - free))
    # From y itself: dependent gradients leave a part of it open.
    y = free * y
    for _ in range(_NUM_REFINEMENTS):
        y -= free * solve(free * slopes + tf.linalg.matvec(part, y))
    return y
