"""Overlap, membership and coding of boxes."""

import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from trainers.models.pointpillars import box_tensors

ORACLE = pathlib.Path(__file__).parents[3] / "oracle" / "waymo"


def box(x=0, y=0, z=0, length=1, width=1, height=1, heading=0):
    return tf.constant([x, y, z, length, width, height, heading], tf.float32)


def test_official_pairs():
    pairs = np.load(ORACLE / "pairwise_iou.npz")
    for first, second in (("pred", "gt"), ("gt", "pred")):
        iou = box_tensors.bev_iou(pairs[first], pairs[second])
        np.testing.assert_allclose(iou, pairs["iou_2d"], atol=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "want"),
    [
        # The two of the Waymo metric's documentation.
        (box(length=1, width=2), box(x=0.5, length=1, width=4), 0.2),
        (
            box(length=1, width=2),
            box(x=0.5, length=1, width=4, heading=math.pi / 4),
            0.24074958,
        ),
        (box(), box(x=0.5), 1 / 3),
        (box(), box(x=1.0), 0.0),
        (box(), box(x=0.9, y=0.9), 0.01 / 1.99),
        # An octagon in a square: 8 tan(22.5 degrees) / 4 of its area.
        (
            box(),
            box(heading=math.pi / 4),
            (2 * math.tan(math.pi / 8)) / (2 - 2 * math.tan(math.pi / 8)),
        ),
        (box(length=3, width=3), box(x=0.5, heading=1.0), 1 / 9),
        (box(length=0), box(), 0.0),
        (box(length=0), box(length=0), 0.0),
        (box(x=300, y=-200, heading=2), box(x=300, y=-200, heading=2), 1.0),
        # Half a turn changes nothing.
        (box(length=4), box(length=4, heading=math.pi), 1.0),
    ],
)
def test_overlap_by_hand(first, second, want):
    np.testing.assert_allclose(
        box_tensors.bev_iou(first, second), want, atol=2e-6
    )
    np.testing.assert_allclose(
        box_tensors.bev_iou(second, first), want, atol=2e-6
    )


def test_overlap_against_polygons():
    """Random boxes, and boxes whose edges almost or quite coincide."""
    rng = np.random.default_rng(0)
    first = cases.random_boxes(120, seed=1)
    second = first.copy()
    second[:, :2] += rng.choice([0, 1e-7, 1e-3, 0.5, 2], (120, 2))
    second[:, 3:5] *= rng.choice([1, 1 + 1e-6, 0.7, 2.5], (120, 2))
    second[:, 6] += rng.choice([0, 1e-7, -1e-4, 1e-2, math.pi / 2, 1], 120)
    want = [cases.slow_iou(a, b) for a, b in zip(first, second)]
    np.testing.assert_allclose(
        box_tensors.bev_iou(first, second), want, atol=5e-6
    )


def test_pairs_broadcast():
    first, second = cases.random_boxes(3, 0), cases.random_boxes(4, 1)
    iou = box_tensors.bev_iou(first[:, None], second)
    assert iou.shape == [3, 4]
    np.testing.assert_allclose(
        iou[2, 3], box_tensors.bev_iou(first[2], second[3]), atol=1e-7
    )


def test_points_in_boxes():
    rng = np.random.default_rng(0)
    boxes = cases.random_boxes(6, 3)
    points = rng.uniform([0, -8, -1, 0], [16, 8, 2, 1], (500, 4))
    inside = box_tensors.points_in_boxes(
        points.astype(np.float32), boxes
    ).numpy()
    assert inside.any(axis=0).all()
    for j, b in enumerate(boxes.astype(np.float64)):
        square = cases.corners(b)
        sides = [
            cases.cross(p, q, points[:, :2].T)
            for p, q in zip(square, np.roll(square, -1, axis=0))
        ]
        want = (np.array(sides) >= 0).all(axis=0)
        want &= np.abs(points[:, 2] - b[2]) <= b[5] / 2
        np.testing.assert_array_equal(inside[:, j], want)
    assert box_tensors.points_in_boxes(points, boxes[:0]).shape == [500, 0]


