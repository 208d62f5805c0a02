"""IMTL-L: impartial weights of losses.

Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.numbers import Number
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import is_number
from graddrop_tf.schedules import Schedule

# Losses are measured in the units 1000^-12 ... 1000^12.
_MOST = 12


@keras.saving.register_keras_serializable("graddrop_tf")
class IMTLL(Weighting):
    """Learns weights that make all weighted losses equal to 1.

    The objective is `sum_i exp(s_i) L_i - s_i`. Its derivatives by L_i,
    `exp(s_i)`, are the weights; each step of training takes one of gradient
    descent on s_i, and the weights approach `1 / L_i`.

    L_i is measured in a unit: the power of 1000 nearest to the first value of
    the loss above 0. A loss 1000 times as large therefore has a weight 1000
    times smaller, from the first step on. A step that would lead past
    `s_i = -log L_i` ends there. A loss at or below 0 keeps its weight.

    Reference: Liu et al., ICLR 2021, Eq. 9.

    Args:
        initial: s_i at first.
        learning_rate: Of s_i, above 0.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.IMTLL(learning_rate=0.05))
    """

    search_space: ClassVar[Mapping[str, str]] = {
        "learning_rate": "log_uniform(1e-3, 1.0)"
    }

    learning_rate = Number("(0, inf)")

    def __init__(
        self,
        initial: float = 0.0,
        learning_rate: float | Schedule = 0.05,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_number(initial):
            raise ValueError(
                f"`initial` must be a number. Received: initial={initial!r}."
            )
        self.initial = initial
        self.learning_rate = learning_rate

    def initial_state(self, num_losses):
        """See base class."""
        return {
            "s": tf.fill([num_losses], float(self.initial)),
            # 0 until a loss is above 0 for the first time.
            "units": tf.zeros([num_losses]),
        }

    def weights_of(self, state, losses):
        """See base class."""
        units = _units(state, losses)
        return tf.exp(state["s"]) / tf.where(units > 0, units, 1.0)

    def next_state(self, state, losses, norms):
        """See base class."""
        units = _units(state, losses)
        in_units = tf.math.divide_no_nan(losses, units)
        rate = self.number("learning_rate", losses.dtype)
        followed = logarithms.follow(-state["s"], in_units, rate)
        return {"s": -followed, "units": units}


def _units(state, losses: tf.Tensor) -> tf.Tensor:
    """Returns the units `[T]`, 0 for a loss that was never above 0."""
    powers = tf.constant([1000.0**i for i in range(-_MOST, _MOST + 1)])
    usable = logarithms.counts(losses) & tf.math.is_finite(losses)
    logs = logarithms.log(tf.where(usable, losses, 1.0))
    nearest = tf.round(logs / math.log(1000.0))
    nearest = tf.clip_by_value(nearest, -_MOST, _MOST)
    first = tf.gather(powers, tf.cast(nearest, tf.int32) + _MOST)
    first = tf.where(usable, first, 0.0)
    return tf.where(state["units"] > 0, state["units"], first)
