"""Reading against training."""

import dataclasses
import functools

import pytest

from data import attribute_sets
from data.lidar import examples
from data.lidar.simulation.settings import Settings
from tests.data.lidar import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.benchmarks import measuring
from trainers.benchmarks.suites import input_pipeline, lidar, mixed
from trainers.models import attribute_network, densenet
from trainers.models.pointpillars import presets


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(input_pipeline, "SHAPE", attribute_sets.Shape(8, 8))
    monkeypatch.setattr(input_pipeline, "SOURCE_SHAPE", (20, 24, 3))
    monkeypatch.setattr(input_pipeline, "NUM_IMAGES", 16)
    make = functools.partial(attribute_network.make_network, channels=1)
    monkeypatch.setattr(attribute_network, "make_network", make)
    make = functools.partial(densenet.make_trunk, depth=10, growth_rate=2)
    monkeypatch.setattr(densenet, "make_trunk", make)


@pytest.mark.parametrize("name", ["celeba", "transfer"])
def test_it_reads_as_many_images_as_there_are(name, tmp_path, eager):
    make = input_pipeline.FEEDS[name]
    feed = make(tmp_path, measuring.Progress("input"))
    sizes = [_size(batch) for batch in feed.batches.take(feed.num_batches)]
    assert sum(sizes) == 16 * (2 if name == "transfer" else 1)
    assert set(sizes) == {feed.batch_size}
    assert feed.step()["loss"] > 0
    assert feed.time_reading() > 0.0
    assert feed.time_training() > 0.0


def _size(batch):
    """Counts images, of all sets of a mixed batch."""
    images, _ = batch
    parts = images.values() if isinstance(images, dict) else [images]
    return sum(len(part) for part in parts)


def test_images_of_the_source_are_resized_to_those_of_the_target(tmp_path):
    feed = input_pipeline.mixed_images(tmp_path, measuring.Progress("input"))
    images, _ = next(iter(feed.batches))
    assert {tuple(part.shape[1:]) for part in images.values()} == {
        mixed.IMAGE_SHAPE
    }


def test_frames_are_encoded_for_the_detector(tmp_path, monkeypatch, eager):
    cases.messages()
    tiny = Settings(num_frames=2, sensors="small", extent=25.0)
    monkeypatch.setattr(lidar, "Settings", lambda num_frames: tiny)
    preset = dataclasses.replace(TINY, num_point_features=5)
    monkeypatch.setattr(
        presets, "PRESETS", dict.fromkeys(presets.PRESETS, preset)
    )
    feed = input_pipeline.frames(tmp_path, measuring.Progress("input"))
    inputs, _ = next(iter(feed.batches))
    assert inputs["points"].shape == [2, preset.max_points, 5]
    assert feed.step()["loss"] > 0


def test_rows_leave_out_what_cannot_be_had(monkeypatch, capsys):
    def missing(folder, progress):
        raise examples.LidarDataError("it is not here; install it.")

    class Clock:
        """A clock that goes on while batches are read and trained on."""

        now = 0.0

        def perf_counter(self):
            return self.now

        def monotonic(self):
            return self.now

        def batches(self):
            # The first two of four are not measured.
            for seconds in (9.0, 9.0, 0.5, 1.5):
                self.now += seconds
                yield self

        def __iter__(self):
            return self.batches()

        def step(self):
            self.now += 4.0

    clock = Clock()
    feed = input_pipeline.Feed(clock, 2, "images", clock.step, 8)
    monkeypatch.setattr(input_pipeline, "time", clock)
    monkeypatch.setattr(
        input_pipeline,
        "FEEDS",
        {"celeba": lambda folder, progress: feed, "waymo": missing},
    )
    rows = input_pipeline.SUITE.measure(2, measuring.Progress("input"))
    # 16 images in 2 seconds, 8 images in 4 seconds.
    assert [row.median for row in rows] == [8.0, 2.0, 4.0]
    assert rows[-1].verdict == "met"
    assert "skipped waymo: it is not here" in capsys.readouterr().err
