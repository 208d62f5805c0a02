import collections
import csv
import dataclasses
import json
import math
import pathlib
import shlex
import socket
import threading
import time

import numpy as np
import pytest
from keras_tuner.src.distribute import oracle_client

import graddrop_tf as gd
from trainers import config as config_lib
from trainers import errors
from trainers.experiments import registry
from trainers.runs import directory as run_directory
from trainers.runs import experiment
from trainers.search import oracles
from trainers.search import search as tuning
from trainers.search import space as search_space
from trainers.training.devices import Devices


@dataclasses.dataclass(frozen=True)
class _BowlConfig(config_lib.FitConfig):
    steps: int = 30
    steps_per_epoch: int = 10
    rate: float = 0.5


class _Bowl(experiment.Experiment):
    """Its error is (rate - 0.3)^2 + leak + 1 / steps, without training."""

    name = "bowl"
    title = "a bowl"
    defaults = _BowlConfig()
    num_losses = 2
    table = ()
    compared = "error"
    lower_is_better = True
    sample = "seed"

    def __init__(self):
        self.executed = []
        self.act = lambda run: None

    def check(self, run):
        if run.config.rate > 100:
            raise errors.UserError("the rate is above 100.")

    def execute(self, run, progress):
        self.executed.append(run)
        self.act(run)
        return {"error": _error(run)}

    def samples(self, record):
        return {"error": np.array([record.results["metrics"]["error"]])}


def _error(run):
    (graddrop,) = run.recipe.combiners
    leak = graddrop.arguments.get("leak", 0.0)
    return (run.config.rate - 0.3) ** 2 + leak + 1.0 / run.config.steps


@pytest.fixture
def bowl(monkeypatch):
    # It takes longer than all the rest, and nothing is trained here.
    monkeypatch.setattr("keras.backend.clear_session", lambda: None)
    made = _Bowl()
    monkeypatch.setitem(registry.EXPERIMENTS, "bowl", made)
    return made


def _search(directory, tuner="random", num_trials=6, method=None, **changes):
    texts = changes.pop("texts", {"rate": "uniform(0, 1)"})
    if tuner == "hyperband":
        num_trials = None
    method = method or "graddrop(leak=uniform(0, 1), k=1.0)"
    searched = registry.EXPERIMENTS["bowl"]
    values = {
        "experiment": searched,
        "recipe": gd.Recipe(),
        "seed": 0,
        "config": searched.defaults,
        "directory": directory,
    }
    return tuning.Search(
        search_space.make(searched, method, texts),
        experiment.Run(**{**values, **changes}),
        tuner,
        num_trials,
    )


def _diverge_in(*numbers):
    def act(run):
        if int(run.directory.name) in numbers:
            raise errors.DivergedError("step 1: loss became nan")

    return act


def _points(outcomes):
    """Gives number and values of each trial, in the order of the numbers."""
    return sorted((one.number, tuple(one.values.items())) for one in outcomes)


@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_all_trials_are_runs_and_the_best_comes_first(bowl, tmp_path, tuner):
    outcomes = _search(tmp_path, tuner).execute()
    assert [one.number for one in sorted(outcomes, key=lambda o: o.number)] == [
        *range(1, len(bowl.executed) + 1)
    ]
    results = [one.result for one in outcomes]
    assert results == sorted(results)
    for one in outcomes:
        assert one.result == pytest.approx(_error(one.run), rel=1e-12)
        assert one.run.directory == tmp_path / "trials" / f"{one.number:04d}"
        assert one.run in bowl.executed
        saved = json.loads((one.run.directory / "results.json").read_text())
        assert saved["config"] == dataclasses.asdict(one.run.config)
    assert len({one.values["rate"] for one in outcomes}) >= 5


def test_higher_may_be_better(bowl, tmp_path, monkeypatch):
    monkeypatch.setattr(_Bowl, "lower_is_better", False)
    results = [one.result for one in _search(tmp_path).execute()]
    assert results == sorted(results, reverse=True)


def test_the_seed_decides_the_trials(bowl, tmp_path):
    points = [
        _points(_search(tmp_path / str(i), seed=seed).execute())
        for i, seed in enumerate((0, 0, 1))
    ]
    assert points[0] == points[1] != points[2]
    assert {run.seed for run in bowl.executed} == {0, 1}


class _Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def _die():
    raise _Killed


