"""ConFIG: equal cosines to all gradients, as long as their projections.

Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics
Informed Neural Networks", ICLR 2025 (arXiv 2408.11104), section 3.1.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import linalg, solvers
from graddrop_tf.bases.gramian import GramianCombiner


@keras.saving.register_keras_serializable("graddrop_tf")
class ConFIG(GramianCombiner):
    """Takes the direction at equal angles to all gradients.

    `v = unit(U^+ 1)` of the unit gradients U (Eq. 2), times the sum of the
    gradients' projections on v (Eq. 3). No loss rises where the gradients are
    independent. Gradients of zero are left out. 0 where the gradients have no
    such direction, as two opposed ones.

    Solver: an eigendecomposition, made exact by 3 sweeps of Jacobi rotations;
    dependent gradients by the pseudo-inverse of the cosine matrix.

    Reference: Liu, Chu and Thuerey, ICLR 2025, section 3.1.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.ConFIG(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        form = solvers.cosine_form(gram)
        lengths = solvers.solve_for_ones(form.cosines, form.live, rounding)
        cosines = tf.linalg.matvec(form.cosines, lengths)
        projections = tf.reduce_sum(form.relative_norms * cosines)
        square = tf.reduce_sum(lengths * cosines)
        scale = linalg.safe_ratio(projections, square)
        return form.weights(form.largest * scale * lengths)
