"""CAGrad: the direction near the sum in which the worst loss falls fastest.

Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021 (arXiv 2110.14048), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner
from graddrop_tf.bases.numbers import Number
from graddrop_tf.schedules import Schedule


@keras.saving.register_keras_serializable("graddrop_tf")
class CAGrad(GramianCombiner):
    """Moves the sum of the gradients by up to c times its length.

    Of all d with `|d - g_0| <= c |g_0|`, where `g_0 = sum_i g_i`, it takes the
    one whose smallest `g_i . d` is largest (Eq. 2). The paper's g_0 is the
    mean; the authors' code multiplies by T as well, and divides by `1 + c^2`,
    which this does not. A gradient of zero is left out of the minimum. Where a
    convex combination of gradients is 0, so that many d are best, d is g_0.

    Solver: 16 interior-point steps, then 3 rounds of 4 quadratic programs of 14
    such steps.

    Reference: Liu et al., NeurIPS 2021, Algorithm 1.

    Args:
        num_losses: T, as in `Combiner`.
        c: How far to move, in [0, 1); 0 is the plain sum.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If c is out of its range.

    Example:
        >>> layer = gd.CAGrad(num_losses=2, c=0.4)
    """

    needs_rounding = True
    search_space: ClassVar[Mapping[str, str]] = {"c": "uniform(0.0, 0.9)"}

    c = Number("[0, 1)")

    def __init__(self, num_losses=None, *, c: float | Schedule = 0.4, **kwargs):
        super().__init__(num_losses, **kwargs)
        self.c = c

    def weigh(self, gram, rounding):
        """See base class."""
        form = solvers.cosine_form(gram)
        c = self.number("c")
        moved = solvers.raise_the_worst(
            form.cosines, form.relative_norms, form.live, c, rounding
        )
        return form.weights(form.norms + form.largest * moved)
