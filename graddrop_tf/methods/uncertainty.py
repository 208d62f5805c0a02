"""Uncertainty weighting: each loss divided by its learned size.

Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses
for Scene Geometry and Semantics", CVPR 2018 (arXiv 1705.07115), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.numbers import Number
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import is_number
from graddrop_tf.per_loss import PerLoss
from graddrop_tf.schedules import Schedule

# What multiplies exp(-s) L.
_FACTORS = {"regression": 0.5, "classification": 1.0}


@keras.saving.register_keras_serializable("graddrop_tf")
class Uncertainty(Weighting):
    """Learns the logarithm s_i of the variance that explains each loss.

    The objective is `sum_i exp(-s_i) L_i / 2 + s_i / 2` for losses of
    regression, such as squared errors, and `exp(-s_i) L_i + s_i / 2` for those
    of classification. Its derivatives by L_i are the weights; each step of
    training takes one of gradient descent on s_i. The weights approach
    `1 / (2 L_i)`.

    A step that would lead past the minimum in s_i ends there. A loss at or
    below 0, for which there is none, keeps its weight.

    Reference: Kendall, Gal and Cipolla, CVPR 2018, Eq. 7 and 10.

    Args:
        kind: "regression" or "classification"; one for each loss, or a dict by
            their names (losses not named are of regression).
        initial: s_i at first.
        learning_rate: Of s_i, above 0.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range, or `kind` does not fit
            the losses.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.Uncertainty("classification"))
    """

    search_space: ClassVar[Mapping[str, str]] = {
        "learning_rate": "log_uniform(1e-3, 1.0)"
    }

    learning_rate = Number("(0, inf)")

    def __init__(
        self,
        kind: str | Sequence[str] | dict[str, str] = "regression",
        initial: float = 0.0,
        learning_rate: float | Schedule = 0.1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_number(initial):
            raise ValueError(
                f"`initial` must be a number. Received: initial={initial!r}."
            )
        self.kind = kind
        self.initial = initial
        self.learning_rate = learning_rate
        self._kinds = PerLoss(
            "kind",
            kind,
            lambda value: isinstance(value, str) and value in _FACTORS,
            "'regression' or 'classification'",
            default="regression",
        )

    def check_losses(self, num_losses, names):
        """See base class."""
        self._kinds.of(num_losses, names)

    def initial_state(self, num_losses):
        """See base class."""
        return {"log_variances": tf.fill([num_losses], float(self.initial))}

    def weights_of(self, state, losses):
        """See base class."""
        s = state["log_variances"]
        return self._factors(s.shape[0]) * tf.exp(-s)

    def next_state(self, state, losses, norms):
        """See base class."""
        s = state["log_variances"]
        explained = 2 * self._factors(s.shape[0]) * losses
        rate = self.number("learning_rate", losses.dtype) / 2
        return {"log_variances": logarithms.follow(s, explained, rate)}

    def _factors(self, num_losses: int) -> tf.Tensor:
        kinds = self._kinds.of(num_losses, self.loss_names)
        return tf.constant([_FACTORS[kind] for kind in kinds], tf.float32)
