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
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import is_number

_SMALLEST_WEIGHT = 1e-3


@keras.saving.register_keras_serializable("graddrop_tf")
class GradNorm(Weighting):
    """Trains loss weights so that all losses train at similar rates.

    Norms `N_i = w_i |g_i|` are pulled to `mean(N) r_i^alpha`, where r_i is
    the relative inverse training rate of loss i, by a step of SGD on
    `sum |N_i - target_i|`; the weights stay positive and sum to T. Losses
    are expected to be positive.

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

    search_space: ClassVar[Mapping[str, str]] = {"alpha": "uniform(0.0, 3.0)"}

    def __init__(
        self, alpha: float = 1.5, learning_rate: float = 0.025, **kwargs
    ):
        super().__init__(**kwargs)
        if not is_number(alpha) or alpha < 0:
            raise ValueError(
                "`alpha` must be a number of at least 0. Received: "
                f"alpha={alpha!r}."
            )
        if not is_number(learning_rate, above=0):
            raise ValueError(
                "`learning_rate` must be a number above 0. Received: "
                f"learning_rate={learning_rate!r}."
            )
        self.alpha = alpha
        self.learning_rate = learning_rate

    def initial_state(self, num_losses):
        """See base class."""
        return {
            "weights": tf.ones([num_losses]),
            "initial_losses": tf.zeros([num_losses]),
            "started": tf.zeros([]),
        }

    def weights_of(self, state):
        """See base class."""
        return state["weights"]

    def next_state(self, state, losses, norms):
        """See base class."""
        w = state["weights"]
        losses, norms = tf.cast(losses, w.dtype), tf.cast(norms, w.dtype)
        initial = tf.where(
            state["started"] > 0, state["initial_losses"], losses
        )
        ratio = linalg.safe_ratio(losses, initial)
        r = linalg.safe_ratio(ratio, tf.reduce_mean(ratio))
        weighted = w * norms
        target = tf.reduce_mean(weighted) * r**self.alpha
        w -= self.learning_rate * norms * tf.sign(weighted - target)
        w = tf.maximum(w, _SMALLEST_WEIGHT)
        return {
            "weights": w * (w.shape[0] / tf.reduce_sum(w)),
            "initial_losses": initial,
            "started": tf.ones_like(state["started"]),
        }
