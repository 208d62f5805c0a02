"""Nash-MTL: the bargaining solution of the losses.

Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022
(arXiv 2202.01017), section 3.
"""

from __future__ import annotations

import keras

from graddrop_tf.bases.gramian import GramianCombiner
from graddrop_tf.methods.fairgrad import fair_weights


@keras.saving.register_keras_serializable("graddrop_tf")
class NashMTL(GramianCombiner):
    """Weighs gradients by the solution of a bargaining game of the losses.

    Positive w with `G w = 1 / w` (Claim 3.1): all losses gain the same
    relative to what they could. As in the authors' code G is divided by its
    Frobenius norm, which multiplies the result by the root of that norm; its
    length is `sqrt(T |G|)`, so that `clip(1.0)` is the paper's clipping. On
    orthonormal gradients it has the direction of the sum and `T^(1/4)` times
    its length. Where a convex combination of gradients is 0 there is no
    solution; see `FairGrad`, of which this is alpha = 1.

    Solver: 24 damped Newton steps.

    Reference: Navon et al., ICML 2022, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.NashMTL(num_losses=2)
    """

    needs_rounding = True

    def weigh(self, gram, rounding):
        """See base class."""
        return fair_weights(gram, 1.0, rounding)
