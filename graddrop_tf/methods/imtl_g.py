"""IMTL-G: the direction with equal projections on all gradients.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.1.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg, solvers
from graddrop_tf.bases.gramian import GramianCombiner


@keras.saving.register_keras_serializable("graddrop_tf")
class IMTLG(GramianCombiner):
    """Weighs gradients so that all have the same projection on the result.

    Weights a of sum 1 with `g_i . d / |g_i|` equal for all i (Eq. 7): the
    result is at the scale of a mean. Gradients of zero are left out. Weights
    may be negative and the direction may raise every loss, also where the
    gradients are independent; `ConFIG` takes the same line in the direction in
    which all losses fall. The result is 0 where the weights cannot sum to 1.

    Solver: an eigendecomposition, made exact by 3 sweeps of Jacobi rotations;
    dependent gradients by the pseudo-inverse of the cosine matrix.

    Reference: Liu et al., ICLR 2021, section 3.1.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.IMTLG(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        form = solvers.cosine_form(gram)
        lengths = solvers.solve_for_ones(form.cosines, form.live, rounding)
        weights = form.largest * form.weights(lengths)
        total = tf.reduce_sum(weights)
        size = tf.reduce_sum(tf.abs(weights))
        vanishes = tf.abs(total) <= rounding * size
        total = tf.where(vanishes, tf.zeros_like(total), total)
        return linalg.safe_ratio(weights, total)
