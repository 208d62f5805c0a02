"""Linear equations of one matrix or many, and steps that stay positive."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Up to here an unrolled elimination is faster than a factorization.
_FEW_ROWS = 8


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
