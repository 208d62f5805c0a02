"""Rows of methods on a tiny detector."""

import dataclasses

import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars.cases import TINY
from trainers.benchmarks import measuring, random_scenes
from trainers.benchmarks.suites import detector
from trainers.models.pointpillars import presets

PRESET = dataclasses.replace(TINY, num_point_features=5)


@pytest.mark.parametrize("method", [None, *detector.METHODS])
def test_a_step_trains(method, eager):
    frame = random_scenes.random_frame(100)
    example = detector.make_encoder(PRESET)(frame, tf.constant(detector.SEED))
    step = detector.training_step(PRESET, example, 2, method)
    first, second = (step()["loss"].numpy() for _ in range(2))
    assert 0 < second < first


def test_rows_are_times_against_the_baseline(monkeypatch):
    monkeypatch.setattr(presets, "PRESETS", {detector.PRESET: PRESET})
    monkeypatch.setattr(detector, "training_step", lambda *_: lambda: None)
    seconds = {"baseline": 0.5, "graddrop": 0.55, "pcgrad": 0.6}
    monkeypatch.setattr(
        measuring,
        "take_turns",
        lambda steps, rounds, **_: {
            name: [seconds.get(name, 1.0)] * rounds for name in steps
        },
    )
    rows = detector.SUITE.measure(2, measuring.Progress("detector"))
    assert (rows[0].quantity, rows[0].median) == ("ms", 500.0)
    assert [round(row.median, 6) for row in rows[1:]] == [1.1, 1.2, 2.0, 2.0]
    verdicts = [row.verdict for row in rows]
    assert verdicts == ["", "met", "missed", "missed", ""]