def _kill_in_training(bowl, monkeypatch):
    def act(run):
        if len(bowl.executed) == 4:
            _die()

    monkeypatch.setattr(bowl, "act", act)


def _kill_after(name, count):
    """Dies at a call of a method of keras-tuner's."""

    def prepare(bowl, monkeypatch):
        calls = []
        original = getattr(oracles.Tuner, name)

        def method(self, *arguments):
            calls.append(name)
            if len(calls) == count:
                _die()
            return original(self, *arguments)

        monkeypatch.setattr(oracles.Tuner, name, method)

    return prepare


def _kill_in_write(count):
    """Dies while the state is written for the given time."""

    def prepare(bowl, monkeypatch):
        calls = []
        original = oracles.Stored.save

        def save(self):
            calls.append("save")
            if len(calls) == count:
                monkeypatch.setattr("os.replace", lambda *_: _die())
            original(self)

        monkeypatch.setattr(oracles.Stored, "save", save)

    return prepare


@pytest.mark.parametrize(
    ("tuner", "prepare"),
    [
        ("random", _kill_in_training),
        ("random", _kill_after("pre_create_trial", 4)),
        ("random", _kill_after("on_trial_end", 4)),
        ("random", _kill_in_write(1)),
        ("random", _kill_in_write(6)),
        ("random", _kill_in_write(7)),
        ("hyperband", _kill_in_training),
        ("hyperband", _kill_in_write(7)),
    ],
)
def test_a_killed_search_loses_nothing(bowl, tmp_path, tuner, prepare):
    whole = _search(tmp_path / "whole", tuner).execute()
    expected = len(bowl.executed)
    bowl.executed.clear()
    with pytest.MonkeyPatch.context() as patched:
        prepare(bowl, patched)
        with pytest.raises(_Killed):
            _search(tmp_path / "killed", tuner).execute()
    outcomes = _search(tmp_path / "killed", tuner).execute()
    assert _points(outcomes) == _points(whole)
    assert all(one.record.status == "finished" for one in outcomes)
    counts = collections.Counter(run.directory for run in bowl.executed)
    assert len(counts) == expected
    again = [count for count in counts.values() if count > 1]
    # A run is begun twice only where it was killed itself.
    assert again == ([2] if prepare is _kill_in_training else [])


def test_an_ended_search_runs_nothing(bowl, tmp_path):
    first = _search(tmp_path).execute()
    count = len(bowl.executed)
    assert _search(tmp_path).execute() == first
    assert len(bowl.executed) == count


def test_a_trial_without_its_results_is_run_again(bowl, tmp_path):
    bowl.act = _diverge_in(2)
    first = _search(tmp_path).execute()
    assert first[-1].number == 2
    bowl.act = lambda run: None
    (first[-1].run.directory / "results.json").unlink()
    again = _search(tmp_path).execute()
    assert [run.directory.name for run in bowl.executed[6:]] == ["0002"]
    assert {one.record.status for one in again} == {"finished"}
    results = [one.result for one in again]
    assert results == sorted(results)


def test_a_search_may_be_made_longer(bowl, tmp_path, capsys):
    first = _search(tmp_path, num_trials=2).execute()
    longer = _search(tmp_path, num_trials=10).execute()
    assert "2 trials have ended." in capsys.readouterr().out
    assert len(bowl.executed) == len(longer) == 10
    assert set(_points(first)) < set(_points(longer))


def test_failed_trials_do_not_end_a_search(bowl, tmp_path):
    failing = {1, 2, 3, 4, 6}

    bowl.act = _diverge_in(*failing)
    search = _search(tmp_path)
    outcomes = search.execute()
    assert len(outcomes) == 6
    failed = [one for one in outcomes if math.isnan(one.result)]
    assert outcomes[-len(failed) :] == failed
    assert {one.number for one in failed} == failing
    assert {one.record.status for one in failed} == {"failed"}
    table = search.write(outcomes)
    assert "failed" in table
    assert "trial 5," in table
    trials = json.loads((tmp_path / "oracle.json").read_text())["trials"]
    assert {
        int(name) + 1
        for name, trial in trials.items()
        if trial["status"] == "FAILED"
    } == failing


