"""Legacy .h5 files: they load, and a warning says what they lack."""

import warnings

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf import models

RECIPE = "gradnorm+graddrop(leak=0.25, seed=1)+clip(2.0)"


def _functional():
    return models.Kind("shared").build(RECIPE)


def _built_by_a_batch():
    heads = models.Kind("shared").build("baseline").heads
    trunk = keras.Sequential([keras.layers.Dense(8)])
    return gd.MultiLossModel(trunk, heads, recipe=RECIPE)


@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
@pytest.mark.parametrize("make", [_functional, _built_by_a_batch])
def test_a_model_is_saved_and_loaded(make, ending, tmp_path):
    model = make()
    x, _ = models.batch()
    expected = model.predict(x, verbose=0)
    path = tmp_path / f"model{ending}"
    with pytest.warns(UserWarning, match="not the steps and the state"):
        model.save(path)
    loaded = keras.models.load_model(path, compile=False)
    for ours, right in zip(loaded.predict(x, verbose=0), expected, strict=True):
        np.testing.assert_array_equal(ours, right)
    assert loaded.recipe.method_names == ("gradnorm", "graddrop")
    assert loaded.recipe.global_clipnorm == 2.0
    assert loaded.method("graddrop").leak == 0.25


def test_other_files_are_saved_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        _functional().save(tmp_path / "model.keras")
        models.Kind("shared").build("baseline").save(tmp_path / "plain.h5")
