"""Elementwise functions of large tensors as one kernel.

TensorFlow runs an expression op by op, and each op writes a tensor. On a CPU,
where large tensors leave the cache between two ops, the traffic takes longer
than the arithmetic; XLA reads every tensor once. It has to compile a function
first, which small tensors do not pay back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Elements of the largest tensor: four MiB in float32.
_LARGE = 2**20


def fused(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of tensors, compiled by XLA where that pays.

    That is in a graph on a CPU, for large tensors whose shapes are static but
    for a batch axis: each new shape is compiled anew. A GPU has the bandwidth,
    and Keras compiles whole steps for it.

    Args:
        function: Elementwise ops and sums over axes. It draws nothing and
            calls no other replica.
        *arguments: All tensors that it depends on, in any structures.

    Returns:
        What the function returns; sums may differ in their last bit.

    Example:
        >>> total = fused(lambda gs: tf.add_n([2 * g for g in gs]), gradients)
    """
    shapes = [tensor.shape for tensor in tf.nest.flatten(arguments)]
    if (
        tf.executing_eagerly()
        or tf.config.list_logical_devices("GPU")
        or not all(map(_has_static_examples, shapes))
        or not any(map(is_large, shapes))
    ):
        return function(*arguments)
    compiled = tf.function(function, autograph=False, jit_compile=True)
    return compiled(*arguments)


def is_large(shape: tf.TensorShape) -> bool:
    """Returns whether a tensor is large, an unknown size taken as 1."""
    return (
        shape.rank is not None
        and math.prod(size or 1 for size in shape) >= _LARGE
    )


def _has_static_examples(shape: tf.TensorShape) -> bool:
    return shape.rank is not None and shape[1:].is_fully_defined()
