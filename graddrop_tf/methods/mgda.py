"""MGDA: the shortest convex combination of the losses' gradients.

Desideri, "Multiple-gradient descent algorithm (MGDA)", 2012, section 2; at
the shared activations as MGDA-UB in Sener and Koltun, "Multi-Task Learning
as Multi-Objective Optimization", NeurIPS 2018, section 3.3.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.gramian import GramianCombiner

# 12 reach 1e-10 of max |g|^2 on 100 losses; see tests.
_NUM_ITERATIONS = 16
_CONVERGED = 1e-14


def min_norm_weights(gram, ridge: float = 1e-12) -> tf.Tensor:
    """Finds weights a on the simplex that minimise `a' G a`.

    A primal-dual interior-point method with Mehrotra's predictor and
    corrector (Nocedal and Wright, "Numerical Optimization", 2006, section
    16.6), in float64, with a fixed number of iterations.

    Args:
        gram: `[T, T]`, positive semidefinite up to its rounding.
        ridge: Its relative error, added to the diagonal.

    Returns:
        `float64` weights `[T]`, at least 0 and of sum 1; NaN where `gram` has
        a value that is not finite.

    Example:
        >>> a = min_norm_weights([[18.0, -22.0], [-22.0, 38.0]])  # 0.6, 0.4
    """
    gram = tf.stop_gradient(tf.cast(gram, tf.float64))
    num_losses = gram.shape[0]
    eye = tf.eye(num_losses, dtype=tf.float64)
    ones = tf.ones([num_losses], tf.float64)
    # Cholesky raises on NaN, which must reach the caller as a NaN instead.
    finite = tf.reduce_all(tf.math.is_finite(gram))
    gram = tf.where(finite, gram, eye)
    largest = tf.reduce_max(tf.linalg.diag_part(gram))
    gram = linalg.safe_ratio(gram, largest) + ridge * eye
    start = (0, ones / num_losses, ones, tf.zeros([], tf.float64))
    _, a, _, _ = tf.while_loop(
        lambda position, *_: position < _NUM_ITERATIONS,
        lambda position, *point: (position + 1, *_iterate(gram, *point)),
        start,
    )
    a /= tf.reduce_sum(a)
    return tf.where(finite, a, tf.constant(float("nan"), tf.float64))


def _iterate(gram, a, z, nu):
    """Takes a predictor-corrector step; z, nu: multipliers of a, sum a = 1."""
    mu = tf.reduce_mean(a * z)
    dual = tf.linalg.matvec(gram, a) - nu - z
    primal = tf.reduce_sum(a) - 1
    solve = linalg.make_solver(gram + tf.linalg.diag(z / a))
    response = solve(tf.ones_like(a))

    def newton(complementarity):
        step = solve(complementarity / a - dual)
        d_nu = (-primal - tf.reduce_sum(step)) / tf.reduce_sum(response)
        d_a = step + d_nu * response
        return d_a, (complementarity - z * d_a) / a, d_nu

    d_a, d_z, _ = newton(-a * z)
    length = _step_length(a, d_a, z, d_z, 1.0)
    ahead = tf.reduce_mean((a + length * d_a) * (z + length * d_z))
    centring = (ahead / mu) ** 3
    d_a, d_z, d_nu = newton(centring * mu - a * z - d_a * d_z)
    length = _step_length(a, d_a, z, d_z, 0.99)
    length *= tf.cast(mu > _CONVERGED, tf.float64)
    return a + length * d_a, z + length * d_z, nu + length * d_nu


def _step_length(a, d_a, z, d_z, fraction: float) -> tf.Tensor:
    """Returns the longest step, at most 1, that keeps a and z positive."""
    values = tf.concat([a, z], 0)
    steps = tf.concat([d_a, d_z], 0)
    bounds = tf.where(steps < 0, -values / steps, tf.ones_like(values) * 2)
    return tf.minimum(fraction * tf.reduce_min(bounds), 1.0)


@keras.saving.register_keras_serializable("graddrop_tf")
class MGDA(GramianCombiner):
    """Scales the losses' gradients to the shortest convex combination.

    The heads keep their own losses' gradients.

    Reference: Sener and Koltun, NeurIPS 2018 (MGDA-UB).

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.MGDA(num_losses=2)
    """

    def weigh(self, gram):
        """See base class."""
        return min_norm_weights(gram, self.rounding)
