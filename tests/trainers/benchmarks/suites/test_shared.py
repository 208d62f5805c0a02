"""Rows of the methods against plain Keras and plain TensorFlow."""

import pytest

from trainers.benchmarks import measuring, methods
from trainers.benchmarks.suites import shared

NAMES = [method.name for method in methods.METHODS]


def test_rows_are_against_plain_keras(monkeypatch):
    """Each step takes 1 s, GradDrop's 1.25 s."""
    names = ["plain Keras", "GradDrop in plain TensorFlow", *NAMES]
    steps = {name: lambda: None for name in names}
    monkeypatch.setattr(shared, "make_steps", lambda progress: steps)

    def take_turns(steps, rounds, **_):
        seconds = {"graddrop": 1.25}
        return {name: [seconds.get(name, 1.0)] * rounds for name in steps}

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    rows = shared.SUITE.measure(2, measuring.Progress("shared"))
    found = {(row.case, row.against): row for row in rows}
    graddrop = found["graddrop", "plain Keras"]
    assert graddrop.median == pytest.approx(0.8)
    assert graddrop.target == pytest.approx(0.95 * graddrop.allowed)
    assert found["baseline", "plain Keras"].allowed == 1.0
    reference = found["graddrop", "GradDrop in plain TensorFlow"]
    assert reference.median == pytest.approx(0.8)
    assert reference.verdict == "missed"
    for name in (*NAMES, "GradDrop in plain TensorFlow"):
        assert (name, "plain Keras") in found
        first = "first step of plain Keras"
        assert (f"first step of {name}", first) in found


def test_a_first_step_is_timed_alone():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = shared.first_steps(steps)
    assert calls == ["a", "b"]
    assert [*times] == ["first step of a", "first step of b"]
    assert all(len(seconds) == 1 for seconds in times.values())
