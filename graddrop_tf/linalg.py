"""Per-loss gradients as lists and stacks, and their norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from graddrop_tf import replicas

ReplicaSum = Callable[[tf.Tensor], tf.Tensor]


def as_list(gradients) -> list[tf.Tensor]:
    """Turns a stack `[T, ...]` or a sequence into a list of T tensors.

    Raises:
        ValueError: If there are no gradients, or their number is not static.
    """
    if not isinstance(gradients, (list, tuple)):
        gradients = tf.convert_to_tensor(gradients)
        if not gradients.shape.rank or gradients.shape[0] is None:
            raise ValueError(
                "Expected one gradient for each loss: a list of tensors or "
                "a stack with the losses along a static first axis. "
                f"Received a tensor of shape {gradients.shape}."
            )
        gradients = tf.unstack(gradients)
    if not gradients:
        raise ValueError(
            "Expected one gradient for each loss. Received an empty list."
        )
    return [tf.convert_to_tensor(g) for g in gradients]


def by_block(gradients: Sequence[Any]) -> list[tuple[tf.Tensor, ...]]:
    """Returns the tensors of all structures at each block, in order."""
    return list(zip(*map(tf.nest.flatten, gradients), strict=True))


def unstack(stacked: Any, count: int) -> list[Any]:
    """Returns `count` structures of tensors, given one of stacks of them."""
    blocks = [tf.unstack(b, num=count) for b in tf.nest.flatten(stacked)]
    return [
        tf.nest.pack_sequence_as(stacked, list(of_one))
        for of_one in zip(*blocks, strict=True)
    ]


def restack(tensors: Sequence[tf.Tensor]) -> tf.Tensor | None:
    """Returns the stack that tensors of a graph were taken from.

    It saves the copy that `tf.stack` makes.

    Args:
        tensors: T tensors.

    Returns:
        `[T, ...]`; None if they are not all of a stack, in order.
    """
    if not tf.is_symbolic_tensor(tensors[0]):
        return None
    op = tensors[0].op
    if op.type != "Unpack" or op.get_attr("axis") != 0:
        return None
    places = [(t.op is op, t.value_index) for t in tensors]
    if places != [(True, index) for index in range(len(op.outputs))]:
        return None
    return op.inputs[0]


def accumulation_dtype(dtype: tf.DType) -> tf.DType:
    """Returns the dtype of purities and norms: float32 at least."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def power_of_two(value: tf.Tensor) -> tf.Tensor:
    """Rounds down to a power of two, by which a division is exact.

    Returns 1 if the value is not positive, infinity if it is not finite.
    """
    if value.dtype == tf.float64:
        integer, exponent = tf.int64, 0x7FF0000000000000
    else:
        integer, exponent = tf.int32, 0x7F800000
    bits = tf.bitwise.bitwise_and(
        tf.bitcast(value, integer), tf.constant(exponent, integer)
    )
    power = tf.bitcast(bits, value.dtype)
    one = tf.ones_like(value)
    return tf.where((value <= 0) | tf.equal(power, 0), one, power)


def squared_norms(
    gradients: Sequence[Any],
    replica_sum: ReplicaSum = replicas.identity,
) -> tf.Tensor:
    """Returns the squared L2 norm of each gradient.

    Args:
        gradients: T tensors of any shapes, or structures of tensors.
        replica_sum: Sums a tensor over replicas.

    Returns:
        A `float64` tensor of shape `[T]`.
    """
    # float64 holds the squares of all that float32 holds.
    squares = [
        tf.add_n(
            [
                2.0 * tf.nn.l2_loss(tf.cast(block, tf.float64))
                for block in tf.nest.flatten(gradient)
            ]
        )
        for gradient in gradients
    ]
    return replica_sum(tf.stack(squares))


def rounding_error(dtype: tf.DType) -> float:
    """Returns the relative error of a Gram matrix of gradients of `dtype`."""
    return 1e-12 if dtype == tf.float64 else 1e-6


def scale_each(gradients: Sequence[Any], factors: tf.Tensor) -> list[Any]:
    """Returns `c_i g_i` for every i, in the gradients' dtypes.

    Args:
        gradients: T tensors, or structures of tensors.
        factors: `[T]`.
    """
    return [
        tf.nest.map_structure(
            lambda block, factor=factors[i]: (
                block * tf.cast(factor, block.dtype)
            ),
            gradient,
        )
        for i, gradient in enumerate(gradients)
    ]


def defects(values: tf.Tensor) -> tf.Tensor:
    """Returns 0 where values are finite, and NaN where they are not.

    A NaN of its own making would alarm `tf.debugging.enable_check_numerics`.
    """
    return values - values


def safe_ratio(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
    """Returns `numerator / denominator`, 0 where the latter is 0.

    Unlike `tf.math.divide_no_nan` it lets a NaN through.
    """
    zero = tf.equal(denominator, 0)
    ratio = numerator / tf.where(zero, tf.ones_like(denominator), denominator)
    return tf.where(zero, tf.zeros_like(ratio), ratio)
