"""PCD: the primary loss's gradient, bent so that auxiliary losses fall too.

Varam and AlHajri, "Not All Objectives Are Born Equal: Priority-Constrained
Descent for Hierarchical Multi-Objective Optimization", TMLR 2026 (arXiv
2606.29521), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf import linalg, solvers
from graddrop_tf.bases.gramian import GramianCombiner
from graddrop_tf.bases.numbers import Number
from graddrop_tf.schedules import Schedule

# Shares of a constraint, and of the largest gradient, that rounding may take.
_MISSING, _ROUNDED = 1e-3, 1e-6


@keras.saving.register_keras_serializable("graddrop_tf")
class PCD(GramianCombiner):
    """Follows a primary loss as closely as auxiliary losses allow.

    Gradients are divided by `sqrt(v_i + epsilon)`, where v_i is the mean of
    `|g_i|^2` over the past steps, weighted as in Adam. Of those the step is
    the d nearest to that of the primary loss with `g_j . d >= tau |g_j|^2` for
    every other loss j, made as long as the primary loss's gradient. The step
    is that gradient itself where no d satisfies all losses, and 0 where it is
    0. A gradient of zero asks for nothing.

    It remembers T + 1 numbers. Gradients c times as large give c times the
    result as long as their norms are well above the root of epsilon. Under a
    loss scale the norms are scaled.

    Solver: a quadratic program, 14 interior-point steps.

    Reference: Varam and AlHajri, TMLR 2026, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        primary: The name of the primary loss or, where losses have no names,
            its index.
        tau: Share of its own descent that each auxiliary loss is granted, in
            [0, 1].
        decay: Of the mean of the squared norms, in [0, 1).
        epsilon: Added to that mean, above 0.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If an argument is out of its range, or there is no such
            loss.

    Example:
        >>> layer = gd.PCD(num_losses=2, primary=0, tau=0.02)
    """

    needs_rounding = True
    search_space: ClassVar[Mapping[str, str]] = {
        "tau": "log_uniform(0.001, 0.5)"
    }

    tau = Number("[0, 1]")
    decay = Number("[0, 1)")
    epsilon = Number("(0, inf)")

    def __init__(
        self,
        num_losses=None,
        *,
        primary: str | int = 0,
        tau: float | Schedule = 0.02,
        decay: float | Schedule = 0.999,
        epsilon: float | Schedule = 1e-8,
        **kwargs,
    ):
        super().__init__(num_losses, **kwargs)
        if not isinstance(primary, str) and (
            isinstance(primary, bool)
            or not isinstance(primary, int)
            or primary < 0
        ):
            raise ValueError(
                "`primary` must be the name or the index of a loss. Received: "
                f"primary={primary!r}."
            )
        self.primary, self.tau = primary, tau
        self.decay, self.epsilon = decay, epsilon

    def set_losses(self, num_losses, names=None):
        """See base class; checks that there is such a primary loss."""
        super().set_losses(num_losses, names)
        self.primary_index(num_losses)

    def primary_index(self, num_losses: int) -> int:
        """Returns the index of the primary loss.

        Args:
            num_losses: T.

        Raises:
            ValueError: If there is no such loss.
        """
        names = self.loss_names
        if isinstance(self.primary, int):
            if self.primary < num_losses:
                return self.primary
            known = f"{num_losses} losses"
        elif names is None:
            known = "losses without names; give its index"
        elif self.primary in names:
            return names.index(self.primary)
        else:
            known = f"losses {', '.join(names)}"
        raise ValueError(
            f"There is no loss primary={self.primary!r}. Received: {known}."
        )

    def initial_state(self, num_losses):
        """See base class."""
        zeros = tf.zeros([num_losses], tf.float64)
        # What the decayed weights of all steps add up to; Adam's correction.
        return {"squares": zeros, "total": tf.zeros([], tf.float64)}

    def weigh(self, gram, rounding):
        """See base class."""
        form = solvers.cosine_form(gram)
        squares = tf.linalg.diag_part(gram)
        state = self.state
        decay, tau = self.number("decay"), self.number("tau")
        total = decay * state["total"] + (1 - decay)
        mean = decay * state["squares"] + (1 - decay) * squares
        self.keep(squares=mean, total=total)
        # In a step that is not finite all results are NaN.
        mean = tf.where(form.finite, mean / total, 1.0)
        lengths = (
            form.live * form.norms / tf.sqrt(mean + self.number("epsilon"))
        )
        primary = self.primary_index(gram.shape[0])
        parts = bend(form.cosines, lengths, primary, tau, rounding)
        square = tf.reduce_sum(parts * tf.linalg.matvec(form.cosines, parts))
        # What is left of parts that cancel has no direction.
        rest = 10 * rounding * tf.reduce_sum(tf.abs(parts)) ** 2
        square = tf.where(square > rest, square, 0.0)
        length = form.live[primary] * form.norms[primary]
        scale = linalg.safe_ratio(length, tf.sqrt(square))
        return form.weights(scale * parts)


def bend(
    cosines: tf.Tensor,
    lengths: tf.Tensor,
    primary: int,
    tau: float,
    rounding: float,
) -> tf.Tensor:
    """Finds the d nearest to g_p with `g_j . d >= tau |g_j|^2` for other j.

    Args:
        cosines: C, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        lengths: `[T]` `float64`: |g_i|.
        primary: p.
        tau: As above.
        rounding: The error of the values of C.

    Returns:
        y, `[T]` `float64`, with `d = sum_i y_i g_i / |g_i|`; that of g_p where
        there is no such d.

    Example:
        >>> y = bend(cosines, tf.ones([2], "float64"), 0, 0.02, 1e-12)
    """
    first = tf.one_hot(primary, lengths.shape[0], dtype=tf.float64)
    others = 1 - first
    part = cosines * others[:, None] * others[None, :] + tf.linalg.diag(first)
    start = first * lengths
    missing = tau * lengths - tf.linalg.matvec(cosines, start)
    slopes = -others * missing
    bent = start + others * solvers.complement(part, slopes[None], rounding)[0]
    allowed = _MISSING * tau * lengths + _ROUNDED * tf.reduce_max(lengths)
    products = tf.linalg.matvec(cosines, bent)
    short = others * tf.maximum(tau * lengths - products, 0.0)
    return tf.where(tf.reduce_all(short <= allowed), bent, start)
