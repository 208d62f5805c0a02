"""Sign purity, and the mask that a draw makes of it.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas


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


def purity_sums(
    signed: Sequence[tf.Tensor] | tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the positive parts and the magnitudes of gradients.

    Both sums run in one order, so they are equal where all losses agree.

    Args:
        signed: G_i of some losses, `float32` or `float64`: a list, or a stack
            along the first axis.

    Returns:
        The two sums. Those of all losses are the sums of those of some.
    """
    if isinstance(signed, tf.Tensor):
        positive = _sum_first_axis(tf.nn.relu(signed))
        return positive, _sum_first_axis(tf.abs(signed))
    positive = tf.add_n([tf.nn.relu(g) for g in signed])
    return positive, tf.add_n([tf.abs(g) for g in signed])


def _sum_first_axis(stack: tf.Tensor) -> tf.Tensor:
    # XLA's own sum over the outermost axis strides through memory.
    rows = tf.reshape(stack, [stack.shape[0], -1])
    ones = tf.ones([1, stack.shape[0]], stack.dtype)
    return tf.reshape(tf.matmul(ones, rows), tf.shape(stack)[1:])


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
    purity = tf.where(empty, 0.5 * tf.ones_like(total), purity)
    return purity + linalg.defects(total)


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


def signed_stack(stack: tf.Tensor, activations: tf.Tensor) -> tf.Tensor:
    """Computes `signed_gradients` of a stack, summed over the batch.

    Args:
        stack: The gradients `[T, batch, ...]`.
        activations: A, `[batch, ...]`.

    Returns:
        `[T, 1, ...]`, `float64` for `float64` gradients, otherwise `float32`.
    """
    dtype = linalg.accumulation_dtype(stack.dtype)
    signed = tf.cast(tf.sign(activations), dtype) * tf.cast(stack, dtype)
    return tf.reduce_sum(signed, axis=1, keepdims=True)


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
    return tf.cast(tf.equal(total, 0), total.dtype) + linalg.defects(total)
