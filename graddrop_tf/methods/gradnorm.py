"""GradNorm: loss weights that balance gradient norms.

Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in
Deep Multitask Networks", ICML 2018, section 3, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.numbers import Number
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.schedules import Schedule

_SMALLEST_WEIGHT = 1e-3


@keras.saving.register_keras_serializable("graddrop_tf")
class GradNorm(Weighting):
    """Trains loss weights so that all losses train at similar rates.

    Norms `N_i = w_i |g_i|` are pulled to `mean(N) r_i^alpha`, where r_i is
    the relative inverse training rate of loss i, by a step of SGD on
    `sum |N_i - target_i|`; the weights stay positive and sum to T.

    L_i(0) is the first value of loss i above 0. Before, such as while its
    labels are missing, it counts as training at the mean rate. A loss below 0
    later counts as 0.

    Reference: Chen et al., ICML 2018, Eq. 1 and 2.

    Args:
        alpha: Strength of the pull to a common rate, at least 0.
        learning_rate: Of the weights, above 0.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: Where an argument is out of its range.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.GradNorm(alpha=1.5))
    """

    needs_norms = True
    search_space: ClassVar[Mapping[str, str]] = {"alpha": "uniform(0.0, 3.0)"}

    alpha = Number("[0, inf)")
    learning_rate = Number("(0, inf)")

    def __init__(
        self,
        alpha: float | Schedule = 1.5,
        learning_rate: float | Schedule = 0.025,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.alpha = alpha
        self.learning_rate = learning_rate

    def initial_state(self, num_losses):
        """See base class."""
        return {
            "weights": tf.ones([num_losses]),
            # 0 until a loss is above 0 for the first time.
            "initial_losses": tf.zeros([num_losses]),
        }

    def weights_of(self, state, losses):
        """See base class."""
        return state["weights"]

    def next_state(self, state, losses, norms):
        """See base class."""
        w = state["weights"]
        losses, norms = tf.cast(losses, w.dtype), tf.cast(norms, w.dtype)
        initial = tf.where(
            state["initial_losses"] > 0, state["initial_losses"], losses
        )
        initial = _zero_below(initial)
        started = tf.not_equal(initial, 0)
        ratio = _zero_below(linalg.safe_ratio(losses, initial))
        ratio = _mean_where_not(started, ratio)
        r = linalg.safe_ratio(ratio, tf.reduce_mean(ratio))
        weighted = w * norms
        # A loss without labels so far has no say in the mean norm.
        present = started | tf.not_equal(norms, 0)
        mean = tf.reduce_mean(_mean_where_not(present, weighted))
        target = mean * r ** self.number("alpha", w.dtype)
        rate = self.number("learning_rate", w.dtype)
        w -= rate * norms * tf.sign(weighted - target)
        w = tf.maximum(w, _SMALLEST_WEIGHT)
        return {
            "weights": w * (w.shape[0] / tf.reduce_sum(w)),
            "initial_losses": initial,
        }


def _zero_below(values: tf.Tensor) -> tf.Tensor:
    """Returns 0 in place of negative values; keeps NaN."""
    return tf.where(values < 0, tf.zeros_like(values), values)


def _mean_where_not(counted: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the mean of the values that count in place of the others."""
    zeros = tf.zeros_like(values)
    total = tf.reduce_sum(tf.where(counted, values, zeros))
    count = tf.reduce_sum(tf.cast(counted, values.dtype))
    return tf.where(counted, values, linalg.safe_ratio(total, count))
