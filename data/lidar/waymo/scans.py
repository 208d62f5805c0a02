"""Turns the scans of a frame into a training example."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data.lidar import examples, labels
from data.lidar.waymo import range_images

TOP = 1
LIDAR_NAMES = {
    TOP: "TOP",
    2: "FRONT",
    3: "SIDE_LEFT",
    4: "SIDE_RIGHT",
    5: "REAR",
}


@dataclasses.dataclass(frozen=True)
class Scan:
    """One turn of a lidar.

    Attributes:
        images: The range image of each return by its number, `[H, W, 4]`.
        pixel_poses: Our pose at each pixel, `[H, W, 6]`; of TOP only.
    """

    images: Mapping[int, np.ndarray]
    pixel_poses: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Label:
    """A labelled object.

    Attributes:
        box: Centre x, y, z, length, width, height, heading.
        type: `labels.VEHICLE` or another one.
        level: The difficulty that a person set; 0 for none.
        num_points: Points in the box; None in all labels of a frame to count
            them, as release 1.0 of the data set has no such numbers.
    """

    box: tuple[float, ...]
    type: int
    level: int
    num_points: int | None


def pass_over(num_boxes: int) -> None:
    """Does nothing: who reads examples need not know what was counted."""


def matrix(values: Sequence[float], name: str) -> np.ndarray:
    """Makes a matrix of 16 numbers.

    Args:
        values: The numbers, row by row.
        name: What they are, for the message.

    Returns:
        The matrix, `[4, 4]`, float64.

    Raises:
        LidarDataError: If they are not 16 finite numbers.
    """
    numbers = np.array(values, np.float64)
    if numbers.shape != (16,) or not np.isfinite(numbers).all():
        raise examples.LidarDataError(
            f"{name}: got {numbers.size} numbers, {np.isfinite(numbers).sum()} "
            "of them finite, expected the 16 of a matrix."
        )
    return numbers.reshape(4, 4)


def lidar_text(name: int) -> str:
    """Names a lidar in a message."""
    return f"lidar {LIDAR_NAMES.get(name, name)}"


def make_example(
    scans: Mapping[int, Scan],
    calibrations: Mapping[int, range_images.Calibration],
    vehicle_pose: np.ndarray,
    objects: Sequence[Label],
    *,
    segment: str,
    frame: str,
    on_counted: Callable[[int], None] = pass_over,
) -> examples.Example:
    """Turns a frame into a training example, first returns first.

    Args:
        scans: What each lidar measured, by its number.
        calibrations: How each is mounted, by its number.
        vehicle_pose: Takes points from the vehicle to the world, `[4, 4]`.
        objects: The labelled objects.
        segment: Name of the segment.
        frame: Name of the frame.
        on_counted: Called with the number of boxes whose points were counted.

    Returns:
        The example, see `data.lidar.examples`.

    Raises:
        LidarDataError: If the frame is damaged or incomplete.
    """
    if not scans:
        raise examples.LidarDataError("got no lidar, expected some.")
    parts = {examples.FIRST_RETURN: [], examples.SECOND_RETURN: []}
    for name in sorted({*scans, *calibrations}):
        with examples.located(lidar_text(name)):
            points = _points(
                name, scans.get(name), calibrations.get(name), vehicle_pose
            )
        for number, part in points.items():
            parts[number].append(part)
    numbers = sorted(parts)
    returned = [part for number in numbers for part in parts[number]]
    counts = [sum(len(p.values) for p in parts[number]) for number in numbers]
    points = np.concatenate([part.values for part in returned])
    described = _list_objects(objects, points)
    if any(label.num_points is None for label in objects):
        on_counted(len(objects))
    return examples.check(
        {
            "points": points,
            "returns": np.repeat(np.array(numbers, np.uint8), counts),
            "in_no_label_zone": np.concatenate(
                [part.in_no_label_zone for part in returned]
            ),
            **described,
            "segment": segment,
            "frame": frame,
        }
    )


def _list_objects(
    objects: Sequence[Label], points: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the fields of an example that describe its objects."""
    levels = np.array([label.level for label in objects], np.int32)
    boxes = np.array([label.box for label in objects], np.float32)
    boxes = boxes.reshape(-1, len(labels.BOX_FIELDS))
    if any(label.num_points is None for label in objects):
        num_points = labels.count_points(points, boxes)
    else:
        num_points = np.array([label.num_points for label in objects], np.int32)
    return {
        "boxes": boxes,
        "types": np.array([label.type for label in objects], np.int32),
        "difficulties": labels.difficulties(levels, num_points),
        "num_points": num_points,
    }


def _points(
    name: int,
    scan: Scan | None,
    calibration: range_images.Calibration | None,
    vehicle_pose: np.ndarray,
) -> dict[int, range_images.Points]:
    """Returns the points of each return of a lidar."""
    if calibration is None:
        raise examples.LidarDataError(
            "got range images, expected a calibration too."
        )
    if scan is None or examples.FIRST_RETURN not in scan.images:
        raise examples.LidarDataError(
            "got a calibration, expected a range image of the first return too."
        )
    if name == TOP and scan.pixel_poses is None:
        raise examples.LidarDataError(
            "got range images, expected a pose for each pixel too."
        )
    return range_images.decode(
        scan.images, calibration, scan.pixel_poses, vehicle_pose
    )
