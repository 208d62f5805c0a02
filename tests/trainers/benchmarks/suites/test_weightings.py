"""Rows of weightings that see losses alone."""

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from trainers.benchmarks import measuring, methods
from trainers.benchmarks.suites import weightings


def small():
    """Returns a trunk and heads of two losses."""
    inputs, shared = keras.Input([3]), keras.Input([4])
    trunk = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    return trunk, keras.Model(shared, keras.layers.Dense(2)(shared))


def test_every_weighting_without_norms_is_measured():
    assert {"uncertainty", "famo", "dwa", "constant"} < {*weightings.cases()}
    assert "gradnorm" not in weightings.cases()
    needing = [
        text
        for text, recipe in weightings.cases().items()
        if weightings.needs_another_pass(recipe)
    ]
    assert needing == ["famo"]


def test_a_forward_pass_ends_at_the_losses(eager):
    trunk, heads = small()
    losses = weightings.forward_step(trunk, heads)()
    x, y = methods.random_batch(trunk, heads)
    logits = heads.predict(trunk.predict(x, verbose=0), verbose=0)
    expected = np.logaddexp(0, logits) - y * logits
    np.testing.assert_allclose(losses, expected.mean(axis=0), rtol=1e-5)


def test_rows_are_times_against_the_plain_sum(monkeypatch):
    """Of FAMO's 1.5, a forward pass of 0.25 is taken off."""
    recipes = {"famo": gd.Recipe.of("famo"), "dwa": gd.Recipe.of("dwa")}
    monkeypatch.setattr(weightings, "cases", lambda: recipes)
    monkeypatch.setattr(methods, "make", small)
    monkeypatch.setattr(methods, "make_step", lambda *_: lambda: None)
    times = {"baseline": 1.0, "a forward pass": 0.25, "famo": 1.5, "dwa": 1.02}

    def take_turns(steps, rounds, **_):
        assert next(iter(steps)) == "baseline"
        return {name: [times[name]] * rounds for name in steps}

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    rows = weightings.SUITE.measure(3, measuring.Progress("weightings"))
    medians = {(row.case, row.against): row.median for row in rows}
    assert medians == pytest.approx(
        {
            ("baseline", ""): 1000.0,
            ("a forward pass", "baseline"): 0.25,
            ("famo", "baseline"): 1.5,
            ("famo, less a forward pass", "baseline"): 1.25,
            ("dwa", "baseline"): 1.02,
        }
    )
    verdicts = {row.case: row.verdict for row in rows}
    assert verdicts["famo, less a forward pass"] == "missed"
    assert verdicts["dwa"] == "met"
