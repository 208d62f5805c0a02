"""Equal norms: every gradient as long as the longest.

Lin et al., "Dual-Balancing for Multi-Task Learning", 2023 (arXiv 2308.12029),
section 3.2, without the moving average.
"""

from __future__ import annotations

import keras

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner


@keras.saving.register_keras_serializable("graddrop_tf")
class EqualNorm(GramianCombiner):
    """Scales each loss's gradient to the norm of the largest.

    A gradient of zero stays zero.

    Reference: Lin et al., 2023 (arXiv 2308.12029), section 3.2.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.EqualNorm(num_losses=2)
    """

    def weigh(self, gram):
        """See base class."""
        form = solvers.cosine_form(gram)
        return form.weights(form.largest * form.live)
