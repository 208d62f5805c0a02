"""The parts of a `MultiLossModel`: trunk, heads and their losses."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import graph
from graddrop_tf.checks import check_count
from graddrop_tf.step.state import RecipeState
from graddrop_tf.step.vector_loss import VectorLoss


def check_parts(trunk, heads) -> None:
    """Checks that trunk and heads fit each other.

    Raises:
        ValueError: If one is no layer, they share a layer with weights, or
            the heads do not take what the trunk gives.
    """
    for name, part in (("trunk", trunk), ("heads", heads)):
        if not isinstance(part, keras.layers.Layer):
            raise ValueError(
                f"`{name}` must be a Keras model or layer. Received: {part!r} "
                f"of type {type(part).__name__}."
            )
    check_no_layer_in_both(trunk, heads)
    produced = getattr(trunk, "outputs", None)
    taken = getattr(heads, "inputs", None)
    if produced is None or taken is None:
        return
    if len(produced) != len(taken) or any(
        not _compatible(p.shape, t.shape)
        for p, t in zip(produced, taken, strict=False)
    ):
        raise ValueError(
            "`heads` must take what `trunk` gives. Received: trunk outputs "
            f"of shapes {[tuple(t.shape) for t in produced]}, heads inputs "
            f"of shapes {[tuple(t.shape) for t in taken]}."
        )


def check_no_layer_in_both(trunk, heads) -> None:
    """Checks that no layer with weights belongs to trunk and heads.

    Raises:
        ValueError: If one does.
    """
    trunk_layers = {id(layer): layer for layer in trunk._flatten_layers()}
    shared = [
        layer.name
        for layer in heads._flatten_layers()
        if id(layer) in trunk_layers and layer.weights
    ]
    if shared:
        raise ValueError(
            "A layer with weights belongs to the trunk or to the heads; "
            "`gd.insert` and `gd.compute_gradients` take one that is in both. "
            f"Received: {shared} in both."
        )


def _compatible(a, b) -> bool:
    return tf.TensorShape(a).is_compatible_with(tf.TensorShape(b))


def check_chunks(size: int, separate: bool, state: RecipeState) -> None:
    """Checks that losses can be combined in chunks.

    Args:
        size: How many gradients may exist at once.
        separate: Whether the losses are batch separated.
        state: The state of the recipe.

    Raises:
        ValueError: If they cannot.
    """
    check_count("loss_chunk_size", size)
    if separate:
        raise ValueError(
            "`loss_chunk_size` is for losses that share their activations. "
            "Received: separate=True."
        )
    if state.combiner.streaming() is None:
        names = [type(c).__name__ for c in state.combiner.combiners]
        raise ValueError(
            f"{'+'.join(names)} needs all gradients at once and cannot work "
            f"in chunks. Received: loss_chunk_size={size}."
        )


def inputs_of(trunk: keras.layers.Layer):
    """Returns the symbolic inputs of a functional or sequential model.

    None stands for inputs that are unknown until the first batch.
    """
    if not getattr(trunk, "inputs", None):
        return None
    if isinstance(trunk, keras.Sequential):
        return trunk.inputs[0]
    return trunk.input


def list_outputs(model: keras.Model, heads: keras.layers.Layer) -> list[str]:
    """Returns the names of the outputs of a functional model.

    Args:
        model: The model.
        heads: Its last layer, whose own names come first.
    """
    output = model.output
    if isinstance(output, dict) and _is_flat(output):
        # Keras orders a dict of outputs by key.
        return sorted(output)
    return list(getattr(heads, "output_names", model.output_names))


def _is_flat(structure) -> bool:
    paths = keras.tree.flatten_with_path(structure)
    return all(len(path) <= 1 for path, _ in paths)


def check_losses(loss, names: list[str], output) -> None:
    """Checks that losses fit outputs that names tell apart.

    Args:
        loss: As in `MultiLossModel.compile`.
        names: The names of the outputs.
        output: The outputs of the model.

    Raises:
        ValueError: If they do not.
    """
    if isinstance(loss, VectorLoss) or not _is_flat(output):
        return
    if len(names) != len(set(names)):
        return
    if isinstance(loss, dict):
        unknown = sorted(set(loss) - set(names))
        if unknown:
            raise ValueError(
                f"There is no output for the losses {unknown}. The outputs are "
                f"{names}."
            )
    elif isinstance(loss, (list, tuple)) and len(loss) != len(names):
        raise ValueError(
            "`loss` must be one for each output, or one for all. "
            f"Received: {len(loss)} losses for the outputs {names}."
        )


def list_handed_on(activations) -> list[bool]:
    """Returns which symbolic tensors of a structure depend on no weights."""
    return [
        not is_differentiable(block) or not graph.depends_on_weights(block)
        for block in tf.nest.flatten(activations)
    ]


def is_differentiable(tensor) -> bool:
    """Returns whether gradients reach a tensor: it is no integer, or None."""
    return tensor is not None and keras.backend.is_float_dtype(tensor.dtype)


def check_dense(structure, handed_on: Sequence[bool]) -> None:
    """Checks that activations are dense tensors.

    Args:
        structure: What the trunk gives.
        handed_on: Which of its tensors are no activations.

    Raises:
        ValueError: If one is sparse or ragged.
    """
    blocks = tf.nest.flatten(structure)
    for block, is_handed_on in zip(blocks, handed_on, strict=True):
        is_dense = not (
            getattr(block, "sparse", False) or getattr(block, "ragged", False)
        ) and not isinstance(block, (tf.SparseTensor, tf.RaggedTensor))
        if not (is_dense or is_handed_on):
            raise ValueError(
                "The activations that losses share must be dense tensors: cut "
                "behind a layer that makes them so, such as a pooling layer. "
                f"Received: {block}."
            )


def without(structure, marks: Sequence[bool]):
    """Returns a structure without the tensors that are marked.

    Returns:
        The structure itself, or a list of what is left, or the only tensor.
    """
    if not any(marks):
        return structure
    blocks = tf.nest.flatten(structure)
    left = [b for b, mark in zip(blocks, marks, strict=True) if not mark]
    return left[0] if len(left) == 1 else left


def as_tensor(x):
    """Returns an array as a tensor; None, sparse and ragged tensors stay."""
    return x if x is None or tf.is_tensor(x) else tf.convert_to_tensor(x)
