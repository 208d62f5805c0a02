"""FairGrad: shares of the improvement that are alpha-fair.

Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024
(arXiv 2402.15638), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner
from graddrop_tf.bases.numbers import Number
from graddrop_tf.schedules import Schedule


def fair_weights(gram, alpha: float, rounding: float = 1e-12) -> tf.Tensor:
    """Finds positive w with `w_i^(1/alpha) (G w)_i = |G|`, all i alike.

    |G| is the Frobenius norm, so that c times the gradients are combined to c
    times the result. It multiplies the solution for `G w = w^(-1/alpha)` by
    `|G|^(alpha / (1 + alpha))`.

    Args:
        gram: G, `[T, T]`, positive semidefinite up to its rounding.
        alpha: Above 0.
        rounding: The relative error of `gram`.

    Returns:
        `float64` `[T]`: 0 for a gradient of zero; NaN where `gram` has a value
        that is not finite.

    Example:
        >>> w = fair_weights([[2.0, 0.0], [0.0, 2.0]], 1.0)  # 2 ** 0.25 each
    """
    form = solvers.cosine_form(gram)
    # In units of the largest norm, a power of which would leave float64.
    norms = form.norms / form.largest
    lengths = solvers.balance(form.cosines, norms, alpha, rounding)
    relative = form.relative_norms
    products = form.cosines * relative[:, None] * relative[None, :]
    size = tf.norm(products) ** (alpha / (1 + alpha))
    return form.weights(form.largest * size * lengths)


@keras.saving.register_keras_serializable("graddrop_tf")
class FairGrad(GramianCombiner):
    """Weighs gradients so that the losses' improvements are alpha-fair.

    `G w = w^(-1/alpha)` (Eq. 4), with G divided by its Frobenius norm as in
    the authors' code. alpha = 1 is Nash-MTL, a large alpha helps the loss that
    gains least. On orthonormal gradients the result has the direction of the
    sum and `T^(alpha / (2 + 2 alpha))` times its length. Where a convex
    combination of gradients is 0 the equation has no solution; the result is
    that for cosines with 1e-6 added to their diagonal, in which those gradients
    nearly cancel. Clip with `clip`, as the authors do at 1.

    Solver: 24 damped Newton steps.

    Reference: Ban and Ji, ICML 2024, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        alpha: Fairness, above 0; up to 5 the solver is exact for norms that
            differ by 10^6.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If alpha is out of its range.

    Example:
        >>> layer = gd.FairGrad(num_losses=2, alpha=2.0)
    """

    needs_rounding = True
    search_space: ClassVar[Mapping[str, str]] = {
        "alpha": "log_uniform(0.5, 5.0)"
    }

    alpha = Number("(0, inf)")

    def __init__(
        self, num_losses=None, *, alpha: float | Schedule = 2.0, **kwargs
    ):
        super().__init__(num_losses, **kwargs)
        self.alpha = alpha

    def weigh(self, gram, rounding):
        """See base class."""
        return fair_weights(gram, self.number("alpha"), rounding)
