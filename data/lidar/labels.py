"""Labelled boxes: their types, levels of difficulty, and points inside."""

import numpy as np

TYPES = ("UNKNOWN", "VEHICLE", "PEDESTRIAN", "SIGN", "CYCLIST")
UNKNOWN, VEHICLE, PEDESTRIAN, SIGN, CYCLIST = range(len(TYPES))
# Neighbours: objects so similar to a type that detections of them count neither
# as right nor as false. The number of the type is negative.
VEHICLE_NEIGHBOUR, PEDESTRIAN_NEIGHBOUR = -VEHICLE, -PEDESTRIAN
DIFFICULTIES = ("UNKNOWN", "LEVEL_1", "LEVEL_2")
BOX_FIELDS = ("x", "y", "z", "length", "width", "height", "heading")
MOST_POINTS_OF_LEVEL_2 = 5


def difficulties(levels: np.ndarray, num_points: np.ndarray) -> np.ndarray:
    """Returns the difficulty of boxes, by the rule of the Waymo metric.

    Args:
        levels: Levels set by a labeler, `[M]`: 1, 2, or 0 for unknown.
        num_points: Points in each box, `[M]`.

    Returns:
        The levels, 1 or 2, `[M]`, int32; where unknown, 2 for up to 5 points
        and 1 for more.
    """
    by_points = np.where(
        np.less_equal(num_points, MOST_POINTS_OF_LEVEL_2), 2, 1
    )
    return np.where(np.greater(levels, 0), levels, by_points).astype(np.int32)


def count_points(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Counts the points in each box, its surface included.

    As in the official utilities, a box without volume holds none.

    Args:
        points: Points, `[N, 3]` or more columns, of which x, y, z count.
        boxes: Boxes, `[M, 7]`.

    Returns:
        The counts, `[M]`, int32.
    """
    points = np.asarray(points, np.float64)[:, :3]
    points = points[np.argsort(points[:, 0])]
    boxes = np.asarray(boxes, np.float64)
    reach = np.hypot(boxes[:, 3], boxes[:, 4]) / 2
    starts = np.searchsorted(points[:, 0], boxes[:, 0] - reach, "left")
    stops = np.searchsorted(points[:, 0], boxes[:, 0] + reach, "right")
    counts = np.zeros(len(boxes), np.int32)
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        heading = boxes[index, 6]
        x, y, z = (points[start:stop] - boxes[index, :3]).T
        cos, sin = np.cos(heading), np.sin(heading)
        turned = np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1)
        sides = boxes[index, 3:6]
        inside = (np.abs(turned) <= sides / 2) & (sides > 0.0)
        counts[index] = np.count_nonzero(inside.all(axis=1))
    return counts
