"""Positive combinations in which each gradient gains in proportion."""

from __future__ import annotations

import tensorflow as tf

from graddrop_tf.solvers.linear import make_solver

# 10 converge for alpha up to 2, whatever the norms; alpha = 5 needs 23.
_NUM_ITERATIONS = 24
_LONGEST_STEP = 4.0
# Added to the diagonal where there is no solution without.
_RIDGE = 1e-6
_SOLVED = 1e-6


def balance(
    cosines: tf.Tensor, norms: tf.Tensor, alpha: float, rounding: float
) -> tf.Tensor:
    """Finds positive x with `w_i^(1/alpha) (G w)_i = 1`, where `x_i = w_i s_i`.

    On the cosine matrix C that is `(C x)_i = k_i x_i^(-1/alpha)` with
    `k_i = s_i^(1/alpha - 1)`, where a convex function of x is smallest. Damped
    Gauss-Newton in log x: 24 steps, two factorizations each.

    Where a convex combination of gradients is 0 there is no solution, as their
    x would grow without end. The result then is the solution for C with 1e-6
    added to its diagonal, in which those gradients nearly cancel; so it is
    where an x is so large that the rounding of C decides it.

    Args:
        cosines: C, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        norms: s, `[T]` `float64`, positive, of maximum 1.
        alpha: Above 0.
        rounding: The error of the values of C.

    Returns:
        x, `[T]` `float64`.

    Example:
        >>> x = balance(tf.eye(2, dtype="float64"), s, 1.0, 1e-12)  # 1, 1
    """
    num_rows = cosines.shape[0]
    eye = tf.eye(num_rows, dtype=tf.float64)
    matrices = tf.stack([cosines, cosines + _RIDGE * eye])
    # The size by which rounding may lower the eigenvalues.
    regular = matrices + 0.25 * num_rows**0.5 * rounding * eye
    power = 1 / alpha
    log_k = (power - 1) * tf.math.log(norms)

    def sides(log_x):
        """Returns `x_i (C x)_i` and what it should be."""
        x = tf.exp(log_x)
        products = x * tf.linalg.matvec(matrices, x)
        return products, tf.exp(log_k + (1 - power) * log_x)

    def step(position, log_x):
        products, target = sides(log_x)
        root = tf.sqrt(target)
        scaled = tf.exp(log_x) / root
        curvature = scaled[..., :, None] * regular * scaled[..., None, :]
        solve = make_solver(curvature + power * eye)
        d_log_x = solve((target - products) / root) / root
        longest = tf.reduce_max(tf.abs(d_log_x), axis=-1, keepdims=True)
        length = _LONGEST_STEP / tf.maximum(longest, _LONGEST_STEP)
        return position + 1, log_x + length * d_log_x

    # The solution for orthogonal gradients.
    start = log_k / (1 + power)
    _, log_x = tf.while_loop(
        lambda position, _: position < _NUM_ITERATIONS,
        step,
        (0, tf.stack([start, start])),
    )
    products, target = sides(log_x)
    solved = tf.abs(products - target) <= _SOLVED * target
    largest = rounding**-0.4 * tf.exp(tf.reduce_max(start))
    within = tf.exp(log_x) <= largest
    usable = tf.reduce_all(solved & within, axis=-1)[0]
    return tf.exp(tf.where(usable, log_x[0], log_x[1]))
