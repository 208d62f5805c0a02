"""Random changes of training frames.

Objects of other frames are pasted in, then all of it is mirrored, turned and
scaled; points and boxes move together.
"""

import dataclasses
import math
from collections.abc import Mapping

import tensorflow as tf

from trainers.models.pointpillars import box_tensors, pasting


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The strength of the random changes.

    Attributes:
        flip_axes: Of `x` and `y`, those along which a frame is mirrored, each
            for half of the frames.
        max_rotation: Largest rotation about z to either side, in radians.
        scales: Smallest and largest factor of all lengths.
        num_pasted: Objects of other frames to try to paste in.

    Raises:
        ValueError: For values that mean nothing.
    """

    flip_axes: tuple[str, ...] = ("x", "y")
    max_rotation: float = math.pi / 4
    scales: tuple[float, float] = (0.95, 1.05)
    num_pasted: int = 15

    def __post_init__(self):
        """Validates the fields."""
        if not {*self.flip_axes} <= {"x", "y"}:
            raise ValueError(
                f"flip_axes: got {self.flip_axes}, expected some of x and y."
            )
        if not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(
                f"scales: got {self.scales}, expected a positive smallest and "
                "a largest factor."
            )
        if self.max_rotation < 0 or self.num_pasted < 0:
            raise ValueError(
                f"max_rotation, num_pasted: got {self.max_rotation}, "
                f"{self.num_pasted}, expected at least 0."
            )


def augment(
    frame: Mapping[str, tf.Tensor],
    augmentation: Augmentation,
    seed,
    store: pasting.ObjectStore | None = None,
) -> dict[str, tf.Tensor]:
    """Changes a frame at random.

    Args:
        frame: `points` `[N, F]`, `boxes` `[M, 7]`, `num_points` `[M]`.
        augmentation: How much.
        seed: Two integers, which decide all of it.
        store: Objects to paste; None to paste nothing.

    Returns:
        The changed frame.
    """
    seeds = tf.unstack(tf.random.split(seed, 5))
    if store is not None:
        frame = pasting.paste_objects(
            frame, store, augmentation.num_pasted, seeds[4]
        )
    points, boxes = frame["points"], frame["boxes"]
    for axis, axis_seed in zip("xy", seeds[:2], strict=True):
        if axis in augmentation.flip_axes:
            flips = tf.random.stateless_uniform([], axis_seed) < 0.5
            flipped = flip(points, boxes, axis)
            points = tf.where(flips, flipped[0], points)
            boxes = tf.where(flips, flipped[1], boxes)
    limit = augmentation.max_rotation
    angle = tf.random.stateless_uniform([], seeds[2], -limit, limit)
    points, boxes = rotate(points, boxes, angle)
    factor = tf.random.stateless_uniform([], seeds[3], *augmentation.scales)
    points, boxes = scale(points, boxes, factor)
    return {
        "points": points,
        "boxes": boxes,
        "num_points": frame["num_points"],
    }


def flip(points, boxes, axis: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Flips the sign of a coordinate.

    Args:
        points: `[N, F]`.
        boxes: `[M, 7]`.
        axis: `x` or `y`.

    Returns:
        The points and boxes.
    """
    heading = boxes[:, 6:]
    if axis == "x":
        signs, heading = tf.constant([-1.0, 1.0]), math.pi - heading
    else:
        signs, heading = tf.constant([1.0, -1.0]), -heading
    return (
        tf.concat([points[:, :2] * signs, points[:, 2:]], axis=1),
        tf.concat(
            [
                boxes[:, :2] * signs,
                boxes[:, 2:6],
                box_tensors.wrap_angle(heading),
            ],
            axis=1,
        ),
    )


def rotate(points, boxes, angle) -> tuple[tf.Tensor, tf.Tensor]:
    """Rotates counterclockwise about the z axis.

    Args:
        points: `[N, F]`.
        boxes: `[M, 7]`.
        angle: Radians.

    Returns:
        The points and boxes.
    """
    cosine, sine = tf.cos(angle), tf.sin(angle)
    turn = tf.stack([[cosine, sine], [-sine, cosine]])
    heading = box_tensors.wrap_angle(boxes[:, 6:] + angle)
    return (
        tf.concat([points[:, :2] @ turn, points[:, 2:]], axis=1),
        tf.concat([boxes[:, :2] @ turn, boxes[:, 2:6], heading], axis=1),
    )


def scale(points, boxes, factor) -> tuple[tf.Tensor, tf.Tensor]:
    """Multiplies all lengths by a factor.

    Args:
        points: `[N, F]`.
        boxes: `[M, 7]`.
        factor: A positive number.

    Returns:
        The points and boxes.
    """
    return (
        tf.concat([points[:, :3] * factor, points[:, 3:]], axis=1),
        tf.concat([boxes[:, :6] * factor, boxes[:, 6:]], axis=1),
    )