def test_faces_are_inside():
    points = tf.constant([[1.0, 0.5, 0.25], [1.0001, 0.0, 0.0], [0, 0, 0.26]])
    inside = box_tensors.points_in_boxes(points, box(0, 0, 0, 2, 1, 0.5)[None])
    np.testing.assert_array_equal(inside, [[True], [False], [False]])


def test_codes_by_hand():
    """An anchor of diagonal 5: 4 by 3 metres."""
    anchor = box(1, 2, 0, 4, 3, 2, heading=math.pi / 2)
    target = box(2, -0.5, 1, 8, 3, 1, heading=-2.0)
    codes = box_tensors.encode(target, anchor)
    # -2 - pi/2 is farther than half a turn.
    want = {
        "x": 0.2, "y": -0.5, "z": 0.5, "length": math.log(2), "width": 0.0,
        "height": -math.log(2), "rotation": 2 * math.pi - 2 - math.pi / 2,
        "direction": 1.0,
    }  # fmt: skip
    assert codes.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(codes[name], value, rtol=1e-6, atol=1e-7)


def test_round_trip():
    """Every heading comes back, from either anchor and any half turn."""
    count = 400
    boxes = cases.random_boxes(count, 4)
    boxes[:, 6] = np.linspace(-math.pi, math.pi, count, endpoint=False)
    anchors = np.tile(np.float32([3, 1, 0.5, 4, 2, 1.5, 0]), (count, 1))
    anchors[::2, 6] = math.pi / 2
    codes = box_tensors.encode(boxes, anchors)
    # A quarter turn from the anchor is on the edge of forwards.
    turn = np.abs(codes["rotation"])
    boxes[np.abs(turn - math.pi / 2) < 1e-3, 6] += 0.01
    codes = box_tensors.encode(boxes, anchors)
    for half_turns in (0, 1, -3):
        turned = codes["rotation"] + half_turns * math.pi
        decoded = box_tensors.decode(
            {**codes, "rotation": turned}, anchors
        ).numpy()
        np.testing.assert_allclose(decoded[:, :6], boxes[:, :6], atol=1e-4)
        wrong = np.exp(1j * decoded[:, 6]) - np.exp(1j * boxes[:, 6])
        np.testing.assert_allclose(wrong, 0, atol=1e-5)
        assert (np.abs(decoded[:, 6]) <= math.pi + 1e-6).all()
    turned = box_tensors.decode(
        {**codes, "direction": 1 - codes["direction"]}, anchors
    ).numpy()
    wrong = np.exp(1j * turned[:, 6]) + np.exp(1j * boxes[:, 6])
    np.testing.assert_allclose(wrong, 0, atol=1e-5)


def test_a_quarter_turn_is_one_or_the_other():
    quarter = math.pi / 2
    turns = np.float32([quarter, -quarter])
    for turn in (turns, np.nextafter(turns, 9), np.nextafter(turns, -9)):
        boxes = np.zeros([2, 7], np.float32)
        boxes[:, 3:6], boxes[:, 6] = 1, turn
        decoded = box_tensors.decode(box_tensors.encode(boxes, box()), box())
        np.testing.assert_allclose(decoded, boxes, atol=1e-6)


def test_the_direction_is_told_from_the_anchor():
    """Forwards within a quarter turn of the anchor, whatever its heading."""
    for anchor_heading in (0.0, math.pi / 2):
        for turn, want in [(0.0, 0), (1.5, 0), (-1.5, 0), (1.6, 1), (3.1, 1)]:
            codes = box_tensors.encode(
                box(heading=anchor_heading + turn), box(heading=anchor_heading)
            )
            assert codes["direction"] == want


def test_no_box_is_endless():
    zero = dict.fromkeys([*box_tensors.RESIDUALS, "direction"], 0.0)
    decoded = box_tensors.decode({**zero, "length": 1e3, "width": -1e3}, box())
    np.testing.assert_allclose(decoded[3:6], [math.exp(4), math.exp(-4), 1])


@pytest.mark.parametrize(
    ("angle", "want"),
    [(0, 0), (math.pi, -math.pi), (-math.pi, -math.pi), (7, 7 - 2 * math.pi)],
)
def test_wrap(angle, want):
    np.testing.assert_allclose(
        box_tensors.wrap_angle(tf.constant(angle, tf.float64)), want
    )
