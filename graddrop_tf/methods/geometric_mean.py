"""The geometric mean of the losses.

Chennupati et al., "MultiNet++: Multi-Stream Feature Aggregation and Geometric
Loss Strategy for Multi-Task Learning", CVPR Workshops 2019 (arXiv 1904.08492),
section 3.2.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.weighting import Weighting


@keras.saving.register_keras_serializable("graddrop_tf")
class GeometricMean(Weighting):
    """Minimises the geometric mean M of the losses: weights `M / (T L_i)`.

    They are those of `LogSum` times M / T. Where one loss is c times as large,
    its weight is `c^(1/T) / c` times as large, and all others are `c^(1/T)`
    times as large. A loss at or below 0 has weight 0, and T and M are those of
    the others.

    Reference: Chennupati et al., CVPR Workshops 2019, Eq. 3.

    Args:
        **kwargs: `name`, `dtype`.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.GeometricMean())
    """

    def weights_of(self, state, losses):
        """See base class."""
        counted = logarithms.counts(losses)
        logs = logarithms.log(losses)
        count = tf.reduce_sum(tf.cast(counted, logs.dtype))
        count = tf.maximum(count, 1.0)
        weights = tf.exp(tf.reduce_sum(logs) / count - logs) / count
        return tf.where(counted, weights, 0.0)
