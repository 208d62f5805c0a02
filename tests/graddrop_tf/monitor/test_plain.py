"""The monitor on a plain Keras model, before a method is chosen."""

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf import models
from tests.graddrop_tf.monitor.linear import (
    BY_HAND,
    X,
    Y,
    fit,
    linear,
    measure,
)


@pytest.mark.parametrize("at", ["trunk_dense", ["trunk_dense"]])
@pytest.mark.parametrize("eager", [False, True])
def test_quantities_by_hand(at, eager, tmp_path):
    model, y = linear("plain", "baseline", run_eagerly=eager)
    row = measure(model, y, tmp_path, at=at)
    assert row == pytest.approx(BY_HAND, rel=1e-6)


def test_the_weights_of_the_losses_count(tmp_path):
    model, y = linear("plain", "baseline", loss_weights=[5.0, 5.0])
    row = measure(model, y, tmp_path, at="trunk_dense")
    norm = 5 * BY_HAND["norm_before"]
    assert row["norm_before"] == pytest.approx(norm, rel=1e-6)


def test_losses_by_name_and_a_layer_of_a_nested_model():
    inputs = keras.Input([6])
    body = keras.Model(
        inputs, keras.layers.Dense(4, name="last")(inputs), name="body"
    )
    features = body(inputs)
    model = keras.Model(
        inputs, [keras.layers.Dense(1, name=n)(features) for n in "ab"]
    )
    cut = gd.MultiLossModel.from_model(model, at="body/last")
    x, y = models.batch()
    y = {"a": y[:, :1], "b": y[:, 1:2]}
    measured = []
    for trained, at in ((model, "body/last"), (cut, None)):
        trained.compile(
            keras.optimizers.SGD(0.0),
            {"b": "mae", "a": "mse"},
            loss_weights={"b": 2.0, "a": 0.5},
        )
        monitor = gd.GradientMonitor((x, y), at=at)
        history = trained.fit(x, y, verbose=0, callbacks=[monitor]).history
        measured.append({k: v for k, (v,) in history.items() if "/" in k})
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
    assert measured[0]["gradients/norm_before"] > 0


def test_the_measured_and_the_trained_gradients_are_those_of_the_weights():
    """It sees the weights as they are, not those that it began with."""
    model, y = linear("plain", "baseline")
    monitor = gd.GradientMonitor((X, y), at="trunk_dense", every_steps=1)
    norm = BY_HAND["norm_before"]
    first = fit(model, y, callbacks=[monitor])
    assert first["gradients/norm_before"] == pytest.approx([norm])
    for layer in model.layers[-2:]:
        layer.kernel.assign(2 * layer.kernel)
    second = fit(model, y, callbacks=[monitor])
    assert second["gradients/norm_before"] == pytest.approx([2 * norm])


def test_two_replicas_measure_as_one(mirrored, tmp_path):
    with mirrored(2).scope():
        model, y = linear("plain", "baseline", run_eagerly=False)
    row = measure(model, y, tmp_path, at="trunk_dense")
    assert row == pytest.approx(BY_HAND, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "at", "said"),
    [
        ("plain", None, 'the name of a layer, `at="..."`'),
        ("plain", "trunk", "no layer 'trunk' to cut at"),
        ("plain", 3, "`at` must be the name of a layer"),
        ("layer", "trunk_dense", "holds a combiner already"),
        ("heads", "trunk_dense", "is a gd.MultiLossModel already"),
    ],
)
def test_what_cannot_be_measured(form, at, said):
    model, y = linear(form, "baseline")
    monitor = gd.GradientMonitor((X, y), at=at)
    with pytest.raises(ValueError, match=said):
        fit(model, y, callbacks=[monitor])


def test_a_model_without_losses_cannot_be_measured():
    inputs = keras.Input([3])
    hidden = keras.layers.Dense(3, kernel_regularizer="l2", name="hidden")
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden(inputs)))
    model.compile("sgd")
    monitor = gd.GradientMonitor((X, Y), at="hidden")
    with pytest.raises(ValueError, match="needs the losses of `compile`"):
        model.fit(X, verbose=0, callbacks=[monitor])


def test_a_recipe_that_cannot_move_shows(tmp_path):
    """MGDA beside a loss that is always 0 gives the trunk no gradient."""

    def zero(y_true, y_pred):
        return 0.0 * y_pred

    model, y = linear("heads", "mgda")
    model.compile(
        keras.optimizers.SGD(0.0), [model.loss[0], zero], run_eagerly=True
    )
    row = measure(model, y, tmp_path)
    assert row["norm_before"] == pytest.approx(np.sqrt(50))
    assert row["norm_after"] == 0
