"""Gradient Sign Dropout as pure functions of tensors.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.methods.graddrop.arguments import (
    PurityTransform,
    leak_of,
    resolve_purity_transform,
)

# Maps a purity, and whether it is one for the whole batch, to draws.
Draw = Callable[[tf.Tensor, bool], tf.Tensor]


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
    return graddrop_at(
        gradients,
        place,
        draw=lambda purity, summed: uniform,
        leaks=leak_of(leak).of(len(gradients)),
        transform=resolve_purity_transform(k, purity_transform),
        marginalize_batch=marginalize_batch,
        renormalize=renormalize,
        replica_sum=replica_sum,
    )


def graddrop_at(
    gradients: Sequence[places.Structure],
    place: places.Place,
    *,
    draw: Draw,
    leaks: Sequence[float],
    transform: PurityTransform,
    marginalize_batch: bool,
    renormalize: bool,
    replica_sum: linalg.ReplicaSum,
) -> list[places.Structure]:
    """Masks per-loss gradients at all tensors of a place.

    Each tensor has a purity and draws of its own; the norm of `renormalize` is
    that over all of them.

    Args:
        gradients: T gradients.
        place: Where they meet.
        draw: Returns the draws for a purity.
        leaks: T leaks.
        transform: f.
        marginalize_batch: As in `graddrop`, like all that follow.
        renormalize: As in `graddrop`.
        replica_sum: As in `graddrop`.

    Returns:
        T gradients.
    """
    summed = place.sums_batch(marginalize_batch)

    def mask(gradients, block):
        # A list, not a stack: each tensor fits the cache.
        G = signed_gradients(gradients, block, summed, replica_sum)
        positive, total = purity_sums(G)
        P = purity_of_sums(positive, total)
        U = check_draws(draw(P, summed), P)
        # The sign that is kept: I[f(P) > U] - I[f(P) < U].
        kept = tf.sign(transform(P) - U)
        unmasked = mask_without_signs(total)
        newgrad = []
        for dL_i, G_i, l_i in zip(gradients, G, leaks, strict=True):
            M_i = tf.cast(kept * G_i > 0, G_i.dtype) + unmasked
            passed = l_i + (1 - l_i) * M_i if l_i else M_i
            newgrad.append(dL_i * tf.cast(passed, dL_i.dtype))
        return newgrad

    newgrad = place.of_blocks(mask, gradients)
    if not renormalize:
        return newgrad
    ratio = norm_ratio(
        trunk_gradients(gradients, place),
        trunk_gradients(newgrad, place),
        replica_sum,
    )
    return linalg.scale_each(newgrad, [ratio] * len(newgrad))


def sign_purity(gradients) -> tf.Tensor:
    """Computes the sign purity of per-loss gradients (Eq. 1).

    `P = 1/2 (1 + sum_i g_i / sum_i |g_i|)`, elementwise: 0 where all
    gradients are negative, 1 where all are positive, 0.5 where all are zero.
    Computed as the sum of the positive parts over the sum of the magnitudes,
    it is exactly 0 or 1 for gradients that agree, at any scale.

    Args:
        gradients: A list of T tensors of one shape, or a stack `[T, ...]`.

    Returns:
        A tensor of one gradient's shape with values in [0, 1]: `float64` for
        `float64` gradients, otherwise `float32`. NaN where a gradient is NaN
        or infinite.

    Raises:
        ValueError: If `gradients` is empty.

    Example:
        >>> P = gd.sign_purity([[3.0, 7.0], [1.0, -3.0]])  # 1.0 and 0.7
    """
    gradients = linalg.as_list(gradients)
    dtype = linalg.accumulation_dtype(gradients[0].dtype)
    return purity_of_sums(*purity_sums([tf.cast(g, dtype) for g in gradients]))


def purity_sums(signed: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the positive parts and the magnitudes of gradients.

    Both sums run in one order, so they are equal where all losses agree.

    Args:
        signed: G_i of some losses, `float32` or `float64`.

    Returns:
        The two sums. Those of all losses are the sums of those of some.
    """
    positive = tf.add_n([tf.nn.relu(g) for g in signed])
    return positive, tf.add_n([tf.abs(g) for g in signed])


