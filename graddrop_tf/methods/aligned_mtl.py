"""Aligned-MTL: gradients replaced by the nearest orthogonal ones.

Senushkin et al., "Independent Component Alignment for Multi-Task Learning",
CVPR 2023 (arXiv 2305.19000), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf import solvers
from graddrop_tf.bases.gramian import GramianCombiner

_MODES = ("min", "median", "rmse")


def aligned_weights(gram, mode: str, rounding: float = 1e-12) -> tf.Tensor:
    """Computes `sigma G^(-1/2) 1`, the weights of the aligned gradients.

    The rank is that of the cosine matrix. A root B of G, from the eigenvalues
    of that matrix, has the singular values of the gradients to full relative
    accuracy, whatever their norms.

    Args:
        gram: G, `[T, T]`, positive semidefinite up to its rounding.
        mode: "min", "median" or "rmse", as in `AlignedMTL`.
        rounding: The relative error of `gram`.

    Returns:
        `float64` `[T]`; NaN where `gram` has a value that is not finite.

    Example:
        >>> w = aligned_weights([[4.0, 0.0], [0.0, 1.0]], "min")  # 0.5, 1
    """
    form = solvers.cosine_form(gram)
    relative = form.relative_norms
    # A gradient of zero has an eigenvector of its own; `relative` is 0 there.
    values, vectors = solvers.eigenvalues(form.cosines)
    kept = values > form.cosines.shape[0] * rounding
    roots = tf.sqrt(tf.where(kept, values, 0))
    root = roots[:, None] * tf.transpose(vectors) * relative[None, :]
    rank = tf.reduce_sum(tf.cast(kept, tf.int32)) - tf.reduce_sum(
        tf.cast(form.zero, tf.int32)
    )
    values, vectors = solvers.singular_values(root)
    order = tf.argsort(values, direction="DESCENDING")
    values = tf.gather(values, order)
    vectors = tf.gather(vectors, order, axis=1)
    kept = tf.range(values.shape[0]) < rank
    inverse = tf.where(kept, 1 / tf.where(kept, values, 1.0), 0)
    scale = _scale(values, kept, tf.maximum(rank, 1), mode)
    ones = tf.linalg.matvec(vectors, form.live, transpose_a=True)
    weights = scale * tf.linalg.matvec(vectors, inverse * ones)
    return form.weights(form.norms * weights)


def _scale(values, kept, rank, mode: str) -> tf.Tensor:
    """Returns sigma, given singular values in descending order."""
    if mode == "rmse":
        total = tf.reduce_sum(tf.where(kept, values**2, 0))
        return tf.sqrt(total / tf.cast(rank, values.dtype))
    # The lower one of two in the middle.
    return tf.gather(values, rank // 2 if mode == "median" else rank - 1)


@keras.saving.register_keras_serializable("graddrop_tf")
class AlignedMTL(GramianCombiner):
    """Replaces the gradients by the nearest orthogonal ones of equal length.

    `sigma (J J')^(-1/2) J`, the polar factor of the gradients J times sigma,
    summed. All losses fall at one rate, as long as the gradients are
    independent. With sigma the smallest singular value the step vanishes as
    two gradients become parallel, and jumps where they are; "median" does so
    less. Dependent gradients lower the rank: their span alone is aligned.

    Solver: two eigendecompositions, made exact by 3 sweeps of Jacobi
    rotations each.

    Reference: Senushkin et al., CVPR 2023, Algorithm 1; the modes are those of
    the authors' code.

    Args:
        num_losses: T, as in `Combiner`.
        mode: sigma^2 is the smallest eigenvalue of the Gram matrix ("min"), the
            lower median ("median") or the mean ("rmse"), of those that are not
            zero.
        sync_replicas: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the mode is unknown.

    Example:
        >>> layer = gd.AlignedMTL(num_losses=2, mode="median")
    """

    needs_rounding = True
    search_space: ClassVar[Mapping[str, str]] = {
        "mode": "choice('min', 'median', 'rmse')"
    }

    def __init__(self, num_losses=None, *, mode: str = "min", **kwargs):
        super().__init__(num_losses, **kwargs)
        if mode not in _MODES:
            raise ValueError(
                f"`mode` must be one of {', '.join(map(repr, _MODES))}. "
                f"Received: mode={mode!r}."
            )
        self.mode = mode

    def weigh(self, gram, rounding):
        """See base class."""
        return aligned_weights(gram, self.mode, rounding)
