"""Constant weights: linear scalarization.

What tuned weights reach: Xin et al., "Do Current Multi-Task Optimization
Methods in Deep Learning Even Help?", NeurIPS 2022 (arXiv 2209.11379).
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf.bases.numbers import PerLossNumber
from graddrop_tf.bases.weighting import Weighting


@keras.saving.register_keras_serializable("graddrop_tf")
class Constant(Weighting):
    """Multiplies each loss by a number.

    `loss_weights` of `compile` does the same to the losses that the logs show;
    these weights leave them as they are.

    Reference: Xin et al., NeurIPS 2022, section 2.

    Args:
        values: A number of at least 0 for all losses, one for each, or a dict
            by their names (losses not named have weight 1).
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If a weight is out of its range, or they do not fit the
            losses.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.Constant([1.0, 0.5]))
    """

    values = PerLossNumber("[0, inf)", default=1.0)

    def __init__(
        self,
        values: float | Sequence[float] | dict[str, float] = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.values = values

    def weights_of(self, state, losses):
        """See base class."""
        return self.number("values", tf.float32, losses.shape[0])
