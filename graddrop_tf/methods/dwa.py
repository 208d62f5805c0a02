"""Dynamic weight average: weights by how slowly losses fall.

Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR
2019 (arXiv 1803.10704), section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.numbers import Number
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import check_count
from graddrop_tf.schedules import Schedule

_LARGEST_RATIO = 1e30


@keras.saving.register_keras_serializable("graddrop_tf")
class DWA(Weighting):
    """Weighs losses by the ratio of their means over the last two epochs.

    The weights are `T softmax(r / temperature)`, where r_i is the mean of loss
    i over the last epoch by that over the epoch before. They sum to T, and are
    1 in the first two epochs. A loss whose mean is at or below 0 in one of them
    has ratio 1.

    `fit` ends epochs; a custom loop calls `state.end_epoch()`.

    Reference: Liu, Johns and Davison, CVPR 2019, Eq. 7.

    Args:
        temperature: Softness of the weights, above 0; the larger, the more
            equal.
        window: Number of steps to use in place of an epoch; 25 in the code of
            Navon et al., ICML 2022.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.DWA(temperature=2.0))
    """

    needs_means = True
    search_space: ClassVar[Mapping[str, str]] = {
        "temperature": "log_uniform(0.5, 8.0)"
    }

    temperature = Number("(0, inf)")

    def __init__(
        self,
        temperature: float | Schedule = 2.0,
        window: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if window is not None:
            check_count("window", window)
        self.temperature = temperature
        self.window = window

    def initial_state(self, num_losses):
        """See base class."""
        # 0 until there is such an epoch.
        return {
            "last": tf.zeros([num_losses]),
            "before": tf.zeros([num_losses]),
        }

    def weights_of(self, state, losses):
        """See base class."""
        last, before = state["last"], state["before"]
        counted = logarithms.counts(last) & logarithms.counts(before)
        ratios = tf.math.divide_no_nan(last, before)
        ratios = tf.where(counted, ratios, 1.0)
        ratios = tf.minimum(ratios, _LARGEST_RATIO)
        everywhere = tf.ones_like(counted)
        temperature = self.number("temperature", ratios.dtype)
        shares = logarithms.softmax(ratios, everywhere, temperature)
        return last.shape[0] * shares

    def next_window(self, state, means):
        """See base class."""
        return {"last": means, "before": state["last"]}