def test_a_result_that_is_no_number_is_a_failure(bowl, tmp_path, monkeypatch):
    nan = {"error": np.array([np.nan])}
    monkeypatch.setattr(bowl, "samples", lambda record: nan)
    search = _search(tmp_path, num_trials=5)
    outcomes = search.execute()
    assert len(outcomes) == 5
    assert search.write(outcomes).endswith("\nNo trial has finished.")


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
        _search(tmp_path).execute()
    assert caught.value is error
    assert capsys.readouterr().err == ""
    bowl.act = lambda run: None
    assert len(_search(tmp_path).execute()) == 6


def test_hyperband_halves_the_trials_and_triples_the_steps(bowl, tmp_path):
    texts = {"rate": "uniform(0, 1)", "steps": "90"}
    outcomes = _search(tmp_path, "hyperband", texts=texts).execute()
    # Nine epochs, factor 3. Brackets of 9, 3, 1 trials with 1, 3, 9 epochs;
    # of 5, 2 with 3, 9; of 3 with 9.
    counts = collections.Counter(one.values["steps"] for one in outcomes)
    assert counts == {10: 9, 30: 3 + 5, 90: 1 + 2 + 3}
    assert all(one.run.config.steps == one.values["steps"] for one in outcomes)

    def point(one):
        return one.values["rate"], one.values["graddrop.leak"]

    def of(steps):
        return [one for one in outcomes if one.values["steps"] == steps]

    best = {point(one) for one in of(10)[:3]}
    first_bracket = [one for one in of(30) if one.number <= 9 + 3]
    assert {point(one) for one in first_bracket} == best
    assert point(first_bracket[0]) in {point(one) for one in of(90)}


def test_hyperband_decides_rounds_with_failed_trials(bowl, tmp_path):
    bowl.act = _diverge_in(2, 5)
    outcomes = _search(tmp_path, "hyperband").execute()
    # Three epochs: a bracket of 3 and 1 trials, and one of 2.
    counts = collections.Counter(one.values["steps"] for one in outcomes)
    assert counts == {10: 3, 30: 1 + 2}
    by_number = {one.number: one for one in outcomes}
    assert (
        by_number[4].values["rate"]
        == min((by_number[1], by_number[3]), key=lambda one: one.result).values[
            "rate"
        ]
    )
    assert {o.number for o in outcomes if math.isnan(o.result)} == {2, 5}


def test_bayesian_search_follows_random_trials_and_resumes(bowl, tmp_path):
    def search(name, tuner, num_trials):
        return _points(
            _search(
                tmp_path / name,
                tuner,
                num_trials,
                method="graddrop(leak=0.0, k=1.0)",
            ).execute()
        )

    random = search("random", "random", 5)
    first = search("bayesian", "bayesian", 4)
    both = search("bayesian", "bayesian", 5)
    assert both[:4] == first
    assert first[:3] == random[:3]
    assert first[3] != random[3]
    assert both[4] != random[4]


def test_the_table_and_the_command_that_repeats_the_best(bowl, tmp_path):
    bowl.act = _diverge_in(2)
    search = _search(
        tmp_path / "a b",
        num_trials=4,
        seed=3,
        devices=Devices("one"),
        texts={"rate": "uniform(0, 1)", "steps": "120"},
    )
    outcomes = search.execute()
    lines = search.write(outcomes).splitlines()
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
    search = _search(
        tmp_path,
        method="graddrop(leak=0.5, k=1.0)",
        texts={"rate": "choice(0.1, 0.25, 0.4)"},
    )
    outcomes = search.execute()
    assert len(outcomes) == 3
    assert outcomes[0].values == {"rate": 0.25}
    assert "3 of 6 trials: the search space has no" in search.write(outcomes)


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
    _search(tmp_path, num_trials=1).execute()
    with pytest.raises(errors.UserError, match=message) as caught:
        _search(tmp_path, **changes).execute()
    assert "\n" not in str(caught.value)
    assert len(bowl.executed) == 1


def test_a_directory_with_other_files_is_refused(bowl, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(errors.UserError, match="holds other files"):
        _search(tmp_path).execute()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_chief_may_come_after_its_workers(bowl, tmp_path):
    (tmp_path / "trials").mkdir()
    assert len(_search(tmp_path).execute()) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("{}", "not the state of a search"),
        ('{"trials": []}', "not the state of a search"),
    ],
)
def test_a_damaged_state_is_told(bowl, tmp_path, content, message):
    _search(tmp_path, num_trials=1).execute()
    (tmp_path / "oracle.json").write_text(content)
    with pytest.raises(errors.UserError, match=message) as caught:
        _search(tmp_path).execute()
    assert "oracle.json" in str(caught.value)


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
        _search(tmp_path / "run", **changes).execute()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_hyperband_counts_its_own_trials(bowl, tmp_path):
    search = dataclasses.replace(
        _search(tmp_path / "run", "hyperband"), num_trials=5
    )
    with pytest.raises(errors.UserError, match="got 5, but hyperband"):
        search.execute()


