"""Points in boxes, counted by a loop; levels by hand."""

import math

import numpy as np
import pytest

from data.lidar import labels


def _inside(point, box):
    x, y, z, length, width, height, heading = map(float, box)
    # The corners of the footprint in turn; inside is left of all its edges.
    corners = []
    for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        u, v = a * length / 2, b * width / 2
        corners.append(
            (
                x + u * math.cos(heading) - v * math.sin(heading),
                y + u * math.sin(heading) + v * math.cos(heading),
            )
        )
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        if (bx - ax) * (point[1] - ay) - (by - ay) * (point[0] - ax) < 0.0:
            return False
    return z - height / 2 <= point[2] <= z + height / 2


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_a_loop(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-6.0, 6.0, (1000, 5))
    boxes = np.concatenate(
        [
            rng.uniform(-4.0, 4.0, (8, 3)),
            rng.uniform(0.5, 7.0, (8, 3)),
            rng.uniform(-math.pi, math.pi, (8, 1)),
        ],
        axis=1,
    )
    want = [sum(_inside(p, box) for p in points) for box in boxes]
    assert max(want) > 10
    counts = labels.count_points(points, boxes)
    assert counts.tolist() == want
    assert counts.dtype == np.int32


def test_the_surface_counts():
    box = [[10.0, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0]]
    on = [[12, 1, 2], [8, -1, 0], [10, 0, 1]]
    off = [[12.01, 0, 1], [10, 1.01, 1], [10, 0, 2.01], [7.99, 0, 1]]
    assert labels.count_points(np.array(on + off), box).tolist() == [3]
    # A quarter turn exchanges length and width.
    turned = [[*box[0][:6], math.pi / 2]]
    points = np.array([[10.0, 1.9, 1.0], [11.9, 0.0, 1.0]])
    assert labels.count_points(points, turned).tolist() == [1]


def test_a_box_without_volume_is_empty():
    box = [[1.0, 2.0, 3.0, 4.0, 0.0, 2.0, 0.0]]
    assert labels.count_points(np.array([[1, 2, 3]]), box) == [0]


def test_nothing_to_count():
    assert labels.count_points(np.zeros((3, 5)), np.zeros((0, 7))).shape
    empty = labels.count_points(np.zeros((0, 5)), np.ones((2, 7)))
    assert empty.tolist() == [0, 0]


def test_difficulty_is_a_persons_or_comes_from_the_points():
    got = labels.difficulties(
        np.array([0, 0, 0, 1, 2]), np.array([0, 5, 6, 3, 900])
    )
    assert got.tolist() == [2, 2, 1, 1, 2]
    assert got.dtype == np.int32
