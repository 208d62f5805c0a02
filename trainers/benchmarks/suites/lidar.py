"""Lidar detection: frames, pillars, training, detections and the metric."""

import pathlib
import tempfile

import tensorflow as tf

from data import prepared
from data.lidar import examples as lidar_examples
from data.lidar.simulation import drives as simulation
from data.lidar.simulation.settings import Settings
from data.lidar.waymo import builder, messages
from data.lidar.waymo import records as waymo_frames
from data.lidar.waymo import segments as waymo_segments
from trainers.benchmarks import measuring, official_decoding, random_scenes
from trainers.benchmarks.suites import detector
from trainers.benchmarks.suites.detector import PRESET
from trainers.detection import metric
from trainers.models.pointpillars import (
    decoding,
    pillars,
    presets,
)

_FULL_PRESET = "graddrop2020"
_BATCH_SIZE = 2
_FRAMES_READ = 4
_FRAMES_MEASURED = 400

_DECODING = "decoding a full-size frame"
_OFFICIAL = "official utilities"
_READING = "reading prepared frames"
_PILLARS = f"pillars, {_FULL_PRESET}"
_TARGETS = f"pillars and targets, {PRESET}"
_TRAINING = f"training, {PRESET}, batch {_BATCH_SIZE}"
_DETECTING = f"detections, {PRESET}"
_METRIC = f"metric of {_FRAMES_MEASURED} frames"


def outputs_for(targets: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Makes the outputs of a perfect detector.

    Args:
        targets: As `anchors.assign` makes them, `[batch, ...]`.

    Returns:
        The nine outputs, with each positive anchor a likely vehicle.
    """
    outputs = {
        name: tf.where(tf.math.is_nan(target), 0.0, target)
        for name, target in targets.items()
    }
    outputs["class"] = 8.0 * outputs["class"] - 6.0
    outputs["direction"] = tf.one_hot(
        tf.cast(outputs["direction"], tf.int32), 2
    )
    return outputs


def prepare_frames(
    folder: pathlib.Path, num_frames: int, progress: measuring.Progress
) -> str:
    """Simulates frames and prepares them.

    Args:
        folder: Where to write.
        num_frames: How many.
        progress: Told what is done.

    Returns:
        The folder of the data set `waymo_lidar`.

    Raises:
        LidarDataError: If the official package is missing.
    """
    messages.load()
    progress.say(f"simulating and preparing {num_frames} frames")
    simulation.write(
        folder / "segments",
        Settings(num_frames=num_frames),
        num_segments=1,
        report=progress.say,
    )
    found = waymo_segments.find(str(folder / "segments"))
    builder.WaymoLidar(
        segments={"train": found},
        num_processes=1,
        report=progress.say,
        data_dir=folder / "data",
    ).download_and_prepare()
    return str(folder / "data")


def _reading(folder: pathlib.Path, progress: measuring.Progress):
    """Makes a step that reads some frames once."""
    data_dir = prepare_frames(folder, _FRAMES_READ, progress)
    opened = prepared.open_set("waymo_lidar", data_dir)
    examples = opened.records("train").map(
        opened.parse, num_parallel_calls=tf.data.AUTOTUNE
    )

    def read() -> None:
        for _ in examples:
            pass

    return read


def frame_steps(
    folder: pathlib.Path, progress: measuring.Progress
) -> dict[str, measuring.Step]:
    """Makes the steps that need the official package, if it is installed."""
    try:
        messages.load()
    except lidar_examples.LidarDataError as error:
        progress.say(f"skipped decoding and reading: {error}")
        return {}
    progress.say("simulating a full-size frame")
    frame = simulation.full_size_frame()
    return {
        _DECODING: lambda: waymo_frames.decode(frame),
        _OFFICIAL: lambda: official_decoding.decode(frame),
        _READING: _reading(folder, progress),
    }


def _detector_steps(progress: measuring.Progress) -> dict[str, measuring.Step]:
    """Makes the steps from points to detections."""
    frame = random_scenes.random_frame()
    preset, full = presets.PRESETS[PRESET], presets.PRESETS[_FULL_PRESET]
    seed = tf.constant(detector.SEED)
    pillarize = tf.function(
        lambda points, seed: pillars.pillarize(points, full, seed)
    )
    encode = detector.make_encoder(preset)
    detect = tf.function(lambda outputs: decoding.detect(outputs, preset))
    example = encode(frame, seed)
    outputs = outputs_for({name: t[None] for name, t in example[1].items()})
    progress.say("building the network")
    return {
        _PILLARS: lambda: pillarize(frame["points"], seed),
        _TARGETS: lambda: encode(frame, seed),
        _TRAINING: detector.training_step(preset, example, _BATCH_SIZE),
        _DETECTING: lambda: detect(outputs),
    }


def _metric_step() -> measuring.Step:
    found = random_scenes.random_scenes(_FRAMES_MEASURED)

    def compute() -> None:
        computed = metric.DetectionMetric()
        computed.update(*found)
        computed.result()

    return compute


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            **frame_steps(pathlib.Path(folder), progress),
            **_detector_steps(progress),
            _METRIC: _metric_step(),
        }
        times = measuring.take_turns(
            steps, rounds, warm_up=1, progress=progress.start(rounds)
        )
    counts = {
        _DECODING: 1,
        _OFFICIAL: 1,
        _READING: _FRAMES_READ,
        _TARGETS: 1,
        _TRAINING: _BATCH_SIZE,
        _DETECTING: 1,
        _METRIC: _FRAMES_MEASURED,
    }
    rows = []
    if _DECODING in times:
        rows.append(
            measuring.time_row(times, _DECODING, _OFFICIAL, target=1 / 3)
        )
    rows.append(measuring.milliseconds_row(times, _PILLARS, target=60.0))
    rows += [
        measuring.rate_row(times, case, count, "frames")
        for case, count in counts.items()
        if case in times
    ]
    return rows


SUITE = measuring.Suite(
    "decoding a simulated Waymo frame, v1, against the official utilities; "
    f"putting {random_scenes.NUM_POINTS:,} points into 512 x 512 pillars; "
    "frames a second of each part of a PointPillars run by itself",
    _measure,
    pairs_per_round=2,
)
