"""Clipping of the one final gradient, after the replicas are reduced."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import linalg, replicas
from graddrop_tf.checks import is_number

_PATCHED = "_all_reduce_sum_gradients"


def clip_by_global_norm(
    grads: Sequence[tf.Tensor | tf.IndexedSlices | None], clipnorm: float
) -> list[tf.Tensor | tf.IndexedSlices | None]:
    """Scales gradients so that their common L2 norm is at most `clipnorm`.

    Unlike `tf.clip_by_global_norm` it is right where squares overflow, and
    counts rows that `tf.IndexedSlices` name twice as one.

    Args:
        grads: Gradients; None is passed on.
        clipnorm: The norm.

    Returns:
        Gradients; NaN where one of them is not finite.
    """
    dense = [tf.convert_to_tensor(g) for g in grads if g is not None]
    if not dense:
        return list(grads)
    norm = tf.sqrt(tf.reduce_sum(linalg.squared_norms(dense)))
    clipnorm = tf.cast(clipnorm, norm.dtype)
    factor = clipnorm / tf.maximum(norm, clipnorm)
    # The maximum may drop a NaN.
    factor = tf.where(tf.math.is_finite(norm), factor, norm - norm)
    return [None if g is None else _times(g, factor) for g in grads]


def _times(gradient, factor):
    factor = tf.cast(factor, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * factor, gradient.indices, gradient.dense_shape
        )
    return gradient * factor


def has_own_apply(optimizer: keras.optimizers.Optimizer) -> bool:
    """Returns whether an optimizer does not update as Keras' base class does.

    One that hands its gradients on to others, as `MultiOptimizer` does, need
    not come to the sum over replicas itself.

    Args:
        optimizer: A Keras optimizer; a `LossScaleOptimizer` is looked into.
    """
    optimizer = _innermost(optimizer)
    return any(
        getattr(getattr(optimizer, name), "__func__", None)
        is not getattr(keras.optimizers.Optimizer, name)
        for name in ("apply", "apply_gradients")
    )


def _innermost(optimizer):
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def clip_after_reduction(
    optimizer: keras.optimizers.Optimizer, global_clipnorm: float | None
) -> None:
    """Makes an optimizer clip the sum of its replicas' gradients.

    Keras' own `global_clipnorm` clips each replica's gradient before the sum,
    so that the result depends on the number of replicas. This acts on the
    accumulated and unscaled gradient and costs no further communication.

    Args:
        optimizer: A Keras optimizer; a `LossScaleOptimizer` is looked into.
        global_clipnorm: Norm above 0; None takes the clipping away.

    Raises:
        ValueError: If the norm is not a number above 0, or the optimizer has
            an `apply` of its own.

    Example:
        >>> optimizer = keras.optimizers.Adam()
        >>> gd.clip_after_reduction(optimizer, 1.0)
    """
    if global_clipnorm is not None and not is_number(global_clipnorm, above=0):
        raise ValueError(
            "`global_clipnorm` must be a number above 0, or None. Received: "
            f"global_clipnorm={global_clipnorm!r}."
        )
    optimizer = _innermost(optimizer)
    vars(optimizer).pop(_PATCHED, None)
    if global_clipnorm is None:
        return
    if has_own_apply(optimizer):
        raise ValueError(
            "An optimizer with an `apply` of its own cannot clip: clip the "
            "gradients that it is given, as a recipe with `clip` does. "
            f"Received: {type(optimizer).__name__}."
        )
    reduce_gradients = getattr(optimizer, _PATCHED)

    def reduce_and_clip(grads_and_vars):
        pairs = reduce_gradients(grads_and_vars)
        grads, variables = zip(*pairs, strict=True)
        clipped = clip_by_global_norm(grads, global_clipnorm)
        return list(zip(clipped, variables, strict=True))

    object.__setattr__(optimizer, _PATCHED, reduce_and_clip)


def clip_unreduced(
    grads: Sequence[tf.Tensor | tf.IndexedSlices | None],
    clipnorm: float | None,
    scale: tf.Tensor | float = 1.0,
) -> list[tf.Tensor | tf.IndexedSlices | None]:
    """Clips gradients before an optimizer sums them over replicas.

    Costs one more sum of the gradients over replicas; nothing without a norm.

    Args:
        grads: Gradients; None is passed on.
        clipnorm: The norm of the unscaled gradients, or None.
        scale: The factor on the gradients.
    """
    if clipnorm is None:
        return list(grads)
    present = [tf.convert_to_tensor(g) for g in grads if g is not None]
    summed = replicas.sum_over_replicas(present)
    clipped = clip_by_global_norm(summed, clipnorm * tf.cast(scale, tf.float64))
    share = iter([replicas.scale_loss(g) for g in clipped])
    return [None if g is None else next(share) for g in grads]
