"""Augmentation: points and boxes move together."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from trainers.models.pointpillars import augmentation as augmentation_lib
from trainers.models.pointpillars import box_tensors
from trainers.models.pointpillars.augmentation import Augmentation

NONE = Augmentation(flip_axes=(), max_rotation=0.0, scales=(1.0, 1.0))
augment = tf.function(augmentation_lib.augment)


def boxes_as_points(boxes):
    """A box's nose, left side and top, moved as points are."""
    boxes = np.asarray(boxes, np.float64)
    ahead = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], -1)
    nose, top = boxes[:, :3].copy(), boxes[:, :3].copy()
    nose[:, :2] += ahead * boxes[:, 3:4] / 2
    top[:, 2] += boxes[:, 5] / 2
    return np.concatenate([nose, top])


MOVES = {
    "flip x": (
        lambda p, b: augmentation_lib.flip(p, b, "x"),
        lambda p: p * [-1, 1, 1],
    ),
    "flip y": (
        lambda p, b: augmentation_lib.flip(p, b, "y"),
        lambda p: p * [1, -1, 1],
    ),
    "rotate": (
        lambda p, b: augmentation_lib.rotate(p, b, tf.constant(0.6)),
        lambda p: np.stack(
            [
                p[:, 0] * math.cos(0.6) - p[:, 1] * math.sin(0.6),
                p[:, 0] * math.sin(0.6) + p[:, 1] * math.cos(0.6),
                p[:, 2],
            ],
            axis=-1,
        ),
    ),
    "scale": (
        lambda p, b: augmentation_lib.scale(p, b, tf.constant(1.05)),
        lambda p: p * 1.05,
    ),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name):
    move, want = MOVES[name]
    points = cases.random_frame(0, 400)["points"].numpy()
    boxes = cases.random_boxes(6, 0)
    moved_points, moved_boxes = move(points, boxes)
    np.testing.assert_allclose(
        moved_points[:, :3], want(points[:, :3]), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_array_equal(moved_points[:, 3:], points[:, 3:])
    np.testing.assert_allclose(
        boxes_as_points(moved_boxes), want(boxes_as_points(boxes)), atol=1e-4
    )
    sizes = boxes[:, 3:6] * (1.05 if name == "scale" else 1.0)
    np.testing.assert_allclose(moved_boxes[:, 3:6], sizes, rtol=1e-6)
    assert (np.abs(moved_boxes[:, 6]) <= math.pi + 1e-6).all()
    inside = box_tensors.points_in_boxes(points, boxes)
    assert inside.numpy().any()
    np.testing.assert_array_equal(
        box_tensors.points_in_boxes(moved_points, moved_boxes), inside
    )


def test_switched_off_it_changes_nothing():
    frame = cases.random_frame(0)
    same = augment(frame, NONE, (0, 0))
    for name, value in frame.items():
        np.testing.assert_allclose(same[name], value, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        (Augmentation((), 0.0, (0.9, 1.1)), 0.9, 1.1),
        (Augmentation((), 0.5, (1.0, 1.0)), -0.5, 0.5),
    ],
)
def test_range_of_the_draws(settings, low, high):
    """A marker at (1, 0) shows the factor and the angle."""
    frame = cases.empty_frame() | {"points": tf.constant([[1.0, 0, 0, 0]])}
    found = []
    for seed in range(50):
        x, y = augment(frame, settings, tf.constant([5, seed]))["points"][0, :2]
        found.append(x if low > 0 else math.atan2(y, x))
    assert low <= min(found) < low + 0.15 * (high - low)
    assert high - 0.15 * (high - low) < max(found) <= high


def test_flips_are_drawn_by_themselves():
    frame = cases.empty_frame() | {"points": tf.constant([[1.0, 2.0, 0, 0]])}
    counts = {}
    for axes in (("x", "y"), ("y",)):
        settings = Augmentation(axes, 0.0, (1.0, 1.0))
        points = [
            augment(frame, settings, tf.constant([5, seed]))["points"][0, :2]
            for seed in range(60)
        ]
        signs, counts[axes] = np.unique(
            np.sign(points), axis=0, return_counts=True
        )
        assert len(signs) == 2 ** len(axes)
    # 60 draws of probability 1/4 and 1/2.
    assert counts["x", "y"].min() >= 4 and counts[("y",)].min() >= 14


def test_a_seed_repeats():
    frame = cases.random_frame(0)
    first, again, other = (
        augment(frame, Augmentation(), tf.constant(seed))["points"].numpy()
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_empty_frame():
    same = augment(cases.empty_frame(), Augmentation(), (0, 0))
    assert same["points"].shape == [0, 4] and same["boxes"].shape == [0, 7]
