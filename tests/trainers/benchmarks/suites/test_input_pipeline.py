"""Reading against training."""

import functools

from data import attribute_sets
from trainers.benchmarks import measuring
from trainers.benchmarks.suites import input_pipeline
from trainers.models import attribute_network


def test_reading_is_set_against_training(eager, monkeypatch):
    monkeypatch.setattr(input_pipeline, "SHAPE", attribute_sets.Shape(8, 8))
    monkeypatch.setattr(input_pipeline, "NUM_IMAGES", 16)
    make = functools.partial(attribute_network.make_network, channels=1)
    monkeypatch.setattr(attribute_network, "make_network", make)
    times = {"reading": [2.0, 4.0], "training": [4.0, 8.0]}
    taken = []

    def take_turns(steps, rounds, progress):
        taken.extend(step() for step in steps.values())
        return times

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    rows = input_pipeline.SUITE.measure(2, measuring.Progress("input"))
    assert len(taken) == 2
    # 16 images in 2 and 4 seconds, 8 images in 4 and 8 seconds.
    assert [row.median for row in rows] == [6.0, 1.5, 4.0]
    assert rows[-1].verdict == "met"
