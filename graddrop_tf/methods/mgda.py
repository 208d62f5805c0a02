"""MGDA: the shortest convex combination of the losses' gradients.

Desideri, "Multiple-gradient descent algorithm (MGDA)", 2012, section 2; at
the shared activations as MGDA-UB in Sener and Koltun, "Multi-Task Learning
as Multi-Objective Optimization", NeurIPS 2018, section 3.3.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner


def min_norm_weights(gram, rounding: float = 1e-12) -> tf.Tensor:
    """Finds weights w on the simplex that minimise `w' G w`.

    With `x_i = w_i |g_i|` that is `x' C x` on the cosine matrix C, where
    `sum_i x_i / |g_i| = 1`. A gradient of zero is the shortest combination
    itself; several of them share the weight.

    Args:
        gram: G, `[T, T]`, positive semidefinite up to its rounding.
        rounding: Its relative error.

    Returns:
        `float64` weights `[T]`, at least 0 and of sum 1; NaN where `gram` has
        a value that is not finite.

    Example:
        >>> w = min_norm_weights([[18.0, -22.0], [-22.0, 38.0]])  # 0.6, 0.4
    """
    cosines, norms, zero, defect = solvers.cosine_form(gram)
    prices = tf.reduce_min(norms) / norms
    weights = prices * solvers.minimize_on_simplex(cosines, prices, rounding)
    weights = tf.where(tf.reduce_any(zero), tf.cast(zero, tf.float64), weights)
    return weights / tf.reduce_sum(weights) + defect


@keras.saving.register_keras_serializable("graddrop_tf")
class MGDA(GramianCombiner):
    """Scales the losses' gradients to the shortest convex combination.

    The heads keep their own losses' gradients.

    Reference: Sener and Koltun, NeurIPS 2018 (MGDA-UB).

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.MGDA(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        return min_norm_weights(gram, rounding)
