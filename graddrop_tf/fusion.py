"""Elementwise functions of large tensors as one kernel.

TensorFlow runs an expression op by op, and each op writes a tensor. On a CPU,
where large tensors leave the cache between two ops, the traffic takes longer
than the arithmetic; XLA reads every tensor once. It has to compile a function
first, which small tensors do not pay back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Elements of the largest tensor: four MiB in float32.
_LARGE = 2**20


def fused(
    function: Callable[..., Any],
    *arguments: Any,
    stacks: Sequence[tf.Tensor] = (),
) -> Any:
    """Calls a function of tensors, compiled by XLA where that pays.

    That is in a graph on a CPU, for large tensors whose shapes are static but
    for a batch axis: each new shape is compiled anew. A GPU has the bandwidth,
    and Keras compiles whole steps for it.

    Args:
        function: Elementwise ops and sums over axes. It draws nothing and
            calls no other replica.
        *arguments: All tensors that it depends on, in any structures.
        stacks: Stacks of tensors, `[T, batch, ...]`. The function takes them
            before the arguments.

    Returns:
        What the function returns; sums may differ in their last bit.

    Example:
        >>> total = fused(lambda gs: tf.add_n([2 * g for g in gs]), gradients)
    """
    if fuses(*arguments, stacks=stacks):
        function = tf.function(function, autograph=False, jit_compile=True)
    return function(*stacks, *arguments)


def fuses(*arguments: Any, stacks: Sequence[tf.Tensor] = ()) -> bool:
    """Returns whether `fused` compiles a function of such arguments."""
    shapes = [tensor.shape for tensor in tf.nest.flatten(arguments)]
    of_stacks = [stack.shape for stack in stacks]
    return (
        not tf.executing_eagerly()
        and not tf.config.list_logical_devices("GPU")
        and all(_has_static_examples(shape, 0) for shape in shapes)
        and all(_has_static_examples(shape, 1) for shape in of_stacks)
        and any(map(is_large, [*of_stacks, *shapes]))
    )


def is_large(shape: tf.TensorShape) -> bool:
    """Returns whether a tensor is large, an unknown size taken as 1."""
    return (
        shape.rank is not None
        and math.prod(size or 1 for size in shape) >= _LARGE
    )


def _has_static_examples(shape: tf.TensorShape, batch_axis: int) -> bool:
    """Returns whether no size is unknown but that of the batch."""
    return shape.rank is not None and all(
        size is not None or axis == batch_axis
        for axis, size in enumerate(shape)
    )
