import csv
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

import graddrop_tf as gd
from tests.graddrop_tf.models import batch
from tests.graddrop_tf.monitor.linear import (
    BY_HAND,
    QUANTITIES,
    X,
    Y,
    fit,
    in_turn,
    linear,
    product,
    read,
)


def everything(form, eager):
    """A model with much that has a state: masks, moving averages, seeds."""
    inputs = keras.Input([6])
    hidden = keras.layers.Dense(5, name="dense_in")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.2)(hidden)

    def head(name, branch):
        return keras.layers.Dense(
            1, activity_regularizer=keras.regularizers.L2(0.01), name=name
        )(branch)

    if form == "layer":
        branches = gd.GradDrop(num_losses=2)(hidden)
        model = keras.Model(
            inputs, [head(n, b) for n, b in zip("ab", branches)]
        )
    elif form == "plain":
        model = keras.Model(inputs, [head(n, hidden) for n in "ab"])
    else:
        shared = keras.Input([5])
        model = gd.MultiLossModel(
            keras.Model(inputs, hidden),
            keras.Model(shared, [head(n, shared) for n in "ab"]),
            gd.Recipe.parse("gradnorm+graddrop"),
        )
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        "mse",
        run_eagerly=eager,
        jit_compile=False,
    )
    return model


def three_batches():
    x, y = batch(12)
    data = tf.data.Dataset.from_tensor_slices((x, (y[:, :1], y[:, 1:2])))
    return data.batch(4)


@pytest.mark.parametrize(
    ("form", "eager"), [("layer", False), ("model", True), ("plain", False)]
)
def test_measuring_changes_nothing(form, eager, tmp_path):
    """Weights, moving averages, seeds, steps, Python's random numbers."""
    states = []
    for path in (None, tmp_path / "gradients.csv"):
        keras.utils.set_random_seed(5)
        callbacks = []
        if path is not None:
            held = next(iter(three_batches()))
            at = "dense_in" if form == "plain" else None
            callbacks = [
                gd.GradientMonitor(held, every_steps=1, path=path, at=at)
            ]
        model = everything(form, eager)
        data = three_batches().shuffle(2, seed=3)
        model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
        variables = [*model.variables, *model.optimizer.variables]
        states.append([np.asarray(v) for v in variables] + [random.random()])
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(read(tmp_path / "gradients.csv")) == 3


def test_making_a_monitor_shifts_no_layer_names():
    first = int(gd.GradDrop().name.rpartition("_")[2])
    gd.GradientMonitor((X, Y))
    assert gd.GradDrop().name == f"grad_drop_{first + 1}"


def test_later_callbacks_and_tensorboard_see_the_samples(tmp_path):
    model, y = linear("vector", "baseline")
    monitor = gd.GradientMonitor((X, y), every_steps=2, log_dir=tmp_path)
    later = keras.callbacks.CSVLogger(tmp_path / "metrics.csv")
    fit(model, y, steps=4, callbacks=[monitor, later])
    with open(tmp_path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    for name in QUANTITIES:
        value = float(row[f"gradients/{name}"])
        assert value == pytest.approx(BY_HAND[name])
    (path,) = tmp_path.glob("events*")
    written = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = event_pb2.Event.FromString(record.numpy())
        for value in event.summary.value:
            number = float(tf.make_ndarray(value.tensor))
            written.setdefault(value.tag, {})[event.step] = number
    assert written == {
        f"gradients/{name}": {
            step: pytest.approx(BY_HAND[name]) for step in (2, 4)
        }
        for name in QUANTITIES
    }


def test_a_model_that_is_compiled_again_starts_again():
    model, y = linear("heads", "baseline", run_eagerly=False)
    monitor = gd.GradientMonitor(in_turn(3), every_steps=1)
    norm = BY_HAND["norm_before"]
    first = fit(model, y, steps=2, callbacks=[monitor])
    assert first["gradients/norm_before"] == pytest.approx([norm * (1 + 2) / 2])
    model.compile(
        keras.optimizers.SGD(0.0),
        [product] * 2,
        loss_weights=[5.0, 5.0],
        run_eagerly=True,
    )
    second = fit(model, y, callbacks=[monitor])
    assert second["gradients/norm_before"] == pytest.approx([5 * norm])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": X}, "`data` takes a batch"),
        ({"data": (X,)}, "`data` takes a batch"),
        ({"data": tf.data.Dataset.from_tensors(X)}, "`data` takes a batch"),
        ({"every_steps": 0}, "`every_steps` must be a positive integer"),
        ({"graddrop": "graddrop"}, "`graddrop` takes a gd.GradDrop"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        gd.GradientMonitor(**{"data": (X, Y), **arguments})
