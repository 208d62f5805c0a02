import csv
import dataclasses
import json
import math
import shlex

import numpy as np
import pytest

import graddrop_tf as gd
from tests.trainers.search import bowls
from trainers import errors
from trainers.experiments import registry
from trainers.runs import experiment
from trainers.search import search as tuning
from trainers.search import space as search_space
from trainers.training.devices import Devices


@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_all_trials_are_runs_and_the_best_comes_first(bowl, tmp_path, tuner):
    outcomes = bowls.search(tmp_path, tuner).execute()
    assert [one.number for one in sorted(outcomes, key=lambda o: o.number)] == [
        *range(1, len(bowl.executed) + 1)
    ]
    results = [one.result for one in outcomes]
    assert results == sorted(results)
    for one in outcomes:
        assert one.result == pytest.approx(bowls.error(one.run), rel=1e-12)
        assert one.run.directory == tmp_path / "trials" / f"{one.number:04d}"
        assert one.run in bowl.executed
        saved = json.loads((one.run.directory / "results.json").read_text())
        assert saved["config"] == dataclasses.asdict(one.run.config)
    assert len({one.values["rate"] for one in outcomes}) >= 5


def test_higher_may_be_better(bowl, tmp_path, monkeypatch):
    monkeypatch.setattr(bowls.Bowl, "lower_is_better", False)
    results = [one.result for one in bowls.search(tmp_path).execute()]
    assert results == sorted(results, reverse=True)


def test_the_seed_decides_the_trials(bowl, tmp_path):
    points = [
        bowls.points(bowls.search(tmp_path / str(i), seed=seed).execute())
        for i, seed in enumerate((0, 0, 1))
    ]
    assert points[0] == points[1] != points[2]
    assert {run.seed for run in bowl.executed} == {0, 1}


def test_a_trial_without_its_results_is_run_again(bowl, tmp_path):
    bowl.act = bowls.diverge_in(2)
    first = bowls.search(tmp_path).execute()
    assert first[-1].number == 2
    bowl.act = lambda run: None
    (first[-1].run.directory / "results.json").unlink()
    again = bowls.search(tmp_path).execute()
    assert [run.directory.name for run in bowl.executed[6:]] == ["0002"]
    assert {one.record.status for one in again} == {"finished"}
    results = [one.result for one in again]
    assert results == sorted(results)


def test_a_search_may_be_made_longer(bowl, tmp_path, capsys):
    first = bowls.search(tmp_path, num_trials=2).execute()
    longer = bowls.search(tmp_path, num_trials=10).execute()
    assert "2 trials have ended." in capsys.readouterr().out
    assert len(bowl.executed) == len(longer) == 10
    assert set(bowls.points(first)) < set(bowls.points(longer))


def test_a_result_that_is_no_number_is_a_failure(bowl, tmp_path, monkeypatch):
    nan = {"error": np.array([np.nan])}
    monkeypatch.setattr(bowl, "samples", lambda record: nan)
    search = bowls.search(tmp_path, num_trials=5)
    outcomes = search.execute()
    assert len(outcomes) == 5
    assert search.report(outcomes).endswith("\nNo trial has finished.")


@pytest.mark.parametrize(
    "error",
    [
        errors.UserError("no"),
        errors.InterruptedRunError("told to stop"),
        RuntimeError("a fault of the program"),
    ],
)
def test_other_errors_stop_the_search_as_they_are(
    bowl, tmp_path, error, capsys
):
    def act(run):
        if len(bowl.executed) == 3:
            raise error

    bowl.act = act
    with pytest.raises(type(error)) as caught:
        bowls.search(tmp_path).execute()
    assert caught.value is error
    assert capsys.readouterr().err == ""
    bowl.act = lambda run: None
    assert len(bowls.search(tmp_path).execute()) == 6


