"""What `keras.models.clone_model` needs, to make a model of the same kind.

Keras runs the graph of a functional model on new inputs, with a clone in place
of each layer, and gives the new inputs and outputs to the model's class. A
`MultiLossModel` is made of trunk, heads and recipe instead: its outputs tell
which model they are a clone of, and which layers made them.
"""

from __future__ import annotations

import keras

from graddrop_tf import graph

_SOURCE = "clone_of"


def mark(outputs, model: keras.Model):
    """Returns outputs that know whose graph made them, if symbolic."""
    for output in keras.tree.flatten(outputs):
        if isinstance(output, keras.KerasTensor):
            setattr(output, _SOURCE, model)
    return outputs


def source_of(arguments: tuple) -> keras.Model | None:
    """Returns the model that a constructor is to make a clone of, if any.

    Args:
        arguments: Its arguments: inputs and outputs where Keras clones.
    """
    outputs = keras.tree.flatten(arguments[1:2])
    return getattr(outputs[0], _SOURCE, None) if outputs else None


def unmark(arguments: tuple) -> None:
    """Lets the outputs of a clone that is made forget where it comes from."""
    for output in keras.tree.flatten(arguments[1]):
        vars(output).pop(_SOURCE, None)


def config_of(arguments: tuple) -> dict:
    """Returns the config of a clone, which holds its trunk and its heads.

    Args:
        arguments: Inputs and outputs.

    Raises:
        ValueError: If the outputs are not those of heads on a trunk.
    """
    source = source_of(arguments)
    nodes, _ = graph.walk(keras.tree.flatten(arguments[1]))
    layers = [node.operation for node in nodes if not node.is_input]
    if len(layers) != 2:
        raise ValueError(
            f"A clone of {source.name!r} has one layer for its trunk and one "
            "for its heads: `input_tensors` must be inputs, and a "
            "`call_function` must call the layer that it is given, and no "
            f"other. Received: calls of {[layer.name for layer in layers]}."
        )
    trunk, heads = layers
    trunk = _on_inputs(trunk, arguments[0])
    return {**source.get_config(), "trunk": trunk, "heads": heads}


def _on_inputs(trunk: keras.Model, inputs) -> keras.Model:
    """Returns a trunk of the same layers on the inputs that a clone has."""

    def specs(tensors):
        return [(t.shape, t.dtype, t.name) for t in keras.tree.flatten(tensors)]

    if specs(getattr(trunk, "inputs", None) or inputs) == specs(inputs):
        # Keras' copies of its inputs are not sparse, ragged or optional.
        return trunk
    return keras.models.clone_model(
        trunk, input_tensors=inputs, clone_function=lambda layer: layer
    )
