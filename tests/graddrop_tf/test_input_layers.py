import keras
import numpy as np
import tensorflow as tf

from graddrop_tf import input_layers

SPARSE = tf.sparse.from_dense(np.eye(3, 5, dtype="float32"))
RAGGED = tf.RaggedTensor.from_row_lengths(np.ones([6, 2], "float32"), [1, 2, 3])


def test_of_a_batch():
    batch = {
        "a": np.zeros([4, 3], "float64"),
        "b": [SPARSE, RAGGED, None],
        "c": keras.KerasTensor([4, 7], "int32", sparse=True),
    }
    layers = input_layers.of(batch)
    assert layers["a"].batch_shape == (None, 3)
    assert layers["a"].dtype == "float64" and layers["a"].name == "a"
    sparse, ragged, absent = layers["b"]
    assert sparse.sparse and not sparse.ragged and ragged.ragged
    assert ragged.batch_shape == (None, None, 2) and absent is None
    assert layers["c"].sparse and layers["c"].dtype == "int32"
    outputs = input_layers.outputs(layers)
    assert outputs["b"][1].ragged and outputs["b"][2] is None
    names = [t.name for t in keras.tree.flatten(outputs) if t is not None]
    assert len(set(names)) == len(names)


def test_of_several_batches():
    known = input_layers.of([np.zeros([4, 3, 2]), None])
    known = input_layers.of([np.zeros([2, 5, 2]), np.zeros([2, 1])], known)
    first, second = known
    assert first.batch_shape == (None, None, 2) and not first.optional
    assert second.batch_shape == (None, 1) and second.optional
    # What was left out once may always be.
    again = input_layers.of([np.zeros([2, 5, 2]), np.zeros([2, 1])], known)
    assert again[1].optional and again[0].batch_shape == (None, None, 2)
    # Another structure or rank stands for itself.
    assert input_layers.of(np.zeros([2, 6]), known).batch_shape == (None, 6)
    other = input_layers.of([np.zeros([2, 6]), None], known)
    assert other[0].batch_shape == (None, 6)
