"""The model without its training."""

from __future__ import annotations

import keras

from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.trunk_and_heads import TrunkAndHeads


def inference_model(model: keras.Model) -> keras.Model:
    """Returns a plain Keras model with the same layers and weights.

    It holds no layer of this package, so a file that it is saved to loads
    where this package is not installed.

    Args:
        model: A `gd.MultiLossModel`, which has seen a batch where its trunk
            does not know its inputs; or a functional Keras model with
            combiners such as `gd.GradDrop` in it.

    Returns:
        A functional `keras.Model` that shares the layers of `model`.

    Raises:
        ValueError: Where `model` is not functional, or a combiner is called
            inside of a layer or model that is not.

    Example:
        >>> gd.inference_model(model).save("model.keras")
    """
    if isinstance(model, TrunkAndHeads) and not model.is_functional:
        inputs = model.symbolic_inputs()
        model = keras.Model(
            inputs, model.heads(model.trunk(inputs)), name=model.name
        )
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise ValueError(
            "`inference_model` takes a functional Keras model. Received: "
            f"{model!r} of type {type(model).__name__}."
        )

    def call(layer, *args, **kwargs):
        if not isinstance(layer, Combiner):
            return layer(*args, **kwargs)
        # Without training a combiner gives its inputs themselves.
        return layer.call(args[0])

    def share(layer):
        if isinstance(layer, Combiner) or not _holds_combiner(layer):
            return layer
        if has_combiner(layer):
            return inference_model(layer)
        raise ValueError(
            "A combiner inside of a layer cannot be taken out: call it in a "
            f"functional model. Received: the layer {layer.name!r} of type "
            f"{type(layer).__name__}, which holds one."
        )

    # Keras compiles a clone by the config of the model, which losses and
    # metrics of the user's own may not have.
    uncompiled = keras.Model(model.input, model.output)
    # Its own inputs: sparse, ragged or optional as they are.
    clone = keras.models.clone_model(
        uncompiled, model.input, clone_function=share, call_function=call
    )
    plain = keras.Model(clone.input, clone.output, name=model.name)
    plain.output_names = list(model.output_names)
    return plain


def _holds_combiner(operation) -> bool:
    """Returns whether a layer is or holds a combiner, wherever it is called."""
    return isinstance(operation, keras.layers.Layer) and any(
        isinstance(inner, Combiner) for inner in operation._flatten_layers()
    )


def has_combiner(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is a functional model that holds a combiner."""
    return hasattr(layer, "operations") and _holds_combiner(layer)
