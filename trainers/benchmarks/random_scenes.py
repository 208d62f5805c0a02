"""Random frames to measure the speed of lidar detection with."""

import numpy as np
import tensorflow as tf

from data.lidar import labels
from trainers.detection import boxes

# Length, width, height in metres, by type.
_SIDES = np.array(
    [
        [1.0, 1.0, 1.0],
        [4.7, 2.1, 1.7],
        [0.9, 0.9, 1.8],
        [0.2, 0.8, 0.8],
        [1.8, 0.8, 1.8],
    ]
)
_SHARES = (0.0, 0.6, 0.25, 0.05, 0.1)
_FARTHEST = 75.0
_DETECTED = 0.8
NUM_POINTS = 180_000
_NUM_BOXES = 100


def random_scenes(
    num_frames: int = 400,
    num_predictions: int = 18_000,
    num_ground_truths: int = 12_000,
    seed: int = 0,
) -> tuple[boxes.Predictions, boxes.GroundTruths]:
    """Draws frames with boxes and plausible predictions.

    Four of five predictions are a box slightly moved, resized and turned; the
    others are anywhere. The closer to its box, the higher is the score.

    Args:
        num_frames: Number of frames, over which the boxes are spread at random.
        num_predictions: Predictions in all frames together.
        num_ground_truths: Ground-truth boxes in all frames, at least one.
        seed: Seed of all draws.

    Returns:
        The predictions and the ground-truth boxes.
    """
    rng = np.random.default_rng(seed)
    truths = boxes.GroundTruths(
        rng.integers(0, num_frames, num_ground_truths),
        *_random_boxes(rng, num_ground_truths),
        rng.integers(1, len(labels.DIFFICULTIES), num_ground_truths),
    )
    clutter, types = _random_boxes(rng, num_predictions)
    origin = rng.integers(0, num_ground_truths, num_predictions)
    detected = rng.random(num_predictions) < _DETECTED
    blur = rng.exponential(0.06, (num_predictions, 1))
    noise = rng.normal(size=(num_predictions, 7)) * blur
    near = truths.bbox[origin]
    near[:, :3] += noise[:, :3] * near[:, 3:6]
    near[:, 3:6] *= np.exp(noise[:, 3:6])
    near[:, 6] += noise[:, 6]
    near[:, 6] += np.pi * (rng.random(num_predictions) < 0.05)
    scores = np.exp(-5.0 * blur[:, 0]) * rng.uniform(0.5, 1.0, num_predictions)
    scores *= np.where(detected, 1.0, rng.random(num_predictions))
    predictions = boxes.Predictions(
        np.where(
            detected,
            truths.frame_id[origin],
            rng.integers(0, num_frames, num_predictions),
        ),
        np.where(detected[:, None], near, clutter),
        np.where(detected, truths.type[origin], types),
        scores.astype(np.float32),
        rng.random(num_predictions) < 0.05,
    )
    return predictions, truths


def _random_boxes(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws boxes `[size, 7]` and their types."""
    types = rng.choice(len(_SHARES), size, p=_SHARES)
    found = np.empty((size, 7))
    found[:, :2] = rng.uniform(-1.0, 1.0, (size, 2)) * _FARTHEST
    found[:, 2] = rng.normal(1.0, 0.3, size)
    found[:, 3:6] = _SIDES[types] * np.exp(rng.normal(0.0, 0.15, (size, 3)))
    found[:, 6] = rng.uniform(-np.pi, np.pi, size)
    return found, types


def random_frame(num_points: int = NUM_POINTS) -> dict[str, tf.Tensor]:
    """Draws a frame whose points are dense near the sensor, like a lidar's.

    Args:
        num_points: Number of points.

    Returns:
        A frame, see `trainers.models.pointpillars.encoding`.
    """
    generator = np.random.default_rng(0)
    distance = np.exp(generator.uniform(np.log(2.0), np.log(75.0), num_points))
    azimuth = generator.uniform(-np.pi, np.pi, num_points)
    points = np.column_stack(
        [
            distance * np.cos(azimuth),
            distance * np.sin(azimuth),
            generator.uniform(-0.2, 2.8, num_points),
            generator.random((num_points, 2)),
        ]
    )
    _, truths = random_scenes(1, 1, _NUM_BOXES)
    boxes = truths.bbox[truths.type == labels.VEHICLE]
    return {
        "points": tf.constant(points, tf.float32),
        "boxes": tf.constant(boxes, tf.float32),
        "num_points": tf.fill([len(boxes)], _NUM_BOXES),
    }