def purity_of_sums(positive: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
    """Computes P from the sums of all losses.

    Args:
        positive: The sum of the positive parts.
        total: The sum of the magnitudes.

    Returns:
        P, as `sign_purity` does.
    """
    empty = tf.equal(total, 0)
    purity = positive / tf.where(empty, tf.ones_like(total), total)
    # A negative infinity alone would give 0.
    purity = tf.where(tf.math.is_finite(total), purity, _nan(total))
    return tf.where(empty, 0.5 * tf.ones_like(total), purity)


def signed_gradients(
    gradients: Sequence[tf.Tensor],
    block: places.Place,
    marginalize_batch: bool = True,
    replica_sum: linalg.ReplicaSum = replicas.identity,
) -> list[tf.Tensor]:
    """Computes `G_i = sgn(A) dL_i/dA` (steps 1 and 2 of Algorithm 1).

    Args:
        gradients: T tensors, dL_i/dA (batch separated: dL_i/dA_i).
        block: A place of one tensor, or of one for each loss.
        marginalize_batch: Whether to sum over the batch. Batch-separated
            gradients are always summed.
        replica_sum: Sums tensors over replicas, after the sum over the batch.

    Returns:
        T tensors, `float64` for `float64` gradients, otherwise `float32`:
        `[1, ...]` if summed over the batch, otherwise `[batch, ...]`.
    """
    dtype = linalg.accumulation_dtype(gradients[0].dtype)
    signs = [tf.cast(tf.sign(a), dtype) for a in block.blocks]
    signs = block.with_blocks(signs).of_each(len(gradients))
    signed = [
        sign * tf.cast(g, dtype)
        for sign, g in zip(signs, gradients, strict=True)
    ]
    if not block.sums_batch(marginalize_batch):
        return signed
    return replica_sum(
        [tf.reduce_sum(g, axis=0, keepdims=True) for g in signed]
    )


def check_draws(uniform, purity: tf.Tensor) -> tf.Tensor:
    """Returns U with the shape and dtype of the purity.

    Args:
        uniform: Draws in the shape of `purity`, with or without its first
            axis.
        purity: P.

    Returns:
        A tensor that broadcasts to `purity`.

    Raises:
        ValueError: If the shapes do not match.
    """
    uniform = tf.cast(tf.convert_to_tensor(uniform), purity.dtype)
    if uniform.shape.rank == purity.shape.rank - 1:
        uniform = uniform[None]
    if not uniform.shape.is_compatible_with(purity.shape):
        raise ValueError(
            "`uniform` must have the shape of the purity. Received shape "
            f"{uniform.shape}, expected {purity.shape}."
        )
    return uniform


def mask_without_signs(total: tf.Tensor) -> tf.Tensor:
    """Computes M_i where the signs of the G_i do not decide it.

    Where all G_i are 0 no losses disagree, and all gradients pass: behind a
    layer that starts at zero, for example, where sgn(A) = 0. A NaN or an
    infinite value stays visible; a comparison alone would hide it.

    Args:
        total: The sum of the magnitudes of all G_i.

    Returns:
        1 where `total` is 0, NaN where it is not finite, 0 elsewhere.
    """
    mask = tf.cast(tf.equal(total, 0), total.dtype)
    return tf.where(tf.math.is_finite(total), mask, _nan(total))


def trunk_gradients(
    gradients: Sequence[places.Structure], place: places.Place
) -> list[tf.Tensor]:
    """Returns the gradients that flow from the losses into the trunk.

    Args:
        gradients: T gradients.
        place: Where they meet.

    Returns:
        Tensors of `float32` or `float64`: the sum at each shared tensor; the
        gradients themselves if they are batch separated.
    """
    accurate = [
        tf.nest.map_structure(
            lambda g: tf.cast(g, linalg.accumulation_dtype(g.dtype)), gradient
        )
        for gradient in gradients
    ]
    return tf.nest.flatten(place.sum(accurate))


def norm_ratio(
    before: Sequence[tf.Tensor],
    after: Sequence[tf.Tensor],
    replica_sum: linalg.ReplicaSum,
) -> tf.Tensor:
    """Divides the L2 norm of gradients by that of others.

    Args:
        before: Gradients of any shapes, whose norm is to be restored.
        after: Gradients that have another norm now.
        replica_sum: Sums a tensor over replicas.

    Returns:
        A `float64` scalar; 0 if `after` is all zeros.
    """
    squares = replica_sum(
        tf.stack(
            [
                tf.reduce_sum(linalg.squared_norms(before)),
                tf.reduce_sum(linalg.squared_norms(after)),
            ]
        )
    )
    return tf.sqrt(linalg.safe_ratio(squares[0], squares[1]))


def _nan(like: tf.Tensor) -> tf.Tensor:
    return tf.constant(float("nan"), like.dtype)
