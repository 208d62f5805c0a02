"""Linear equations of one matrix or many, and steps of an interior point."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Compiled by XLA, a factorization of so few rows takes several times as long as
# an unrolled elimination; in a graph of TensorFlow's it is a third faster.
_FEW_ROWS = 5


def make_solver(matrix: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that solves `M x = right` for `right` `[..., T]`.

    Args:
        matrix: M, `[..., T, T]`, positive definite.
    """
    num_rows = matrix.shape[-1]
    if num_rows > _FEW_ROWS:
        root = tf.linalg.cholesky(matrix)
        return lambda right: tf.linalg.cholesky_solve(root, right[..., None])[
            ..., 0
        ]
    # Gauss-Jordan; a positive definite matrix needs no pivots.
    eye = tf.eye(num_rows, dtype=matrix.dtype)
    both = tf.concat([matrix, tf.broadcast_to(eye, tf.shape(matrix))], axis=-1)
    for i in range(num_rows):
        row = both[..., i : i + 1, :] / both[..., i : i + 1, i : i + 1]
        both -= (both[..., i : i + 1] - eye[:, i : i + 1]) * row
    inverse = both[..., num_rows:]
    return lambda right: tf.reduce_sum(inverse * right[..., None, :], axis=-1)


def step_length(x, d_x, z, d_z, fraction: float) -> tf.Tensor:
    """Returns the longest step, at most 1, that keeps x and z positive.

    Args:
        x: `[..., T]`, positive.
        d_x: The direction of x.
        z: `[..., T]`, positive.
        d_z: The direction of z.
        fraction: Share of the way to the boundary.

    Returns:
        `[...]`.
    """
    values = tf.concat([x, z], -1)
    steps = tf.concat([d_x, d_z], -1)
    towards = tf.where(steps < 0, steps, -tf.ones_like(steps))
    bounds = tf.where(steps < 0, -values / towards, tf.ones_like(values) * 2)
    return tf.minimum(fraction * tf.reduce_min(bounds, axis=-1), 1.0)


def predictor_corrector(newton, x, z, nu, converged: float) -> tuple:
    """Takes a step towards `x_i z_i = 0` inside of `x, z > 0`.

    Mehrotra's predictor and corrector (Nocedal and Wright, "Numerical
    Optimization", 2006, section 16.6).

    Args:
        newton: Maps what `x_i z_i` is to change by to the directions of x, z
            and nu.
        x: `[..., T]`, positive.
        z: Its multipliers, `[..., T]`, positive.
        nu: The multiplier of an equation, `[...]`.
        converged: A mean of `x_i z_i` at which x, z and nu stay.

    Returns:
        The next x, z and nu.
    """
    mu = tf.reduce_mean(x * z, axis=-1)
    d_x, d_z, _ = newton(-x * z)
    length = step_length(x, d_x, z, d_z, 1.0)[..., None]
    ahead = tf.reduce_mean((x + length * d_x) * (z + length * d_z), axis=-1)
    target = (ahead / mu) ** 3 * mu
    d_x, d_z, d_nu = newton(target[..., None] - x * z - d_x * d_z)
    length = step_length(x, d_x, z, d_z, 0.99)
    length *= tf.cast(mu > converged, tf.float64)
    step = length[..., None]
    return x + step * d_x, z + step * d_z, nu + length * d_nu
