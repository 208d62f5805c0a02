"""The arguments of Gradient Sign Dropout: the transform f and the leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from graddrop_tf.checks import is_share
from graddrop_tf.per_loss import PerLoss

PurityTransform = Callable[[tf.Tensor], tf.Tensor]


def linear_purity_transform(k: float | tf.Tensor) -> PurityTransform:
    """Returns the paper's family, `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`."""

    def transform(purity: tf.Tensor) -> tf.Tensor:
        # A cast would round a Python number to float32.
        steepness = tf.cast(tf.convert_to_tensor(k, tf.float64), purity.dtype)
        return tf.clip_by_value(steepness * (purity - 0.5) + 0.5, 0.0, 1.0)

    return transform


def check_purity_transform(transform: PurityTransform, k) -> None:
    """Checks an f that takes the place of `k`.

    Args:
        transform: f.
        k: Its default, 1, where `k` was not given.

    Raises:
        ValueError: If both are given, or f is not monotone, not odd around
            (0.5, 0.5), or leaves [0, 1].
    """
    if k != 1.0:
        raise ValueError(
            "Give either `k` or `purity_transform`. Received both: "
            f"k={k}, purity_transform={transform}."
        )
    if not callable(transform):
        raise ValueError(
            "`purity_transform` must be a callable that maps purities to "
            f"[0, 1]. Received: {transform!r}."
        )
    with tf.init_scope():
        purity = tf.linspace(0.0, 1.0, 101)
        value = tf.convert_to_tensor(transform(purity)).numpy()
    if value.shape != purity.shape:
        problem = f"f of shape {purity.shape} has shape {value.shape}"
    elif not (value.min() >= 0 and value.max() <= 1):
        problem = "f leaves [0, 1]"
    elif (value[1:] - value[:-1]).min() < -1e-6:
        problem = "f is not monotone"
    elif abs(value + value[::-1] - 1).max() > 1e-5:
        problem = "f(1 - p) is not 1 - f(p)"
    else:
        return
    raise ValueError(
        "`purity_transform` must be monotone, odd around (0.5, 0.5), and map "
        f"[0, 1] to [0, 1]. Received: {transform}, where {problem}."
    )


def leak_of(
    leak: float | Sequence[float] | Mapping[str, float],
) -> PerLoss[float]:
    """Returns the leaks of the losses.

    Args:
        leak: A number in [0, 1], one for each loss, or a dict by their names
            (losses not named have leak 0).

    Raises:
        ValueError: If a leak is not in [0, 1].
    """
    return PerLoss("leak", leak, is_share, "in [0, 1]", default=0.0)
