"""The sum of the losses' logarithms.

The scale-invariant baseline of Navon et al., "Multi-Task Learning as a
Bargaining Game", ICML 2022 (arXiv 2202.01017), section 5.
"""

from __future__ import annotations

import keras

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.weighting import Weighting


@keras.saving.register_keras_serializable("graddrop_tf")
class LogSum(Weighting):
    """Minimises `sum_i log L_i`: the weights are `1 / L_i`.

    A loss c times as large has a weight 1 / c times as large, so the gradients
    do not depend on the losses' units. A loss at or below 0 has weight 0.

    Reference: Navon et al., ICML 2022, section 5.

    Args:
        **kwargs: `name`, `dtype`.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.LogSum())
    """

    def weights_of(self, state, losses):
        """See base class."""
        return logarithms.inverse(losses)
