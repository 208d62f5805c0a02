"""Gradient Sign Dropout as a pure function of tensors.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.checks import is_number
from graddrop_tf.methods.graddrop.arguments import (
    PurityTransform,
    check_purity_transform,
    leak_of,
    linear_purity_transform,
)
from graddrop_tf.methods.graddrop.masking import SignMasking


@tf.autograph.experimental.do_not_convert
def graddrop(
    gradients,
    activations,
    *,
    uniform,
    leak: float | Sequence[float] = 0.0,
    k: float = 1.0,
    purity_transform: PurityTransform | None = None,
    marginalize_batch: bool = True,
    renormalize: bool = False,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Masks per-loss gradients by Gradient Sign Dropout (Algorithm 1).

    Args:
        gradients: The gradient of each loss with respect to the activations:
            a list of T tensors `[batch, ...]` or a stack `[T, batch, ...]`.
        activations: One tensor if the losses share it. A list of T tensors
            if they are batch separated (section 3.2): the batch sizes may
            differ, and gradients are always summed over the batch.
        uniform: Draws from the open interval (0, 1) in the shape of the
            purity: that of one example if gradients are summed over the
            batch, otherwise that of the activations.
        leak: Share of each gradient that passes unmasked, in [0, 1]: one
            number or one for each loss.
        k: Steepness of `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`; 1 is the
            paper's default, 0 is Random GradDrop.
        purity_transform: f itself, in place of `k`: monotone, and odd around
            (0.5, 0.5).
        marginalize_batch: Whether to compute the purity from the gradients'
            sums over the batch.
        renormalize: Whether to scale the result to the L2 norm of the plain
            sum (batch separated: of all gradients together).
        replica_sum: Sums a tensor over replicas.

    Returns:
        T masked gradients in the shapes and dtypes of the inputs, whose sum
        is the paper's `newgrad`; where all G_i are 0, all gradients pass. A
        NaN or infinite value makes its position of P non-finite, and there
        the gradients of all losses.

    Raises:
        ValueError: If shapes or numbers do not match, or a value is out of
            its range.

    Example:
        >>> masked = gd.graddrop(
        ...     [tf.constant([[1.0, -1.0]]), tf.constant([[2.0, 3.0]])],
        ...     tf.ones([1, 2]),
        ...     uniform=tf.constant([0.5, 0.9]),
        ... )  # second feature: P = 0.75 < 0.9 keeps the negative sign
    """
    gradients = linalg.as_list(gradients)
    place = places.of(activations)
    place = place.with_blocks(map(tf.convert_to_tensor, place.blocks))
    place.check_shapes(gradients)
    leaks = tf.constant(leak_of(leak).of(len(gradients)), tf.float64)
    if purity_transform is not None:
        check_purity_transform(purity_transform, k)
    elif not is_number(k) or k < 0:
        raise ValueError(
            f"`k` must be a number of at least 0. Received: k={k!r}."
        )
    masking = SignMasking(
        draw=lambda activations, summed: uniform,
        leaks=leaks,
        transform=purity_transform or linear_purity_transform(k),
        marginalize_batch=marginalize_batch,
        renormalize=renormalize,
        replica_sum=replica_sum,
        fusible=purity_transform is None,
    )
    return masking.to_each(gradients, place)
