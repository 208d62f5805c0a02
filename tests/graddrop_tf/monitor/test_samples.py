import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.monitor.samples import Table
from tests.graddrop_tf.models import batch
from tests.graddrop_tf.monitor.linear import (
    QUANTITIES,
    X,
    fit,
    in_turn,
    linear,
    norms,
    read,
)


def test_batches_are_taken_in_turn_and_the_end_of_an_epoch_is_sampled(
    tmp_path,
):
    model, _ = linear("heads", "baseline")
    path = tmp_path / "new" / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(3), every_steps=2, path=path)
    options = {"callbacks": [callback], "verbose": 0, "shuffle": False}
    history = model.fit(in_turn(5), epochs=2, **options).history
    model.fit(in_turn(1), **options)
    expected = [(2, 1), (4, 2), (6, 3), (8, 1), (10, 2), (11, 3)]
    assert norms(path) == expected
    for name in QUANTITIES:
        rows = [row[name] for row in read(path)]
        assert history[f"gradients/{name}"] == pytest.approx(
            [np.mean(rows[:2]), np.mean(rows[2:5])]
        )


def test_several_steps_in_one_execution(tmp_path):
    """A sample is due after each; the batch's number follows the step."""
    model, _ = linear(
        "heads", "baseline", steps_per_execution=3, run_eagerly=False
    )
    path = tmp_path / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(8), every_steps=1, path=path)
    model.fit(in_turn(8), callbacks=[callback], verbose=0, shuffle=False)
    assert norms(path) == [(3, 3), (6, 6), (8, 8)]


def test_accumulation_counts_every_batch(tmp_path):
    model, _ = linear(
        "heads",
        "baseline",
        optimizer=keras.optimizers.SGD(0.0, gradient_accumulation_steps=2),
    )
    path = tmp_path / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(4), every_steps=2, path=path)
    model.fit(in_turn(8), callbacks=[callback], verbose=0, shuffle=False)
    assert norms(path) == [(2, 1), (4, 2), (6, 3), (8, 4)]


def test_a_killed_and_resumed_run_ends_with_the_same_file(tmp_path):
    """Rows after the restored step and the start of a row are dropped."""
    x, y = batch(12)
    data = tf.data.Dataset.from_tensor_slices((x, (y[:, :1], y[:, 1:2])))

    def train(model, path, epochs, first=0):
        monitor = gd.GradientMonitor(data.batch(3), every_steps=1, path=path)
        model.fit(
            data.batch(6),
            initial_epoch=first,
            epochs=epochs,
            verbose=0,
            shuffle=False,
            callbacks=[monitor],
        )

    def build():
        keras.utils.set_random_seed(7)
        inputs = keras.Input([6])
        features = keras.layers.Dense(4)(inputs)
        outputs = [keras.layers.Dense(1)(f) for f in gd.GradDrop(2)(features)]
        model = keras.Model(inputs, outputs)
        model.compile(
            keras.optimizers.SGD(0.1), ["mse", "mse"], run_eagerly=True
        )
        return model

    straight, killed = tmp_path / "straight.csv", tmp_path / "killed.csv"
    train(build(), straight, epochs=3)
    model = build()
    train(model, killed, epochs=1)
    model.save(tmp_path / "model.keras")
    train(model, killed, epochs=2, first=1)
    with open(killed, "a") as file:
        file.write("1")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    resumed.run_eagerly = True
    train(resumed, killed, epochs=3, first=1)
    assert [row["step"] for row in read(straight)] == [1, 2, 3, 4, 5, 6]
    assert killed.read_text() == straight.read_text()
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ("", ""),
        ("step,lo", ""),
        ("step,loss\n", ""),
        ("step,loss\n8,0.5\n9,0.2", "8,0.5\n"),
        ("step,loss\n8,0.5\n9,0.2\n10,0.1\n11,0.1\n", "8,0.5\n9,0.2\n"),
    ],
)
def test_a_table_keeps_the_rows_before_a_step(found, kept, tmp_path):
    path = tmp_path / "gradients.csv"
    path.write_text(found)
    Table(path, ["loss"], step=10).append(10, [0.25])
    assert path.read_text() == f"step,loss\n{kept}10,0.25\n"


def test_an_empty_dataset_is_refused():
    model, y = linear("heads", "baseline")
    empty = in_turn(1).take(0)
    with pytest.raises(ValueError, match="at least one batch"):
        fit(model, y, callbacks=[gd.GradientMonitor(empty)])


def test_a_file_with_other_columns_is_refused(tmp_path):
    model, y = linear("heads", "baseline")
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="has other columns"):
        fit(model, y, callbacks=[gd.GradientMonitor((X, y), path=path)])
    assert path.read_text() == "step,loss\n1,0.5\n"
