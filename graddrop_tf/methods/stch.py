"""Smooth Tchebycheff scalarization: a smooth maximum of the losses.

Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization",
ICML 2024 (arXiv 2402.19078), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf.bases import logarithms
from graddrop_tf.bases.numbers import Number, PerLossNumber
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import check_count
from graddrop_tf.schedules import Schedule

_WARMUP = 4
_PerLossNumbers = float | Sequence[float] | dict[str, float]


@keras.saving.register_keras_serializable("graddrop_tf")
class STCH(Weighting):
    """Minimises a smooth maximum of the losses, or of their logarithms.

    With `log=True`, the form of the authors' code for networks, the objective
    is `T mu log sum_i exp(T p_i log(L_i / n_i) / mu)` for a preference p and
    the nadir n. The losses' units do not matter. Without a `nadir` the first
    epochs minimise the sum of the logarithms, as `LogSum` does, and the means
    of the losses over the last of them are the nadir; a loss whose mean is at
    or below 0 there counts as at its nadir, and one at or below 0 has weight 0.
    `fit` ends epochs; a custom loop calls `state.end_epoch()`.

    With `log=False` it is the paper's `mu log sum_i exp(p_i (L_i - z_i) / mu)`
    for the ideal z. Any losses will do.

    The weights are the derivatives of the objective by L_i.

    Reference: Lin et al., ICML 2024, Eq. 4.

    Args:
        mu: Smoothness, above 0; towards 0 the largest loss counts alone.
        log: Whether the objective is that of the logarithms.
        preference: p, above 0: one number for all losses, one for each, or a
            dict by their names; 1 / T by default.
        nadir: n, above 0, in the same ways; measured by default. With
            `log=True` alone.
        warmup: Number of epochs in which it is measured, 4 by default.
        ideal: z, in the same ways, 0 by default. With `log=False` alone.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range, has no meaning in the
            form chosen, or does not fit the losses.

    Example:
        >>> recipe = gd.Recipe(weighting=gd.STCH(mu=1.0))
    """

    needs_means = True
    search_space: ClassVar[Mapping[str, str]] = {"mu": "log_uniform(0.1, 10.0)"}

    mu = Number("(0, inf)")
    preference = PerLossNumber("(0, inf)", optional=True)
    nadir = PerLossNumber("(0, inf)", optional=True)
    ideal = PerLossNumber(optional=True)

    def __init__(
        self,
        mu: float | Schedule = 1.0,
        *,
        log: bool = True,
        preference: _PerLossNumbers | None = None,
        nadir: _PerLossNumbers | None = None,
        warmup: int | None = None,
        ideal: _PerLossNumbers | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mu = mu
        self.log = bool(log)
        self.preference, self.nadir = preference, nadir
        self.warmup, self.ideal = warmup, ideal
        self._check_form()
        self.needs_means = self.log and nadir is None

    def _check_form(self) -> None:
        """Checks that no argument is without a meaning."""
        if self.warmup is not None:
            check_count("warmup", self.warmup)
            if not self.log or self.nadir is not None:
                raise ValueError(
                    "`warmup` measures the nadir of `log=True`. Received: "
                    f"warmup={self.warmup}, log={self.log}, "
                    f"nadir={self.nadir}."
                )
        name = "ideal" if self.log else "nadir"
        value = getattr(self, name)
        if value is not None:
            raise ValueError(
                f"`{name}` has no meaning with log={self.log}. Received: "
                f"{name}={value}."
            )

    def initial_state(self, num_losses):
        """See base class."""
        if not self.needs_means:
            return {}
        # Of a loss without a nadir it is 0.
        return {"nadir": tf.zeros([num_losses]), "epochs": tf.zeros([])}

    def weights_of(self, state, losses):
        """See base class."""
        count = losses.shape[0]
        mu = self.number("mu", tf.float32)
        preference = self._of_each("preference", 1.0 / count, count)
        if not self.log:
            excess = losses - self._of_each("ideal", 0.0, count)
            everywhere = tf.ones([count], tf.bool)
            return preference * logarithms.softmax(
                preference * excess, everywhere, mu
            )
        counted = logarithms.counts(losses)
        nadir = state["nadir"] if state else self._of_each("nadir", 1.0, count)
        known = logarithms.counts(nadir)
        logs = logarithms.log(losses) - logarithms.log(nadir)
        logs = tf.where(known, logs, 0.0)
        shares = logarithms.softmax(count * preference * logs, counted, mu)
        weights = count * count * preference * shares
        if state:
            warm = state["epochs"] >= (self.warmup or _WARMUP)
            weights = tf.where(warm, weights, 1.0)
        return weights * logarithms.inverse(losses)

    def next_window(self, state, means):
        """See base class."""
        epochs = state["epochs"]
        measures = epochs < (self.warmup or _WARMUP)
        return {
            "nadir": tf.where(measures, means, state["nadir"]),
            "epochs": epochs + tf.cast(measures, epochs.dtype),
        }

    def _of_each(self, name: str, default: float, count: int) -> tf.Tensor:
        if self.given_number(name) is None:
            return tf.fill([count], default)
        return self.number(name, tf.float32, count)
