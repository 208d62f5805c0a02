"""The worked examples of CONTRIBUTING.md work."""

import pathlib
import re

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from launch import command, compare
from tests.graddrop_tf.methods import laws, test_every_method, test_values
from tests.graddrop_tf.methods.test_values import Combined, Weighted
from trainers.experiments.registry import EXPERIMENTS

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def add(section, registry, monkeypatch):
    """Carries out a section: defines the file, adds its line to the dict."""
    (body,) = re.findall(rf"## {section}\n(.*?)\n## ", TEXT, re.DOTALL)
    source, line, *rows = re.findall(
        r"```python \w+\n(.*?)```", body, re.DOTALL
    )
    names = {"__name__": "contributing", "METHODS": {}, "EXPERIMENTS": {}}
    exec(compile(source, section, "exec"), names)
    exec(compile(line, section, "exec"), names)
    added = names["METHODS"] | names["EXPERIMENTS"]
    for name, thing in added.items():
        monkeypatch.setitem(registry, name, thing)
    (name,) = added
    return name, [*source.splitlines(), *line.splitlines()], rows


def row_of(text):
    """Makes a row of the values table."""
    return eval(text, {"Combined": Combined, "Weighted": Weighted})


def train_one_step(recipe):
    """Trains y = (x, 3 x) with SGD; returns the weights of the trunk."""
    keras.utils.set_random_seed(0)
    inputs, shared = keras.Input([2]), keras.Input([2])
    trunk = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    heads = keras.Model(shared, keras.layers.Dense(2)(shared))
    model = gd.MultiLossModel(trunk, heads, recipe=gd.Recipe.parse(recipe))
    model.compile(keras.optimizers.SGD(1.0), loss=gd.VectorLoss(squared_errors))
    before = [w.numpy() for w in trunk.weights]
    x = np.ones([4, 2], np.float32)
    model.fit(x, x * [1.0, 3.0], batch_size=4, verbose=0)
    after = [w.numpy() for w in trunk.weights]
    return [b - a for b, a in zip(before, after)], model


@keras.saving.register_keras_serializable("contributing_tests")
def squared_errors(y_true, y_pred):
    return (y_true - y_pred) ** 2


def variable(model, name):
    """Reads a variable of the example's state."""
    (found,) = [v for v in model.variables if v.name == name]
    return found.numpy()


def assert_saved(model, name, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(variable(loaded, name), variable(model, name))


def test_add_a_method(monkeypatch):
    name, lines, (row,) = add("Add a method", METHODS, monkeypatch)
    # With the import, the line of METHODS and the row.
    assert len(lines) + 2 <= 25
    test_values.test_combined_gradients(row_of(row), "float32")
    for law in laws.COMBINER_LAWS:
        law(test_every_method.build(name))
    halves, _ = train_one_step(name)
    sums, _ = train_one_step("baseline")
    for half, total in zip(halves, sums):
        np.testing.assert_allclose(2 * half, total, rtol=1e-5)


def test_add_a_method_that_remembers(monkeypatch, tmp_path):
    section = "Add a method that remembers"
    name, _, (row,) = add(section, METHODS, monkeypatch)
    test_values.test_combined_gradients(row_of(row), "float32")
    for law in laws.COMBINER_LAWS:
        law(test_every_method.build(name))
    _, model = train_one_step(name)
    shares = variable(model, "shares")
    # The second loss starts with the larger gradient.
    assert shares[0] < 0.5 < shares[1]
    assert_saved(model, "shares", tmp_path)


def test_add_a_weighting(monkeypatch):
    name, _, (row,) = add("Add a weighting", METHODS, monkeypatch)
    test_values.test_weights(row_of(row))
    for law in laws.WEIGHTING_LAWS:
        law(test_every_method.build(name))
    train_one_step(name)


def test_add_a_weighting_that_sees_gradients(monkeypatch, tmp_path):
    section = "Add a weighting that sees gradients"
    name, _, (row,) = add(section, METHODS, monkeypatch)
    test_values.test_weights(row_of(row))
    for law in laws.WEIGHTING_LAWS:
        law(test_every_method.build(name))
    _, model = train_one_step(name)
    weights = variable(model, "weights")
    # The second loss starts with the larger gradient.
    assert weights[1] < 1.0 < weights[0]
    assert weights.sum() == pytest.approx(2.0)
    assert_saved(model, "weights", tmp_path)


def test_add_an_experiment(monkeypatch, tmp_path, capsys):
    name, _, _ = add("Add an experiment", EXPERIMENTS, monkeypatch)
    arguments = [
        f"--experiment={name}",
        "--methods=baseline,graddrop",
        "--seeds=0,1",
        f"--run_dir={tmp_path}",
        "--config.steps=20",
        "--config.steps_per_epoch=10",
    ]
    assert command.guarded(compare.main, arguments) == 0
    printed = capsys.readouterr().out
    assert "two lines through the same points" in printed
    assert (tmp_path / "plots" / "lines_loss.png").exists()
