"""DualProj: the sum of the gradients, projected so that no loss rises.

Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning",
NeurIPS 2017 (arXiv 1706.08840), section 3, Eq. 11; for all losses alike in
Quinton and Rey, 2024 (arXiv 2406.16232), section 4.
"""

from __future__ import annotations

import keras

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner


@keras.saving.register_keras_serializable("graddrop_tf")
class DualProj(GramianCombiner):
    """Projects the sum of the gradients so that no loss rises.

    The nearest direction d to the sum with `g_i . d >= 0` for all losses:
    `sum_i w_i g_i` with the w of smallest `w' G w` for which all `w_i >= 1`.
    Where the sum itself raises no loss it is unchanged.

    Solver: a quadratic program, 14 interior-point steps.

    Reference: Lopez-Paz and Ranzato, NeurIPS 2017, section 3.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.DualProj(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        form = solvers.cosine_form(gram)
        norms = form.relative_norms
        lengths = solvers.minimize_above(form.cosines, norms[None], rounding)
        return form.weights(form.largest * lengths[0])
