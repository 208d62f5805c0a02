"""Whether losses can reach the trunk past the activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import tensorflow as tf


def may_pass(losses: Sequence[tf.Tensor], blocks: Sequence[tf.Tensor]) -> bool:
    """Returns whether a loss may depend on the trunk past the activations.

    In the graph of a `tf.function` they can be followed backwards: what both
    need, other than arguments of the function, is a variable or a value from
    outside. Where there is no such graph the answer is yes.

    Args:
        losses: The losses.
        blocks: The tensors of A.
    """
    ends = [*losses, *blocks]
    if not all(map(tf.is_symbolic_tensor, ends)):
        return True
    graph = ends[0].graph
    if any(end.graph is not graph for end in ends):
        return True
    if not hasattr(graph, "captures"):
        return True
    outside = {placeholder.name for _, placeholder in graph.captures}
    stops = {block.name for block in blocks}
    past = _needed(losses, stops)
    return any(
        name in past and (name in outside or tensor.dtype == tf.resource)
        for name, tensor in _needed(blocks).items()
    )


def _needed(
    tensors: Sequence[tf.Tensor], stops: Iterable[str] = ()
) -> dict[str, tf.Tensor]:
    """Returns tensors and all from which they are computed, by name."""
    found, stops, left = {}, set(stops), list(tensors)
    while left:
        tensor = left.pop()
        if tensor.name not in found and tensor.name not in stops:
            found[tensor.name] = tensor
            left.extend(tensor.op.inputs)
    return found
