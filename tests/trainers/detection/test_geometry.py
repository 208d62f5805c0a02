import math

import numpy as np
import pytest

from tests.trainers.detection import waymo
from trainers.detection import geometry


def _corners(box):
    x, y, length, width, heading = box
    cos, sin = math.cos(heading), math.sin(heading)
    return [
        (
            x + cos * a * length / 2 - sin * b * width / 2,
            y + sin * a * length / 2 + cos * b * width / 2,
        )
        for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    ]


def _area(polygon):
    shifted = polygon[1:] + polygon[:1]
    return sum(a * d - b * c for (a, b), (c, d) in zip(polygon, shifted)) / 2


def _clipped(polygon, start, end):
    """Keeps what lies to the left of a line (Sutherland and Hodgman)."""

    def side(point):
        return (end[0] - start[0]) * (point[1] - start[1]) - (
            end[1] - start[1]
        ) * (point[0] - start[0])

    kept = []
    for here, there in zip(polygon, polygon[1:] + polygon[:1]):
        if side(here) >= 0:
            kept.append(here)
        if side(here) * side(there) < 0:
            t = side(here) / (side(here) - side(there))
            kept.append(tuple(a + t * (b - a) for a, b in zip(here, there)))
    return kept


def _slow_overlap(first, second):
    polygon, edges = _corners(first), _corners(second)
    for start, end in zip(edges, edges[1:] + edges[:1]):
        polygon = _clipped(polygon, start, end)
    return _area(polygon)


def _random_boxes(rng, size):
    found = np.empty((size, 5))
    found[:, :2] = rng.normal(size=(size, 2))
    found[:, 2:4] = rng.uniform(0.3, 4.0, (size, 2))
    found[:, 4] = rng.uniform(-7.0, 7.0, size)
    return found


def test_hand_checked_overlaps():
    box = np.array([0.0, 0.0, 1.0, 2.0, 0.0])
    wide = np.array([0.5, 0.0, 1.0, 4.0, 0.0])
    turned = np.array([0.5, 0.0, 1.0, 4.0, np.pi / 4])
    assert geometry.iou(box, wide) == pytest.approx(0.2, abs=1e-12)
    assert geometry.iou(box, turned) == pytest.approx(0.24074958, abs=1e-8)


def test_equals_the_official_iou_of_2000_pairs():
    with np.load(waymo.ORACLE / "pairwise_iou.npz") as pairs:
        first, second = pairs["pred"], pairs["gt"]
        in_3d, in_2d = pairs["iou_3d"], pairs["iou_2d"]
    assert np.count_nonzero((in_3d > 0.0) & (in_3d < 1.0)) > 500
    np.testing.assert_allclose(geometry.iou(first, second), in_3d, atol=1e-5)
    first, second = map(geometry.birds_eye_view, (first, second))
    np.testing.assert_allclose(geometry.iou(first, second), in_2d, atol=1e-5)


def test_overlap_equals_slow_clipping():
    rng = np.random.default_rng(0)
    first, second = _random_boxes(rng, 300), _random_boxes(rng, 300)
    second[:60, 4] = first[:60, 4] + np.pi / 2 * rng.integers(-4, 5, 60)
    # On a grid many sides and corners coincide.
    first[60:120], second[60:120] = rng.integers(1, 4, (2, 60, 5))
    first[60:120, 4] = second[60:120, 4] = 0.0
    second[120:130] = first[120:130]
    expected = [_slow_overlap(*pair) for pair in zip(first, second)]
    assert np.count_nonzero(expected) > 150
    np.testing.assert_allclose(
        geometry.overlap_area(first, second), expected, atol=1e-12
    )


def test_overlap_is_symmetric_and_moves_with_the_boxes():
    rng = np.random.default_rng(1)
    first, second = _random_boxes(rng, 100), _random_boxes(rng, 100)
    expected = geometry.overlap_area(first, second)
    np.testing.assert_allclose(
        geometry.overlap_area(second, first), expected, atol=1e-12
    )
    moved = []
    for box in (first, second):
        rotation = np.array([[0.6, 0.8], [-0.8, 0.6]])
        centre = box[:, :2] @ rotation + [70.0, -40.0]
        heading = box[:, 4] + math.atan2(0.8, 0.6)
        moved.append(np.column_stack([centre, box[:, 2:4], heading]))
    np.testing.assert_allclose(
        geometry.overlap_area(*moved), expected, atol=1e-11
    )


def test_height_counts_in_3d():
    box = np.array([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0])
    above = np.array([0.0, 0.0, 1.0, 2.0, 2.0, 4.0, 0.0])
    # They share z from -1 to 1: 8 of 8 + 16 - 8.
    assert geometry.iou(box, above) == pytest.approx(0.5)
    above[2] = 3.5
    assert geometry.iou(box, above) == 0.0


@pytest.mark.parametrize("side", [0.0, 0.01, -1.0, 1e6, 1e300])
@pytest.mark.parametrize("column", [3, 4, 5])
def test_sides_out_of_bounds_overlap_with_nothing(side, column):
    box = np.array([0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.3])
    wrong = box.copy()
    wrong[column] = side
    for pair in ((box, wrong), (wrong, box), (wrong, wrong)):
        assert geometry.iou(*pair) == 0.0
    wrong[column] = {0.01: 0.0101}.get(side, 2.0)
    assert geometry.iou(wrong, wrong) == pytest.approx(1.0)


def test_a_box_overlaps_with_itself_as_a_whole_and_no_more():
    rng = np.random.default_rng(3)
    boxes = np.column_stack(
        [rng.normal(size=(500, 3)), rng.uniform(0.1, 9.0, (500, 4))]
    )
    found = geometry.iou(boxes, boxes)
    np.testing.assert_allclose(found, 1.0, atol=1e-12)
    assert (found <= 1.0).all()
    far = geometry.iou(boxes, boxes + [30.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(far, 0.0, atol=1e-12)


def test_shapes():
    rng = np.random.default_rng(2)
    first = rng.uniform(1.0, 2.0, (2, 3, 7))
    assert geometry.iou(first, first).shape == (2, 3)
    assert geometry.iou(first[:0], first[:0]).shape == (0, 3)
    np.testing.assert_array_equal(
        geometry.birds_eye_view(np.arange(7)), [0, 1, 3, 4, 6]
    )
    np.testing.assert_array_equal(
        geometry.birds_eye_view(np.arange(5)), np.arange(5)
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (0.1, -0.1, 1.0 - 0.2 / np.pi),
        (np.pi, 0.0, 0.0),
        (np.pi, -np.pi, 1.0),
        (np.pi - 0.1, 0.1 - np.pi, 1.0 - 0.2 / np.pi),
        (7.0 * np.pi, 0.5 * np.pi, 0.5),
    ],
)
def test_heading_accuracy(first, second, expected):
    found = geometry.heading_accuracy(first, second)
    assert found == pytest.approx(expected, abs=1e-12)


def test_distance_leaves_out_height_in_2d():
    box = np.array([2.0, 3.0, 6.0, 1.0, 1.0, 1.0, 0.0])
    assert geometry.distance(box) == pytest.approx(7.0)
    flat = geometry.birds_eye_view(box)
    assert geometry.distance(flat) == pytest.approx(math.sqrt(13.0))
