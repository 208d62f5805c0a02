"""FAMO: weights by which all losses fall at the same rate.

Liu et al., "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023 (arXiv
2306.03792), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.numbers import Number, PerLossNumber
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.schedules import Schedule

_OPTIMIZERS = ("adam", "sgd")
# Adam's usual decays and epsilon, as in the authors' code.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


@keras.saving.register_keras_serializable("graddrop_tf")
class FAMO(Weighting):
    """Learns weights under which all losses fall by the same share.

    They are `c z_i / (L_i - b_i)`, where z is the softmax of xi, c makes them
    sum to 1, and b_i is the smallest value that loss i may have. After each
    update Adam moves xi: a loss whose `log(L_i - b_i)` fell less than the
    others' gains.

    For that the losses of the batch are computed once more after the update, a
    forward pass as in training: batch norm uses the batch, `Dropout` draws the
    same masks, and moving averages and metrics do not see it. Where an update
    is left out, as with gradient accumulation or a loss scale too large, xi
    stays. With `lagged=True` the losses of the next batch stand in for it,
    which costs nothing; if all batches are the same, so are both forms.

    A loss at or below b_i has weight 0 and keeps its xi.

    Reference: Liu et al., NeurIPS 2023, Algorithm 1.

    Args:
        learning_rate: Of xi, above 0.
        weight_decay: Of xi, at least 0, added to the gradient.
        minimum_losses: b: a number, one for each loss, or a dict by their names
            (losses not named have 0).
        optimizer: "adam", or "sgd" for plain gradient descent.
        lagged: Whether the losses of the next batch are used.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range or does not fit the
            losses.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.FAMO(lagged=True))
    """

    needs_losses_after = True
    search_space: ClassVar[Mapping[str, str]] = {
        "learning_rate": "log_uniform(1e-3, 0.1)",
        "weight_decay": "log_uniform(1e-5, 1e-2)",
    }

    learning_rate = Number("(0, inf)")
    weight_decay = Number("[0, inf)")
    minimum_losses = PerLossNumber(default=0.0)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.025,
        weight_decay: float | Schedule = 1e-3,
        minimum_losses: float | Sequence[float] | dict[str, float] = 0.0,
        optimizer: str = "adam",
        lagged: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if optimizer not in _OPTIMIZERS:
            raise ValueError(
                f"`optimizer` must be one of {', '.join(_OPTIMIZERS)}. "
                f"Received: optimizer={optimizer!r}."
            )
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.minimum_losses = minimum_losses
        self.optimizer = optimizer
        self.lagged = bool(lagged)
        self.needs_losses_after = not self.lagged

    def initial_state(self, num_losses):
        """See base class."""
        zeros = tf.zeros([num_losses])
        state = {"xi": zeros}
        if self.optimizer == "adam":
            state |= {"means": zeros, "squares": zeros, "updates": tf.zeros([])}
        # 0 until a loss was above its smallest value.
        return state | ({"last": zeros} if self.lagged else {})

    def weights_of(self, state, losses):
        """See base class."""
        excess = self._excess(losses)
        if self.lagged:
            state = self._follow(state, state["last"], excess)
        logits = state["xi"] - logarithms.log(excess)
        return logarithms.softmax(logits, logarithms.counts(excess))

    def next_state(self, state, losses, norms):
        """See base class."""
        if not self.lagged:
            return {}
        excess = self._excess(losses)
        last = tf.where(logarithms.counts(excess), excess, state["last"])
        return {**self._follow(state, state["last"], excess), "last": last}

    def next_state_after(self, state, losses, losses_after):
        """See base class."""
        before, after = self._excess(losses), self._excess(losses_after)
        return self._follow(state, before, after)

    def _excess(self, losses: tf.Tensor) -> tf.Tensor:
        return losses - self.number(
            "minimum_losses", losses.dtype, losses.shape[0]
        )

    def _follow(self, state, before: tf.Tensor, after: tf.Tensor):
        """Returns the state after an update by which losses fell."""
        xi = state["xi"]
        counted = logarithms.counts(before) & logarithms.counts(after)
        # log(before / after), precise where the two are close.
        change = tf.where(counted, before - after, 0.0)
        fell = tf.math.log1p(change / tf.where(counted, after, 1.0))
        z = logarithms.softmax(xi, counted)
        gradient = z * (fell - tf.reduce_sum(z * fell))
        gradient += self.number("weight_decay", xi.dtype) * xi
        changes = self._descend(state, gradient)
        kept = {
            name: tf.where(counted, value, state[name])
            for name, value in changes.items()
        }
        if self.optimizer == "adam":
            moved = tf.cast(tf.reduce_any(counted), tf.float32)
            kept["updates"] = state["updates"] + moved
        return {**state, **kept}

    def _descend(self, state, gradient: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns xi after a step of the optimizer, and Adam's moments."""
        xi = state["xi"]
        rate = self.number("learning_rate", xi.dtype)
        if self.optimizer == "sgd":
            return {"xi": xi - rate * gradient}
        updates = state["updates"] + 1.0
        means = _BETA_1 * state["means"] + (1 - _BETA_1) * gradient
        squares = _BETA_2 * state["squares"] + (1 - _BETA_2) * gradient**2
        step = means / _correction(_BETA_1, updates)
        step /= tf.sqrt(squares / _correction(_BETA_2, updates)) + _EPSILON
        return {
            "xi": xi - rate * step,
            "means": means,
            "squares": squares,
        }


def _correction(beta: float, updates: tf.Tensor) -> tf.Tensor:
    """Returns `1 - beta^updates`, precise where beta is close to 1."""
    return -tf.math.expm1(updates * math.log(beta))
