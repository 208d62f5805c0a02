"""UPGrad: the sum of the gradients, each projected so that no loss rises.

Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024
(arXiv 2406.16232), section 3.2.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner


def projections(gram, rounding: float = 1e-12) -> tf.Tensor:
    """Projects each gradient on the directions in which no loss rises.

    The projection of g_i on `{d: g_j . d >= 0 for all j}` is `sum_j v_j g_j`
    with the v of smallest `v' G v` for which `v_i >= 1` and all others are at
    least 0 (Proposition 1). On the cosine matrix the norms drop out.

    Args:
        gram: G, `[T, T]`, positive semidefinite up to its rounding.
        rounding: Its relative error.

    Returns:
        `float64` `[T, T]`: row i holds the v of g_i; NaN where `gram` has a
        value that is not finite.

    Example:
        >>> v = projections([[1.0, -1.0], [-1.0, 2.0]])  # (1, .5), (1, 1)
    """
    form = solvers.cosine_form(gram)
    eye = tf.eye(form.cosines.shape[0], dtype=tf.float64)
    lengths = solvers.minimize_above(form.cosines, eye, rounding)
    return form.weights(form.norms[:, None] * lengths)


@keras.saving.register_keras_serializable("graddrop_tf")
class UPGrad(GramianCombiner):
    """Projects each loss's gradient so that no loss rises, and adds them up.

    Where no two gradients conflict this is the plain sum. The paper takes the
    mean; the sum of T losses is T times as long, as that of the baseline.

    Solver: T quadratic programs at once, 14 interior-point steps.

    Reference: Quinton and Rey, 2024 (arXiv 2406.16232), section 3.2.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.UPGrad(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        return projections(gram, rounding)
