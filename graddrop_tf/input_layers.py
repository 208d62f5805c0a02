"""What is known of a model's inputs, as Keras input layers."""

from __future__ import annotations

import keras
import tensorflow as tf


def of(x, known=None):
    """Returns the input layers of a batch.

    Args:
        x: A structure of tensors or arrays; None for an input that is left
            out.
        known: Those of earlier batches, or None. A dimension in which
            batches differ becomes unknown.

    Returns:
        `keras.layers.InputLayer`s in the structure of `x`; None for an input
        that was never given.
    """
    paths = [path for path, _ in keras.tree.flatten_with_path(x)]
    names = keras.tree.pack_sequence_as(x, [_name(path) for path in paths])
    layers = keras.tree.map_structure(_layer, x, names)
    if known is None:
        return layers
    try:
        return keras.tree.map_structure(_merge, known, layers)
    except (TypeError, ValueError):
        # Another structure: the last one counts.
        return layers


def symbol(x) -> keras.KerasTensor | None:
    """Returns a symbolic tensor like one of a batch."""
    if x is None or isinstance(x, keras.KerasTensor):
        return x
    return keras.KerasTensor(
        x.shape,
        dtype=keras.backend.standardize_dtype(x.dtype),
        sparse=isinstance(x, tf.SparseTensor),
        ragged=isinstance(x, tf.RaggedTensor),
    )


def outputs(layers):
    """Returns the symbolic tensors of input layers."""
    return keras.tree.map_structure(
        lambda layer: None if layer is None else layer.output, layers
    )


def _name(path) -> str:
    """Returns the key of a dict, as Keras wants it, or a name with numbers."""
    if len(path) == 1 and isinstance(path[0], str):
        return path[0]
    return "_".join(["inputs", *map(str, path)])


def _layer(x, name: str) -> keras.layers.InputLayer | None:
    tensor = symbol(x)
    if tensor is None:
        return None
    return keras.layers.InputLayer(
        batch_shape=(None, *tensor.shape[1:]),
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=name,
    )


def _merge(first, second) -> keras.layers.InputLayer | None:
    given = [layer for layer in (first, second) if layer is not None]
    if not given:
        return None
    shapes = [layer.batch_shape for layer in given]
    if len({len(shape) for shape in shapes}) > 1:
        return second
    last = given[-1]
    return keras.layers.InputLayer(
        batch_shape=[
            sizes[0] if len(set(sizes)) == 1 else None
            for sizes in zip(*shapes, strict=True)
        ],
        dtype=last.dtype,
        sparse=last.sparse,
        ragged=last.ragged,
        optional=len(given) == 1 or first.optional,
        name=last.name,
    )
