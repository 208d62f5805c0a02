"""Counts and statistics of the benchmark, and how it answers mistakes."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from data import attributes
from launch import benchmark as benchmark_command
from launch import command
from trainers import benchmark, celeba, errors


def test_ratios_are_those_of_each_round():
    times = {"a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 2.0]}
    speed = benchmark.speed_row(times, "b", "a", target=0.9)
    np.testing.assert_allclose(
        [speed.median, speed.low, speed.high], [1.0, 0.6, 1.8]
    )
    assert speed.verdict == "met"
    duration = benchmark.time_row(times, "b", "a", target=0.9)
    assert (duration.median, duration.verdict) == (1.0, "missed")
    np.testing.assert_allclose([duration.low, duration.high], [0.6, 1.8])
    assert benchmark.time_row(times, "b", "a").verdict == ""


def test_cases_take_turns_and_each_round_starts_with_another():
    order, seconds = [], iter(range(100))
    done = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    times = benchmark.take_turns(
        steps,
        4,
        warm_up=2,
        clock=lambda: float(next(seconds)),
        progress=done.append,
    )
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert times == {name: [1.0] * 4 for name in "abc"}
    assert done == [1, 2, 3, 4]


def test_forward_counts_by_hand():
    inputs = keras.Input((6, 4, 3))
    hidden = keras.layers.Conv2D(5, 3, padding="same")(inputs)
    hidden = keras.layers.MaxPooling2D()(hidden)
    inner_input = keras.Input((3, 2, 5))
    inner = keras.layers.Dense(7)(keras.layers.Flatten()(inner_input))
    outputs = keras.Model(inner_input, inner)(hidden)
    model = keras.Model(inputs, outputs)
    convolution = (6 * 4) * (3 * 3 * 3 * 5)
    dense = (3 * 2 * 5) * 7
    assert benchmark.forward_multiply_adds(model) == convolution + dense


def test_step_counts_by_hand():
    assert benchmark.step_multiply_adds(100, 10) == 330
    assert benchmark.step_multiply_adds(100, 10, 4) == 360
    assert benchmark.step_multiply_adds(100, 10, 4, combining=5) == 365


def test_counts_of_the_celeba_network_by_hand():
    trunk, heads = celeba.make_network((16, 16, 3), 6, channels=2)
    assert trunk.output.shape == (None, 2, 2, 16)
    trunk_count = 9 * (
        256 * 3 * 2
        + 64 * (2 * 4 + 4 * 4)
        + 16 * (4 * 8 + 8 * 8)
        + 4 * (8 * 16 + 16 * 16)
    )
    heads_count = 64 * 16 + 16 * 16 + 16 * 6
    once = 3 * (trunk_count + heads_count)
    baseline, bare = benchmark.METHODS[:2]
    count = benchmark.celeba_multiply_adds
    assert count(baseline, trunk, heads) == once
    assert count(bare, trunk, heads) == once + 5 * heads_count + 6 * 64


def test_shapes_are_those_of_the_paper():
    trunk, heads = benchmark.celeba_network()
    assert trunk.output.shape == (None, 8, 8, 512)
    assert heads.output.shape == (None, 40)


@pytest.fixture
def eager():
    """Spares the tests the tracing."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("method", benchmark.METHODS, ids=lambda m: m.name)
def test_every_method_takes_a_step(method, eager):
    trunk, heads = celeba.make_network((8, 8, 3), 5, channels=1)
    before = heads.layers[-1].bias.numpy().copy()
    benchmark.celeba_step(method, trunk, heads)()
    assert np.isfinite(heads.layers[-1].bias.numpy()).all()
    assert (heads.layers[-1].bias.numpy() != before).any()


def test_the_bare_jacobian_trains_like_the_baseline(eager):
    weights = []
    for method in benchmark.METHODS[:2]:
        keras.utils.set_random_seed(0)
        trunk, heads = celeba.make_network((8, 8, 3), 5, channels=1)
        benchmark.celeba_step(method, trunk, heads)()
        weights.append(trunk.get_weights()[0])
    np.testing.assert_allclose(*weights, atol=1e-6)


def test_layer_network_takes_branches():
    trunk, heads = benchmark.task_network(2, (2, 2, 2, 2))
    branches = gd.GradDrop(num_losses=2)(trunk.output)
    outputs = [h(b) for h, b in zip(heads, branches, strict=True)]
    assert [o.shape for o in outputs] == [(None, 10)] * 2


@pytest.fixture
def one_suite(monkeypatch):
    """Has one suite, which measures nothing."""
    row = benchmark.Row("b", "a", "speed", 0.9, 0.8, 1.0, 0.95, 0.93, 0.45)
    suite = benchmark.Suite("two cases", lambda rounds, progress: [row])
    monkeypatch.setattr(benchmark, "SUITES", {"quick": suite})


def test_table_and_file_hold_the_figures(one_suite, tmp_path, capsys):
    path = tmp_path / "new" / "out.json"
    arguments = ["--suite=quick", f"--json={path}"]
    assert command.guarded(benchmark_command.main, arguments) == 0
    printed = capsys.readouterr().out
    for text in ("two cases", "0.900", "0.800 - 1.000", ">= 0.93", "missed"):
        assert text in printed
    saved = json.loads(path.read_text())
    assert saved["pairs"] == 40
    assert saved["cpu_count"] >= 1
    assert {"keras", "python", "tensorflow"} <= set(saved["versions"])
    (row,) = saved["suites"]["quick"]["rows"]
    assert (row["median"], row["verdict"]) == (0.9, "missed")
    assert [p.name for p in path.parent.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--suite=layers"], "layer, shared, memory, graddrop"),
        (["--suite="], "layer, shared, memory, graddrop"),
        (["--pairs=0"], "pairs"),
        (["--pairs=many"], "pairs"),
        (["layer"], "expected flags only"),
        (["--config.steps=1"], "expected flags only"),
        (["--json=."], "--json"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, expected, capsys):
    assert command.guarded(benchmark_command.main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert expected in captured.err


def test_suites_are_named_once():
    assert benchmark.select("graddrop, layer,graddrop") == ["graddrop", "layer"]
    with pytest.raises(errors.UserError, match="'speed'"):
        benchmark.select("layer,speed")


def test_help_names_the_defaults(capsys):
    assert command.guarded(benchmark_command.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert "layer,shared,memory,graddrop" in printed
    assert "(default: '40')" in printed


def test_reading_is_set_against_training(eager, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "_CELEBA_SHAPE", attributes.Shape(8, 8))
    monkeypatch.setattr(benchmark, "_IMAGES_READ", 16)
    make = functools.partial(celeba.make_network, channels=1)
    monkeypatch.setattr(celeba, "make_network", make)
    times = {"reading": [2.0, 4.0], "training": [4.0, 8.0]}
    taken = []

    def take_turns(steps, rounds, progress):
        taken.extend(step() for step in steps.values())
        return times

    monkeypatch.setattr(benchmark, "take_turns", take_turns)
    rows = benchmark.SUITES["input"].measure(2, benchmark._Progress("input"))
    assert len(taken) == 2
    # 16 images in 2 and 4 seconds, 8 images in 4 and 8 seconds.
    assert [row.median for row in rows] == [6.0, 1.5, 4.0]
    assert rows[-1].verdict == "met"
