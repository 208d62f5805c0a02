"""Writes simulated drives as TFRecords of the official `Frame` messages.

The lidars turn once in a frame, ten times a second. While the one on top
turns, our vehicle moves on, and each pixel has the pose that it was measured
at; what else moves stands still for the length of a frame. Some rays that
meet a cabin pass through its windows and return twice.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np

from data import files, records
from data.lidar import examples
from data.lidar.simulation import scenes
from data.lidar.simulation.frame_messages import make_frame
from data.lidar.simulation.settings import FRAMES_PER_SECOND, Settings
from data.lidar.waymo import messages

_SETTINGS_FILE = "simulation.json"


def write(
    directory: pathlib.Path,
    settings: Settings,
    *,
    num_segments: int,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Writes segments; existing ones are kept.

    Args:
        directory: Takes `segment-*.tfrecord`.
        settings: What the drives are like.
        num_segments: How many.
        seed: Decides what is drawn: each segment by the seed and its number.
        report: Called with a line for each segment written.

    Raises:
        LidarDataError: If the directory holds segments of other settings, or
            the official package is missing.
        OSError: If a segment cannot be written.
    """
    messages.load()
    drawn = {**dataclasses.asdict(settings), "seed": seed}
    note = directory / _SETTINGS_FILE
    if note.exists():
        if json.loads(note.read_text()) != drawn:
            raise examples.LidarDataError(
                f"{directory}: holds segments of other settings (see {note}); "
                "choose another directory."
            )
    else:
        with files.replacing(note, shared=True) as temporary:
            temporary.write_text(json.dumps(drawn, indent=2) + "\n")
    for index in range(num_segments):
        name = f"simulated_{seed}_{index:05d}"
        path = directory / f"segment-{name}.tfrecord"
        if not path.exists():
            write_segment(path, name, settings, [seed, index])
            report(f"{index + 1}/{num_segments} {path}")


def write_segment(
    path: pathlib.Path, name: str, settings: Settings, seed: list[int]
) -> None:
    """Writes one segment.

    Args:
        path: The file.
        name: The segment's name.
        settings: What the drive is like.
        seed: Numbers that decide what is drawn.

    Raises:
        OSError: If it cannot be written.
    """
    scene = draw_scene(settings, seed)
    with records.writing(path) as writer:
        for index in range(settings.num_frames):
            frame = make_frame(scene, index, name, settings, seed)
            writer.write(frame.SerializeToString())


def draw_scene(settings: Settings, seed: list[int]) -> scenes.Scene:
    """Draws the scene of a segment.

    Args:
        settings: What the drive is like.
        seed: Numbers that decide what is drawn.

    Returns:
        The scene.
    """
    return scenes.draw(
        np.random.default_rng(seed),
        extent=settings.extent,
        occupancy=settings.occupancy,
        duration=settings.num_frames / FRAMES_PER_SECOND,
    )


def full_size_frame(seed: int = 0):
    """Simulates one frame of Waymo's size, for benchmarks.

    Args:
        seed: Decides what is drawn.

    Returns:
        The `Frame` message; it holds about 500,000 points.
    """
    settings = Settings(num_frames=1)
    scene = draw_scene(settings, [seed])
    return make_frame(scene, 0, f"full_size_{seed}", settings, [seed])