def test_the_table_and_the_command_that_repeats_the_best(bowl, tmp_path):
    bowl.act = bowls.diverge_in(2)
    search = bowls.search(
        tmp_path / "a b",
        num_trials=4,
        seed=3,
        devices=Devices("one"),
        texts={"rate": "uniform(0, 1)", "steps": "120"},
    )
    outcomes = search.execute()
    lines = search.report(outcomes).splitlines()
    names = ["trial", "status", "error", "graddrop.leak", "rate", "seconds"]
    assert lines[0].split() == names
    assert len(lines) == 2 + 4 + 3
    for one, line in zip(outcomes, lines[2:]):
        cells = line.split()
        assert cells[0] == str(one.number)
        assert cells[1] == one.record.status
        assert cells[2] == f"{one.result:.4g}"
        assert cells[3:5] == [
            f"{one.values['graddrop.leak']:.4g}",
            f"{one.values['rate']:.4g}",
        ]
    assert {len(line) for line in lines[:6]} == {len(lines[0])}
    best = outcomes[0]
    assert lines[-2] == (
        f"Best: trial {best.number}, error {best.result:.4g}. This repeats it:"
    )
    assert shlex.split(lines[-1]) == [
        "python",
        "-m",
        "launch.train",
        "--experiment=bowl",
        f"--method=graddrop(leak={best.values['graddrop.leak']}, k=1.0)",
        "--seed=3",
        "--config.steps=120",
        f"--config.rate={best.values['rate']}",
        f"--run_dir={tmp_path / 'a b' / 'best'}",
        "--strategy=one",
    ]
    with open(tmp_path / "a b" / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [str(o.number) for o in outcomes]
    assert float(rows[0]["error"]) == best.result
    assert math.isnan(float(rows[-1]["error"]))
    assert list(rows[0]) == names


def test_an_exhausted_space_is_said(bowl, tmp_path):
    search = bowls.search(
        tmp_path,
        method="graddrop(leak=0.5, k=1.0)",
        texts={"rate": "choice(0.1, 0.25, 0.4)"},
    )
    outcomes = search.execute()
    assert len(outcomes) == 3
    assert outcomes[0].values == {"rate": 0.25}
    assert "3 of 6 trials: the search space has no" in search.report(outcomes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed: 0 / 1"),
        ({"tuner": "bayesian"}, "tuner: random / bayesian"),
        ({"method": "graddrop(k=1)"}, "method: graddrop"),
        (
            {"texts": {"rate": "uniform(0, 2)"}},
            r"config.rate: uniform\(0, 1\) / uniform\(0, 2\)",
        ),
        (
            {"texts": {"rate": "uniform(0, 1)", "steps": "60"}},
            "config.steps: 30 / 60",
        ),
    ],
)
def test_another_search_in_the_directory_is_refused(
    bowl, tmp_path, changes, message
):
    bowls.search(tmp_path, num_trials=1).execute()
    with pytest.raises(errors.UserError, match=message) as caught:
        bowls.search(tmp_path, **changes).execute()
    assert "\n" not in str(caught.value)
    assert len(bowl.executed) == 1


def test_a_directory_with_other_files_is_refused(bowl, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(errors.UserError, match="holds other files"):
        bowls.search(tmp_path).execute()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": {"rate": "uniform(1, 200)"}}, "above 100"),
        ({"texts": {"rate": "choice(1, 2, 200, 3)"}}, "above 100"),
        ({"texts": {"rate": "0.5"}, "method": "mgda"}, "nothing to search"),
        ({"devices": Devices("multi_worker")}, "got multi_worker.*TUNER_ID"),
        ({"data_dir": "x"}, "--data_dir"),
        (
            {"tuner": "hyperband", "texts": {"steps": "choice(60, 90)"}},
            "chooses the steps",
        ),
        (
            {
                "tuner": "hyperband",
                "texts": {"steps_per_epoch": "choice(10, 30)"},
            },
            "chooses the steps",
        ),
        (
            {"tuner": "hyperband", "texts": {"steps_per_epoch": "15"}},
            "2 epochs.*at least 3",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(
    bowl, tmp_path, changes, message
):
    with pytest.raises(errors.UserError, match=message) as caught:
        bowls.search(tmp_path / "run", **changes).execute()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_hyperband_counts_its_own_trials(bowl, tmp_path):
    search = dataclasses.replace(
        bowls.search(tmp_path / "run", "hyperband"), num_trials=5
    )
    with pytest.raises(errors.UserError, match="got 5, but hyperband"):
        search.execute()


def test_hyperband_needs_epochs(tmp_path):
    toy = registry.EXPERIMENTS["toy"]
    run = experiment.Run(toy, gd.Recipe(), 0, toy.defaults, tmp_path / "run")
    space = search_space.make(toy, "graddrop", {})
    with pytest.raises(errors.UserError, match="toy has no epochs"):
        tuning.Search(space, run, "hyperband").execute()
