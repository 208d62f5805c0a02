"""A model takes another recipe, and losses of another number."""

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from tests.graddrop_tf import models

KIND = models.Kind("shared")


def _fit(model, epochs=1):
    x, y = models.batch()
    y = KIND.labels(y)[: len(model.outputs)]
    model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return model.get_weights()


@pytest.mark.parametrize("compiles_again", [False, True])
def test_another_recipe_after_a_warm_up(compiles_again):
    """It trains as a model of that recipe from the same weights on."""
    warm = KIND.compiled("gradnorm")
    _fit(warm)
    other = KIND.compiled("graddrop(seed=1)+clip(0.5)")
    other.set_weights(warm.get_weights())
    warm.recipe = "graddrop(seed=1)+clip(0.5)"
    assert str(warm.recipe) == "graddrop(seed=1)+clip(0.5)"
    if compiles_again:
        KIND.compile(warm)
    ours, expected = _fit(warm, 2), _fit(other, 2)
    for one, right in zip(ours, expected, strict=True):
        np.testing.assert_array_equal(one, right)
    assert len(warm.variables) == len(other.variables)
    assert int(warm.recipe_state.combiner.step) == 4


def test_the_clip_and_the_epochs_of_the_recipe_before_are_gone():
    model = KIND.compiled("dwa+clip(1e-6)")
    before = _fit(model)
    assert "fit" in vars(model)
    model.recipe = None
    assert "fit" not in vars(model)
    plain = KIND.compiled("baseline")
    plain.set_weights(before)
    for one, right in zip(_fit(model), _fit(plain), strict=True):
        np.testing.assert_array_equal(one, right)


def test_a_model_that_a_batch_built_takes_another_recipe():
    trunk = keras.layers.Dense(4)
    heads = keras.layers.Dense(3)
    model = gd.MultiLossModel(trunk, heads, recipe="gradnorm")
    model.compile("sgd", gd.VectorLoss(models.squared_errors))
    x, y = models.batch()
    model.fit(x, y, verbose=0)
    model.recipe = "graddrop"
    model.fit(x, y, batch_size=4, verbose=0)
    assert int(model.recipe_state.combiner.step) == 4


def test_a_saved_model_has_the_recipe_that_it_took(tmp_path):
    model = KIND.compiled("baseline")
    model.recipe = "graddrop(leak=0.5, seed=1)"
    _fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method("graddrop").leak == 0.5
    for one, right in zip(_fit(loaded), _fit(model), strict=True):
        np.testing.assert_array_equal(one, right)


def test_a_recipe_that_does_not_fit_is_not_taken():
    model = KIND.compile(KIND.build("graddrop", loss_chunk_size=1))
    with pytest.raises(ValueError, match="cannot work in chunks"):
        model.recipe = "pcgrad"
    assert str(model.recipe).startswith("graddrop")
    with pytest.raises(ValueError, match="A recipe is a gd.Recipe"):
        model.recipe = 3


def test_methods_by_name():
    model = KIND.build("gradnorm+graddrop(seed=1)+graddrop(seed=2)")
    assert isinstance(model.method("gradnorm"), gd.GradNorm)
    assert [model.method("graddrop", i).seed for i in (0, 1)] == [1, 2]
    with pytest.raises(ValueError, match="has 0 methods 'pcgrad'"):
        model.method("pcgrad")
    with pytest.raises(ValueError, match="has 2 methods 'graddrop'"):
        model.method("graddrop", 2)


@pytest.mark.parametrize("method", METHODS)
def test_losses_of_another_number(method):
    """State of the number before is gone, as in a new model."""
    model = KIND.build(f"{method}")
    model.compile("sgd", ["mse"] * 3)
    model.compile("sgd", ["mse", "mse", None])
    for layer in model.recipe_state.list_methods():
        for name, variable in layer.state_variables.items():
            fresh = layer.start(2)[name]
            np.testing.assert_array_equal(variable.numpy(), fresh)
    assert model.recipe_state.num_losses == 2


def test_gradnorm_trains_on_losses_of_another_number():
    model = KIND.compiled("gradnorm+pcd")
    _fit(model)
    model.compile("sgd", ["mse", None, "mse"])
    x, y = models.batch()
    model.fit(x, [y[:, :1], y[:, :1], y[:, 2:]], verbose=0)
    weights = model.method("gradnorm").state["weights"].numpy()
    assert weights.shape == (2,)
    assert weights.sum() == pytest.approx(2.0)
    assert not np.array_equal(weights, [1.0, 1.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gd.GradDrop(2, 0.5), "GradDrop takes num_losses by position"),
        (
            lambda: gd.MGDA(2, True),
            "by name: sync_replicas, separate. Received",
        ),
        (lambda: gd.RandomGradDrop(2, 0.5), "the others by name: leak, marg"),
        (lambda: gd.STCH(1.0, False), "STCH takes mu by position and the oth"),
    ],
)
def test_positions_are_answered_by_names(make, message):
    with pytest.raises(TypeError, match=message):
        make()
