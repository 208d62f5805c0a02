"""The arguments of Gradient Sign Dropout: the transform f and the leaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from graddrop_tf.checks import is_number

PurityTransform = Callable[[tf.Tensor], tf.Tensor]


def linear_purity_transform(k: float) -> PurityTransform:
    """Returns the paper's family, `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`."""

    def transform(purity: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(k * (purity - 0.5) + 0.5, 0.0, 1.0)

    return transform


def resolve_purity_transform(
    k: float, purity_transform: PurityTransform | None
) -> PurityTransform:
    """Returns f: `purity_transform`, or the linear one of steepness `k`.

    Args:
        k: Steepness, at least 0; 1 if `purity_transform` is given.
        purity_transform: f itself, or None.

    Returns:
        f.

    Raises:
        ValueError: If k is negative, both are given, or f is not monotone,
            not odd around (0.5, 0.5), or leaves [0, 1].
    """
    if purity_transform is not None:
        if k != 1.0:
            raise ValueError(
                "Give either `k` or `purity_transform`. Received both: "
                f"k={k}, purity_transform={purity_transform}."
            )
        _check_purity_transform(purity_transform)
        return purity_transform
    if not is_number(k) or k < 0:
        raise ValueError(f"`k` must be at least 0 and finite. Received: k={k}.")
    return linear_purity_transform(float(k))


def _check_purity_transform(transform: PurityTransform) -> None:
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


def check_leak(
    leak: float | Sequence[float], num_losses: int | None = None
) -> list[float]:
    """Checks leaks and returns one for each loss.

    Args:
        leak: A number or a sequence of numbers in [0, 1].
        num_losses: T, or None if it is not known yet.

    Returns:
        A list of T floats; without `num_losses`, as many as were given.

    Raises:
        ValueError: If a leak is not a number in [0, 1], or the number of
            leaks is not T.
    """
    leaks = [leak] if is_number(leak) else leak
    try:
        leaks = list(leaks)
    except TypeError:
        leaks = [leak]
    if any(not is_number(x) or not 0 <= x <= 1 for x in leaks):
        raise ValueError(
            f"`leak` must be in [0, 1], for each loss. Received: leak={leak}."
        )
    if is_number(leak) and num_losses is not None:
        leaks = leaks * num_losses
    if num_losses is not None and len(leaks) != num_losses:
        raise ValueError(
            "`leak` must be one number or one for each loss. Received: "
            f"{len(leaks)} leaks for {num_losses} losses."
        )
    return [float(x) for x in leaks]


def leaks_by_name(
    leak: Mapping[str, float], names: Sequence[str] | None
) -> list[float]:
    """Returns the leak of each named loss, 0 for those not mentioned.

    Args:
        leak: Leaks by the names of losses.
        names: The names of all losses in their order, or None if unknown.

    Returns:
        A list of T floats.

    Raises:
        ValueError: If the names are unknown, or `leak` has another one.
    """
    if names is None:
        raise ValueError(
            "A `leak` by name needs a `MultiLossModel`, which knows the "
            f"names of its losses. Received: leak={leak}."
        )
    unknown = sorted(set(leak) - set(names))
    if unknown:
        raise ValueError(
            f"`leak` names no such loss: {unknown}. The losses are "
            f"{list(names)}."
        )
    return [float(leak.get(name, 0.0)) for name in names]
