import collections
import json
import math

import pytest

from tests.trainers.search import bowls
from trainers import errors
from trainers.search import oracles


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
    whole = bowls.search(tmp_path / "whole", tuner).execute()
    expected = len(bowl.executed)
    bowl.executed.clear()
    with pytest.MonkeyPatch.context() as patched:
        prepare(bowl, patched)
        with pytest.raises(_Killed):
            bowls.search(tmp_path / "killed", tuner).execute()
    outcomes = bowls.search(tmp_path / "killed", tuner).execute()
    assert bowls.points(outcomes) == bowls.points(whole)
    assert all(one.record.status == "finished" for one in outcomes)
    counts = collections.Counter(run.directory for run in bowl.executed)
    assert len(counts) == expected
    again = [count for count in counts.values() if count > 1]
    # A run is begun twice only where it was killed itself.
    assert again == ([2] if prepare is _kill_in_training else [])


def test_an_ended_search_runs_nothing(bowl, tmp_path):
    first = bowls.search(tmp_path).execute()
    count = len(bowl.executed)
    assert bowls.search(tmp_path).execute() == first
    assert len(bowl.executed) == count


def test_failed_trials_do_not_end_a_search(bowl, tmp_path):
    failing = {1, 2, 3, 4, 6}

    bowl.act = bowls.diverge_in(*failing)
    search = bowls.search(tmp_path)
    outcomes = search.execute()
    assert len(outcomes) == 6
    failed = [one for one in outcomes if math.isnan(one.result)]
    assert outcomes[-len(failed) :] == failed
    assert {one.number for one in failed} == failing
    assert {one.record.status for one in failed} == {"failed"}
    table = search.report(outcomes)
    assert "failed" in table
    assert "trial 5," in table
    trials = json.loads((tmp_path / "oracle.json").read_text())["trials"]
    assert {
        int(name) + 1
        for name, trial in trials.items()
        if trial["status"] == "FAILED"
    } == failing


def test_hyperband_halves_the_trials_and_triples_the_steps(bowl, tmp_path):
    texts = {"rate": "uniform(0, 1)", "steps": "90"}
    outcomes = bowls.search(tmp_path, "hyperband", texts=texts).execute()
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
    bowl.act = bowls.diverge_in(2, 5)
    outcomes = bowls.search(tmp_path, "hyperband").execute()
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
        return bowls.points(
            bowls.search(
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
    bowls.search(tmp_path, num_trials=1).execute()
    (tmp_path / "oracle.json").write_text(content)
    with pytest.raises(errors.UserError, match=message) as caught:
        bowls.search(tmp_path).execute()
    assert "oracle.json" in str(caught.value)
