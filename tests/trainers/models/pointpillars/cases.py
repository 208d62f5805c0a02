"""A tiny detector, frames for it, and slow geometry to compare with."""

import dataclasses
import functools
import math

import numpy as np
import tensorflow as tf

from trainers.models.pointpillars import encoding, presets

TINY = presets.Preset(
    grid=presets.Grid((0.0, 16.0), (-8.0, 8.0), (-2.0, 2.0), 1.0),
    anchor_size=(4.0, 2.0, 1.5),
    anchor_z=0.5,
    num_point_features=4,
    max_points=48,
    max_pillars=12,
    max_points_per_pillar=3,
    pillar_channels=4,
    block_depths=(1, 0),
    block_strides=(1, 2),
    block_channels=(4, 6),
    upsampled_channels=3,
    max_candidates=64,
    max_detections=8,
)
ROOMY = dataclasses.replace(
    TINY, max_points=500, max_pillars=256, max_points_per_pillar=100
)


def random_boxes(count: int, seed: int) -> np.ndarray:
    """Draws vehicles, trucks and odd boxes all over the tiny grid."""
    rng = np.random.default_rng(seed)
    boxes = np.empty([count, 7], np.float32)
    boxes[:, 0] = rng.uniform(0, 16, count)
    boxes[:, 1] = rng.uniform(-8, 8, count)
    boxes[:, 2] = rng.uniform(0, 1, count)
    boxes[:, 3:6] = rng.normal([4, 2, 1.5], [0.4, 0.2, 0.2], (count, 3))
    boxes[:, 6] = rng.choice([0, 1.57, -1.6, 3.1], count)
    boxes[:, 6] += rng.normal(0, 0.1, count)
    odd = rng.random(count) < 0.3
    boxes[odd, 3] *= rng.choice([0.3, 2.5], count)[odd]
    boxes[odd, 6] = rng.uniform(-math.pi, math.pi, count)[odd]
    return boxes


def random_frame(seed: int, num_points: int = 40) -> dict[str, tf.Tensor]:
    """A frame with two boxes and some points."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, -8, -2, 0], [16, 8, 2, 1], (num_points, 4))
    boxes = [[4, 0, 0.5, 4, 2, 1.5, 0.1], [11, 3, 0.4, 3.8, 1.9, 1.6, -1.5]]
    return {
        "points": tf.constant(points, tf.float32),
        "boxes": tf.constant(boxes, tf.float32),
        "num_points": tf.constant([9, 9]),
    }


def empty_frame() -> dict[str, tf.Tensor]:
    """A frame with nothing in it."""
    return {
        "points": tf.zeros([0, 4]),
        "boxes": tf.zeros([0, 7]),
        "num_points": tf.zeros([0], tf.int32),
    }


def encode_batch(frames_, preset=TINY, seed=(0, 0)):
    """Inputs and targets of several frames."""
    encoded = [encoding.encode_frame(f, preset, seed) for f in frames_]
    return tf.nest.map_structure(lambda *t: tf.stack(t), *encoded)


def corners(box) -> np.ndarray:
    """Corners `[4, 2]` of a box seen from above, counterclockwise."""
    x, y, _, length, width, _, heading = np.asarray(box, np.float64)
    ahead = np.array([math.cos(heading), math.sin(heading)]) * length / 2
    aside = np.array([-math.sin(heading), math.cos(heading)]) * width / 2
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    return np.array([[x, y] + a * ahead + b * aside for a, b in signs])


def _area(polygon) -> float:
    pairs = zip(polygon, [*polygon[1:], *polygon[:1]])
    return sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs) / 2


def cross(a, b, p) -> float:
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


def slow_iou(first, second) -> float:
    """IoU seen from above: one polygon cut by each edge of the other."""
    polygon = [tuple(p) for p in corners(first)]
    window = corners(second)
    for a, b in zip(window, np.roll(window, -1, axis=0)):
        cut = []
        for p, q in zip(polygon, [*polygon[1:], *polygon[:1]]):
            height_p, height_q = cross(a, b, p), cross(a, b, q)
            if height_p >= 0:
                cut.append(p)
            if height_p * height_q < 0:
                t = height_p / (height_p - height_q)
                cut.append(tuple(u + t * (v - u) for u, v in zip(p, q)))
        polygon = cut
        if not polygon:
            return 0.0
    shared = _area(polygon)
    total = _area(list(corners(first))) + _area(list(window)) - shared
    return shared / total if total > 0 else 0.0


@functools.cache
def tiny_anchors() -> np.ndarray:
    """All anchors of the tiny detector, `[16, 16, 2, 7]`, with loops."""
    anchors = np.empty([16, 16, 2, 7])
    for row in range(16):
        for column in range(16):
            for index, heading in enumerate([0, math.pi / 2]):
                x, y = column + 0.5, row + 0.5 - 8
                anchors[row, column, index] = [x, y, 0.5, 4, 2, 1.5, heading]
    return anchors
