"""The parts of a `MultiLossModel`: trunk, heads and their losses."""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf.checks import check_count
from graddrop_tf.step.state import RecipeState
from graddrop_tf.step.vector_loss import VectorLoss


def check_parts(trunk, heads) -> None:
    """Checks that trunk and heads fit each other.

    Raises:
        ValueError: If one is not functional, they share a layer with weights,
            or the heads do not take what the trunk gives.
    """
    for name, part in (("trunk", trunk), ("heads", heads)):
        if not isinstance(part, keras.Model) or not getattr(
            part, "inputs", None
        ):
            raise ValueError(
                f"`{name}` must be a functional keras.Model, built from "
                f"keras.Input. Received: {part!r} of type "
                f"{type(part).__name__}."
            )
    trunk_layers = {id(layer): layer for layer in trunk._flatten_layers()}
    shared = [
        layer.name
        for layer in heads._flatten_layers()
        if id(layer) in trunk_layers and layer.weights
    ]
    if shared:
        raise ValueError(
            "A layer with weights belongs to the trunk or to the heads. "
            f"Received: {shared} in both."
        )
    produced, taken = (
        keras.tree.flatten(t) for t in (trunk.output, heads.input)
    )
    if len(produced) != len(taken) or any(
        not _compatible(p.shape, t.shape)
        for p, t in zip(produced, taken, strict=False)
    ):
        raise ValueError(
            "`heads` must take what `trunk` gives. Received: trunk outputs "
            f"of shapes {[tuple(t.shape) for t in produced]}, heads inputs "
            f"of shapes {[tuple(t.shape) for t in taken]}."
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


def list_outputs(heads: keras.Model) -> list[str]:
    """Returns the names of the outputs."""
    output = heads.output
    if isinstance(output, dict):
        # Keras orders a dict of outputs by key.
        return sorted(output)
    return list(heads.output_names)


def name_losses(loss, names: list[str], outputs) -> list[str]:
    """Returns the names of the losses in the order of the outputs.

    Args:
        loss: As in `MultiLossModel.compile`.
        names: The names of the outputs.
        outputs: The outputs of the heads.

    Raises:
        ValueError: If the losses do not fit the outputs.
    """
    if isinstance(loss, VectorLoss):
        return _name_vector(loss, names, outputs)
    if isinstance(loss, dict):
        unknown = sorted(set(loss) - set(names))
        if unknown:
            raise ValueError(
                f"There is no output for the losses {unknown}. The outputs are "
                f"{names}."
            )
        losses = [n for n in names if loss.get(n) is not None]
    elif isinstance(loss, (list, tuple)):
        if len(loss) != len(names):
            raise ValueError(
                "`loss` must be one for each output, or one for all. "
                f"Received: {len(loss)} losses for the outputs {names}."
            )
        pairs = zip(names, loss, strict=True)
        losses = [n for n, item in pairs if item is not None]
    else:
        losses = names
    return losses


def _name_vector(loss, names, outputs) -> list[str]:
    if len(outputs) != 1:
        raise ValueError(
            "A gd.VectorLoss takes a model with one output. Received: the "
            f"outputs {names}."
        )
    if loss.names is not None:
        return list(loss.names)
    count = outputs[0].shape[-1]
    if count is None:
        raise ValueError(
            "Give the gd.VectorLoss `names`: the last dimension of the output "
            f"is unknown, of shape {outputs[0].shape}."
        )
    return [str(i) for i in range(count)]
