"""The parts of lidar detection."""

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from data.lidar import examples
from data.lidar.simulation import drives
from data.lidar.simulation.settings import Settings
from data.lidar.waymo import messages
from tests.data.lidar import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.benchmarks import measuring, random_scenes
from trainers.benchmarks.suites import lidar
from trainers.models.pointpillars import anchors, decoding, presets


def test_points_are_dense_near_us_and_boxes_are_vehicles():
    frame = random_scenes.random_frame(1000)
    points, boxes = frame["points"].numpy(), frame["boxes"].numpy()
    assert points.shape == (1000, 5) and points.dtype == np.float32
    distance = np.hypot(points[:, 0], points[:, 1])
    assert distance.min() >= 2.0 and distance.max() <= 75.0
    # As many from 2 to sqrt(2 x 75) metres as beyond.
    assert 400 < (distance < np.sqrt(150.0)).sum() < 600
    assert len(boxes) == len(frame["num_points"]) > 30
    assert 4.0 < np.median(boxes[:, 3]) < 5.5


def test_outputs_are_those_of_a_detector_that_is_right():
    boxes = tf.constant(
        [[4, 0, 0.5, 4, 2, 1.5, 0.1], [11, 3, 0.4, 3.8, 1.9, 1.6, -1.5]]
    )
    targets = anchors.assign(boxes, TINY)
    outputs = lidar.outputs_for({n: t[None] for n, t in targets.items()})
    found = decoding.detect(outputs, TINY)
    assert found["num_detections"].numpy() == [2]
    rows = found["boxes"].numpy()[0, :2]
    order = np.argsort(rows[:, 0])
    np.testing.assert_allclose(rows[order], boxes, atol=1e-4)


@pytest.fixture
def small_parts(monkeypatch):
    """Has a tiny detector and few points, in steps that are taken once."""
    tiny = dataclasses.replace(TINY, num_point_features=5)
    monkeypatch.setattr(
        presets, "PRESETS", dict.fromkeys(presets.PRESETS, tiny)
    )
    taken = {}

    def take_turns(steps, rounds, *, warm_up, progress):
        for name, step in steps.items():
            taken[name] = step()
        return {name: [0.02, 0.04] for name in steps}

    monkeypatch.setattr(measuring, "take_turns", take_turns)
    return taken


def test_rows_without_the_official_package(
    small_parts, monkeypatch, capsys, eager
):
    def load():
        raise examples.LidarDataError("it is not here; install it.")

    monkeypatch.setattr(messages, "load", load)
    rows = lidar.SUITE.measure(2, measuring.Progress("lidar"))
    found = {row.case: (row.quantity, round(row.median, 6)) for row in rows}
    assert found == {
        "pillars, graddrop2020": ("ms", 30.0),
        "pillars and targets, small": ("frames/s", 37.5),
        "training, small, batch 2": ("frames/s", 75.0),
        "detections, small": ("frames/s", 37.5),
        "metric of 400 frames": ("frames/s", 15000.0),
    }
    assert [row.verdict for row in rows] == ["met", "", "", "", ""]
    said = capsys.readouterr().err
    assert "lidar: skipped decoding and reading: it is not here" in said
    assert said.count("it is not here") == 1
    assert small_parts["detections, small"]["num_detections"].shape == [1]


def test_steps_with_the_official_package(tmp_path, monkeypatch, capsys):
    cases.messages()
    tiny = Settings(num_frames=2, sensors="small", extent=25.0)
    monkeypatch.setattr(drives, "Settings", lambda num_frames: tiny)
    monkeypatch.setattr(drives, "full_size_frame", cases.frame)
    steps = lidar.frame_steps(tmp_path, measuring.Progress("lidar"))
    ours, theirs = (
        steps[name]()
        for name in ("decoding a full-size frame", "official utilities")
    )
    assert len(ours["points"]) == len(theirs["points"]) > 0
    steps["reading prepared frames"]()
    assert list(pathlib.Path(tmp_path).glob("data/waymo_lidar/*/*.tfrecord*"))
    assert capsys.readouterr().out == ""
