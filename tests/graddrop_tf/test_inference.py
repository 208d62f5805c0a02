import subprocess
import sys

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf.models import HEADS, LAYER, VECTOR, batch

_LOAD = """
import sys
import keras, numpy as np
for directory in sys.argv[1:]:
    model = keras.saving.load_model(directory + "/model.keras")
    x = np.load(directory + "/x.npy")
    outputs = keras.tree.flatten(model.predict(x, verbose=0))
    np.savez(directory + "/y.npz", *outputs)
assert not any(name.startswith("graddrop_tf") for name in sys.modules)
"""


def test_loads_where_the_library_is_never_imported(tmp_path):
    expected = {}
    x, _ = batch(5)
    for kind in (LAYER, HEADS, VECTOR):
        model = kind.compiled("mgda+graddrop")
        kind.train(model)
        directory = tmp_path / str(kind)
        directory.mkdir()
        gd.inference_model(model).save(directory / "model.keras")
        np.save(directory / "x.npy", x)
        expected[kind] = keras.tree.flatten(model.predict(x, verbose=0))
    directories = [str(tmp_path / str(kind)) for kind in expected]
    subprocess.run(
        [sys.executable, "-c", _LOAD, *directories], check=True, cwd=tmp_path
    )
    for kind, outputs in expected.items():
        loaded = np.load(tmp_path / str(kind) / "y.npz")
        for a, b in zip(loaded.values(), outputs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_shares_weights_and_holds_no_combiner():
    inner_input = keras.Input([6])
    inner = keras.Model(inner_input, gd.PCGrad(2)(inner_input))
    inputs = keras.Input([6])
    a, b = inner(inputs)
    a, b = gd.GradDrop()([a, b])
    model = keras.Model(
        inputs, {"p": keras.layers.Dense(1)(a), "q": keras.layers.Dense(1)(b)}
    )
    plain = gd.inference_model(model)
    for layer in plain.layers:
        for inner in getattr(layer, "layers", [layer]):
            assert not isinstance(inner, gd.Combiner)
    model.layers[-1].kernel.assign_add([[1.0]] * 6)
    x, _ = batch(3)
    expected, outputs = model(x), plain(x)
    for name in ("p", "q"):
        np.testing.assert_array_equal(outputs[name], expected[name])


class Split(keras.layers.Layer):
    """Calls a combiner in its own `call`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = gd.GradDrop(num_losses=2)

    def call(self, z):
        return self.drop(z)


def test_a_combiner_inside_of_a_layer_is_refused():
    inputs = keras.Input([6])
    split = Split(name="split")
    flat = keras.Model(inputs, split(inputs))
    nested = keras.Model(inputs, flat(inputs))
    for model in (flat, nested):
        with pytest.raises(ValueError, match="layer 'split' of type Split"):
            gd.inference_model(model)


def test_takes_functional_models_only():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    for bad in (Subclassed(), keras.layers.Dense(1), "model"):
        with pytest.raises(ValueError, match="functional Keras model"):
            gd.inference_model(bad)


class Unregistered(keras.metrics.Mean):
    """A metric that cannot be made from a config."""

    def __init__(self, secret):
        super().__init__()

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(y_true)


@pytest.mark.parametrize("kind", [LAYER, HEADS])
def test_losses_and_metrics_of_the_users_own(kind):
    model = kind.build("graddrop")
    x, _ = batch(5)
    model.compile(
        loss=[lambda y_true, y_pred: y_pred for _ in model.outputs],
        metrics=[[Unregistered(1)] for _ in model.outputs],
    )
    plain = gd.inference_model(model)
    assert not plain.compiled
    outputs = zip(
        keras.tree.flatten(plain.predict(x, verbose=0)),
        keras.tree.flatten(model.predict(x, verbose=0)),
        strict=True,
    )
    for a, b in outputs:
        np.testing.assert_array_equal(a, b)
