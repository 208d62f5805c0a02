import csv
import json
import shlex

import pytest
import tensorflow as tf

from launch import command, train, tune
from trainers.experiments import digits
from trainers.search import search, space

_SHORT_DIGITS = [
    "--experiment=digits",
    "--config.steps=2",
    "--config.steps_per_epoch=1",
    "--config.batch_size=8",
    "--config.training_pairs=32",
    "--config.test_pairs=16",
]

pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config")


@pytest.fixture
def eager():
    """Leaves out tracing, which takes most of the time of such short runs."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class _Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def test_a_killed_search_ends_with_the_command_that_repeats_the_best(
    tmp_path, capsys, monkeypatch, eager
):
    arguments = [
        *_SHORT_DIGITS,
        "--method=baseline",
        "--num_trials=8",
        f"--run_dir={tmp_path}",
    ]
    original = digits.Digits.kept_row
    trained = []

    def kept_row(self, rows):
        trained.append(rows)
        if len(trained) == 4:
            raise _Killed
        return original(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(digits.Digits, "kept_row", kept_row)
        with pytest.raises(_Killed):
            command.guarded(tune.main, arguments)
    assert not (tmp_path / "trials" / "0004" / "results.json").exists()
    capsys.readouterr()
    assert command.guarded(tune.main, arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "Searching learning_rate in [0.001, 0.03], in the logarithm "
        "(declared, as none are given)",
        "3 trials have ended.",
    ]
    assert "    resuming after step 2 of 2." in lines
    assert [line[:5] for line in lines if line.endswith(" ...")] == [
        f"[{number}/8]" for number in range(4, 9)
    ]
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["trial"]) for row in rows) == [*range(1, 9)]
    assert {row["status"] for row in rows} == {"finished"}
    errors = [float(row["error"]) for row in rows]
    assert errors == sorted(errors)
    assert len({row["learning_rate"] for row in rows}) == 8

    python, module, name, *flags = shlex.split(lines[-1])
    assert (python, module, name) == ("python", "-m", "launch.train")
    assert command.guarded(train.main, flags) == 0
    found = [
        json.loads((folder / "results.json").read_text())
        for folder in (
            tmp_path / "best",
            tmp_path / "trials" / f"{int(rows[0]['trial']):04d}",
        )
    ]
    for part in "config", "seed", "method", "metrics":
        assert found[0][part] == found[1][part]
    assert found[0]["metrics"]["error"] == errors[0]


def test_methods_are_searched_and_diverged_trials_fail(tmp_path, capsys, eager):
    arguments = [
        "--experiment=toy",
        "--method=graddrop(k=0.5, leak=uniform(0, 1))",
        "--config.num_starts=2",
        "--config.steps=2",
        "--config.halve_every=2",
        "--config.jit_compile=false",
        "--num_trials=2",
        f"--run_dir={tmp_path}",
    ]
    diverging = [*arguments, "--config.learning_rate=choice(0.1, 3e38)"]
    assert command.guarded(tune.main, diverging) == 0
    lines = capsys.readouterr().out.splitlines()
    names = ["trial", "status", "final_loss", "graddrop.leak", "learning_rate"]
    heading = next(line for line in lines if "status" in line)
    assert heading.split() == [*names, "seconds"]
    assert "graddrop(leak=" in lines[-1]
    assert "k=0.5)" in lines[-1]
    with open(tmp_path / "trials.csv", newline="") as file:
        status = {r["learning_rate"]: r["status"] for r in csv.DictReader(file)}
    assert status == {"0.1": "finished", "3e+38": "failed"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--experiment, --method, --run_dir", "--help"]),
        (["stray"], ["'stray'", "flags only"]),
        (["--experiment=tony"], ["'tony'", "digits"]),
        (["--method=sgd"], ["'sgd'", "graddrop"]),
        (["--method=graddrop(k=unifrom(0, 1))"], ["unifrom", "uniform(LOW"]),
        (["--method=graddrop(leak=uniform(0, 2))"], ["leak", "[0, 1]"]),
        (["--config.learning_rate=uniform(2, 1)"], ["LOW < HIGH"]),
        (["--config.stepz=uniform(0, 1)"], ["stepz", "steps"]),
        (["--config.steps=integer(100, 250)"], ["multiple of"]),
        (
            ["--method=baseline", "--config.learning_rate=1"],
            ["nothing to search", "log_uniform"],
        ),
        (["--tuner=grid"], ["grid", "random|bayesian|hyperband"]),
        (["--tuner=hyperband", "--num_trials=4"], ["--num_trials", "4"]),
        (["--tuner=hyperband", "--config.steps=200"], ["2 epochs"]),
        (["--num_trials=0"], ["num_trials", "0"]),
        (["--seed=-1"], ["seed", "-1"]),
        (["--strategy=two"], ["'two'", "mirrored"]),
        (["--strategy=multi_worker"], ["multi_worker", "TUNER_ID"]),
        (["--logical_cpus=64"], ["64", "new process"]),
        (["--data_dir=x"], ["--data_dir"]),
    ],
)
def test_mistakes_get_one_line(
    arguments, parts, tmp_path, refused, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    complete = ["--experiment=digits", "--method=graddrop", "--run_dir=run"]
    if arguments:
        arguments = [*complete, *arguments]
    refused(tune.main, arguments, parts)
    assert not list(tmp_path.iterdir())


def test_a_search_without_a_result_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search.Search, "execute", lambda self: [])
    arguments = [
        *_SHORT_DIGITS,
        "--method=graddrop",
        f"--run_dir={tmp_path}",
    ]
    assert command.guarded(tune.main, arguments) == 1
    assert capsys.readouterr().out.endswith("\nNo trial has finished.\n")


def test_help(capsys):
    assert command.guarded(tune.main, ["--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(tune.__doc__.splitlines()[0])
    printed = " ".join(printed.split())
    assert "(default: 'random')" in printed
    assert f"Number of trials, {search.NUM_TRIALS} by default." in printed
    declared = digits.Digits.search_space["learning_rate"]
    assert f"digits: learning_rate={declared}" in printed
    for name in space.method_ranges():
        assert name in printed
