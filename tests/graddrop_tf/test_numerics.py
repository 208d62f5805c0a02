"""No NaN or infinity is made and masked again in a healthy training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from tests.graddrop_tf import models

RECIPES = [
    *METHODS,
    "graddrop(renormalize=True)",
    "graddrop(marginalize_batch=False)",
    "famo(lagged=True)",
    "clip(0.1)+penalty(0.1)",
]


@pytest.fixture
def _checked():
    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@pytest.mark.usefixtures("_checked")
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes(recipe):
    """With a loss that is always 0 beside the others."""
    kind = models.Kind("shared")
    model = kind.build(recipe)
    always_zero = keras.losses.MeanSquaredError()
    model.compile("sgd", ["mse", "mae", always_zero], loss_weights=[1, 1, 0])
    x, y = models.batch(8)
    model.fit(x, kind.labels(y), verbose=0)


@pytest.mark.usefixtures("_checked")
@pytest.mark.parametrize("options", [{}, {"loss_chunk_size": 2}])
def test_the_layer_and_chunks(options):
    name = "shared" if options else "layer"
    kind = models.Kind(name)
    model = kind.compile(kind.build("graddrop", **options))
    x, y = models.batch(8)
    model.fit(x, kind.labels(y), verbose=0)


@pytest.mark.usefixtures("_checked")
def test_a_nan_of_ones_own_is_found():
    kind = models.Kind("shared")
    model = kind.compiled("graddrop")
    x, y = models.batch(8)
    x[0] = np.nan
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN"):
        model.fit(x, kind.labels(y), verbose=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "method",
    [k for k, m in METHODS.items() if issubclass(m, gd.GramianCombiner)],
)
def test_defects_of_one_gradient_are_in_all_weights(method, bad):
    gradients = np.array([[bad, 1.0, 0.0], [0.5, 2.0, 1.0]])
    combined = gd.combine(method, gradients)
    assert not np.isfinite(tf.add_n(combined).numpy()).any()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_defects_show_in_a_graph(bad, jit_compile):
    function = tf.function(
        lambda g: gd.sign_purity([g, tf.ones_like(g)]), jit_compile=jit_compile
    )
    found = function(tf.constant([bad, 1.0], tf.float32)).numpy()
    assert np.isnan(found[0])
    assert found[1] == 1.0
