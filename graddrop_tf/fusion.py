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
    tensors = tf.nest.flatten(arguments)
    if not _pays([tensor.shape for tensor in tensors]):
        return function(*arguments)
    compiled = tf.function(function, autograph=False, jit_compile=True)
    return compiled(*arguments)


def _pays(shapes: list[tf.TensorShape]) -> bool:
    examples = [shape[1:] for shape in shapes if shape.rank]
    return (
        tf.inside_function()
        and all(shape.rank is not None for shape in shapes)
        and all(example.is_fully_defined() for example in examples)
        and max(map(_known_elements, shapes)) >= _LARGE
        and not tf.config.list_logical_devices("GPU")
    )


def _known_elements(shape: tf.TensorShape) -> int:
    """Returns the number of elements, an unknown batch taken as 1."""
    return math.prod(size or 1 for size in shape)
