"""MGDA: the shortest convex combination of the losses' gradients.

Desideri, "Multiple-gradient descent algorithm (MGDA)", 2012, section 2; at
the shared activations as MGDA-UB in Sener and Koltun, "Multi-Task Learning
as Multi-Objective Optimization", NeurIPS 2018, section 3.3.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg, replicas
from graddrop_tf.bases.combiner import Combiner

# 12 reach 1e-10 of max |g|^2 on 100 losses; see tests.
_NUM_ITERATIONS = 16
# Up to here an unrolled elimination is faster than a factorization.
_FEW_LOSSES = 8
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

    def iterate(position, a, z, nu):
        mu = tf.reduce_mean(a * z)
        dual = tf.linalg.matvec(gram, a) - nu - z
        primal = tf.reduce_sum(a) - 1
        solve = _solver(gram + tf.linalg.diag(z / a))
        response = solve(ones)

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
        return (
            position + 1,
            a + length * d_a,
            z + length * d_z,
            nu + length * d_nu,
        )

    a = ones / num_losses
    start = (0, a, ones, tf.zeros([], tf.float64))
    _, a, _, _ = tf.while_loop(
        lambda position, *_: position < _NUM_ITERATIONS,
        iterate,
        start,
    )
    a /= tf.reduce_sum(a)
    return tf.where(finite, a, tf.constant(float("nan"), tf.float64))


def _solver(matrix: tf.Tensor):
    """Returns a function that solves for a right-hand side `[T]`."""
    num_losses = matrix.shape[0]
    if num_losses > _FEW_LOSSES:
        root = tf.linalg.cholesky(matrix)
        return lambda right: tf.linalg.cholesky_solve(root, right[:, None])[
            :, 0
        ]
    # Gauss-Jordan; a positive definite matrix needs no pivots.
    eye = tf.eye(num_losses, dtype=matrix.dtype)
    both = tf.concat([matrix, eye], axis=1)
    for i in range(num_losses):
        row = both[i] / both[i, i]
        both -= (both[:, i] - eye[i])[:, None] * row
    inverse = both[:, num_losses:]
    return lambda right: tf.reduce_sum(inverse * right, axis=1)


def _step_length(a, d_a, z, d_z, fraction: float) -> tf.Tensor:
    """The longest step that keeps a and z positive, at most 1."""
    values = tf.concat([a, z], 0)
    steps = tf.concat([d_a, d_z], 0)
    bounds = tf.where(steps < 0, -values / steps, tf.ones_like(values) * 2)
    return tf.minimum(fraction * tf.reduce_min(bounds), 1.0)


def mgda(
    gradients,
    activations=None,
    *,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Scales gradients so that their sum is the shortest combination.

    Args:
        gradients: T tensors, or a stack `[T, ...]`.
        activations: A list of T tensors where they are batch separated.
        replica_sum: Sums a tensor over replicas.

    Returns:
        T tensors `a_i g_i`.

    Raises:
        ValueError: Where `gradients` is empty.

    Example:
        >>> scaled = mgda([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    """
    gradients = linalg.as_list(gradients)
    if linalg.is_separate(activations):
        # Gradients of different examples are orthogonal.
        gram = tf.linalg.diag(linalg.squared_norms(gradients, replica_sum))
    else:
        gram = linalg.Rows.of(gradients).gram(replica_sum)
    ridge = linalg.gram_ridge(gradients[0].dtype)
    return linalg.scale_each(gradients, min_norm_weights(gram, ridge))


@keras.saving.register_keras_serializable("graddrop_tf")
class MGDA(Combiner):
    """Scales the losses' gradients to the shortest convex combination.

    The heads keep their own losses' gradients.

    Reference: Sener and Koltun, NeurIPS 2018 (MGDA-UB).

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: Whether inner products are those of the global batch;
            costs a sum of T x T floats in each step.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.MGDA(num_losses=2)
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        sync_replicas: bool = True,
        **kwargs,
    ):
        # Nothing is drawn.
        super().__init__(
            num_losses, sync_replicas=sync_replicas, seed=0, **kwargs
        )

    def combine(self, gradients, activations):
        """See base class."""
        return mgda(gradients, activations, replica_sum=self.replica_sum)

    def combine_to_sum(self, gradients, activations):
        """See base class."""
        rows = linalg.Rows.of(gradients)
        weights = min_norm_weights(
            rows.gram(self.replica_sum), linalg.gram_ridge(gradients[0].dtype)
        )
        return rows.mix(weights[None], gradients[0])[0]

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["seed"]
        return config
