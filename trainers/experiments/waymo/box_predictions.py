"""Boxes of vehicles in frames that belong to no data set."""

import csv
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from data.lidar import sets
from data.lidar.kitti import frames as kitti
from data.lidar.waymo import segments
from trainers import drawing, files
from trainers.detection import pictures
from trainers.models.pointpillars.presets import Preset
from trainers.runs import serving

_COLUMNS = (
    "frame", "score", "x", "y", "z", "length", "width", "height", "heading",
)  # fmt: skip
# The name of a frame, and its points.
Frame = tuple[str, np.ndarray]


def kitti_scans(
    place: pathlib.Path, report: Callable[[str], None] = print
) -> Iterator[Frame]:
    """Reads a scan of KITTI, or all `*.bin` files of a folder.

    Points outside of the camera's image are left out, as in training. A scan
    without a calibration, which tells them, keeps all of its points.

    Args:
        place: The file or the folder.
        report: Called with a line if scans have no calibration.

    Yields:
        The frames.

    Raises:
        LidarDataError: If a file is missing or damaged.
    """
    paths = sorted(place.glob("*.bin")) if place.is_dir() else [place]
    whole = {p for p in paths if not kitti.calibration_path(p).exists()}
    if any(path.exists() for path in whole):
        report(
            f"{len(whole)} of {len(paths)} scans: no ../calib/NAME.txt, so "
            "points outside of the camera's image are used too"
        )
    for path in paths:
        read = kitti.read_scan if path in whole else kitti.read_seen_points
        yield path.stem, read(path)


def waymo_frames(place: str) -> Iterator[Frame]:
    """Reads segments of Waymo; points in no-label zones are left out.

    Raises:
        LidarDataError: If one is missing or damaged.
    """
    for segment in segments.find(place):
        for example in segment.examples():
            name = f"{example['segment']}/{example['frame']}"
            yield name, sets.vehicles(example)["points"].numpy()


def predict(
    detector: serving.Endpoint,
    preset: Preset,
    frames: Iterable[Frame],
    path: pathlib.Path,
    num_drawn: int = 0,
    report: Callable[[str], None] = print,
) -> int:
    """Writes a CSV file with a row for each box, and pictures.

    Args:
        detector: From points to boxes.
        preset: Values of the detector.
        frames: The frames.
        path: The file to write; pictures go beside it.
        num_drawn: How many frames to draw.
        report: Called with a line for each picture.

    Returns:
        The number of boxes.

    Raises:
        UserError: If a file cannot be written.
    """
    find = tf.function(detector.function, input_signature=[detector.signature])
    rows = []
    for number, (name, points) in enumerate(frames):
        points = points[:, : preset.num_point_features]
        found = find(tf.constant(points, tf.float32))
        boxes, scores = found["boxes"].numpy(), found["scores"].numpy()
        rows += [
            [name, *(f"{value:.6g}" for value in (score, *box))]
            for score, box in zip(scores, boxes, strict=True)
        ]
        if number < num_drawn:
            picture = path.with_name(f"{path.stem}_{number}.png")
            with files.replacing(picture) as file:
                file.write(_draw(name, points, boxes, scores, preset))
            report(f"Written: {picture}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
    files.write_text(path, text.getvalue())
    return len(rows)


def _draw(name, points, boxes, scores, preset: Preset) -> bytes:
    picture = pictures.Picture(
        title=name,
        points=points,
        true_boxes=np.zeros((0, 7), np.float32),
        predicted_boxes=boxes,
        scores=scores,
        x_range=preset.grid.x_range,
        y_range=preset.grid.y_range,
    )
    return drawing.png(pictures.birds_eye_view(picture))