def test_hyperband_needs_epochs(tmp_path):
    toy = registry.EXPERIMENTS["toy"]
    run = experiment.Run(toy, gd.Recipe(), 0, toy.defaults, tmp_path / "run")
    space = search_space.make(toy, "graddrop", {})
    with pytest.raises(errors.UserError, match="toy has no epochs"):
        tuning.Search(space, run, "hyperband").execute()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TUNER_ID": "chief"}, "ORACLE_IP, KERASTUNER_ORACLE_PORT: got no"),
        ({"ORACLE_IP": "a", "ORACLE_PORT": "1"}, "TUNER_ID: got nothing"),
        (
            {"TUNER_ID": "a", "ORACLE_IP": "b", "ORACLE_PORT": "http"},
            "got 'http', expected the number",
        ),
    ],
)
def test_half_an_address_is_refused(
    bowl, tmp_path, monkeypatch, variables, message
):
    for name, value in variables.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(errors.UserError, match=message):
        _search(tmp_path / "run").execute()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def address(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    return "127.0.0.1", port


def _wait_until(condition):
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _listens(address):
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def test_workers_share_the_trials_of_a_chief(
    bowl, tmp_path, monkeypatch, address
):
    results = {}

    def take_part(name):
        results[name] = _search(tmp_path).execute()

    # Each holds its first trial until the other has one too.
    both = threading.Barrier(2, timeout=60.0)
    by_worker = collections.Counter()

    def act(run):
        name = threading.current_thread().name
        by_worker[name] += 1
        if by_worker[name] == 1:
            both.wait()

    bowl.act = act
    threads = []
    for name, is_ready in (
        ("chief", lambda: _listens(address)),
        ("worker0", lambda: by_worker),
        ("worker1", lambda: len(by_worker) == 2),
    ):
        # The environment is the process's: one after the other reads it.
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        thread = threading.Thread(target=take_part, args=[name], name=name)
        thread.start()
        threads.append(thread)
        _wait_until(is_ready)
    for thread in threads:
        thread.join(timeout=60.0)
        assert not thread.is_alive()
    assert results["worker0"] is results["worker1"] is None
    outcomes = results["chief"]
    assert len(outcomes) == 6 == sum(by_worker.values())
    assert set(by_worker) == {"worker0", "worker1"}
    for one in outcomes:
        assert one.result == pytest.approx(_error(one.run), rel=1e-12)
    # One process alone finds what they did.
    for name in "TUNER_ID", "ORACLE_IP", "ORACLE_PORT":
        monkeypatch.delenv(f"KERASTUNER_{name}")
    assert _search(tmp_path).execute() == outcomes


def test_a_worker_without_a_chief_says_so(bowl, tmp_path, monkeypatch, address):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker0")
    monkeypatch.setattr(oracle_client, "TIMEOUT", 0.2)
    with pytest.raises(errors.UserError, match="chief of the search") as caught:
        _search(tmp_path).execute()
    assert ":".join(map(str, address)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chief_whose_port_is_taken_says_so(
    bowl, tmp_path, monkeypatch, address
):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    with socket.socket() as taken:
        taken.bind(address)
        taken.listen()
        with pytest.raises(errors.UserError, match="cannot listen") as caught:
            _search(tmp_path).execute()
    assert "\n" not in str(caught.value)


def test_the_command_of_a_run_names_what_is_not_the_default():
    digits = registry.EXPERIMENTS["digits"]
    run = experiment.Run(
        digits,
        gd.Recipe.parse("graddrop(leak={'a': 1})"),
        2,
        dataclasses.replace(digits.defaults, jit_compile=True),
        pathlib.Path("runs/it's"),
        devices=Devices("auto", 2),
    )
    assert shlex.split(run_directory.training_command(run)) == [
        "python",
        "-m",
        "launch.train",
        "--experiment=digits",
        "--method=graddrop(leak={'a': 1})",
        "--seed=2",
        "--config.jit_compile=True",
        "--run_dir=runs/it's",
        "--logical_cpus=2",
    ]
