"""Encodes frames as inputs of the network and targets of its losses."""

from collections.abc import Mapping

import tensorflow as tf

from trainers.models.pointpillars import anchors, pillars
from trainers.models.pointpillars.presets import Preset


def encode_frame(
    frame: Mapping[str, tf.Tensor], preset: Preset, seed
) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
    """Encodes a frame as the inputs and targets of a training step.

    Boxes with fewer than `min_num_points` points, and those whose centre is
    outside of the grid seen from above, are left out.

    Args:
        frame: `points` `[N, F]`, `boxes` `[M, 7]`, `num_points` `[M]`.
        preset: Values of the detector.
        seed: Two integers, which decide what pillars keep.

    Returns:
        The inputs, as `pillars.pillarize`, and the targets, as
        `anchors.assign` makes them.

    Example:
        >>> batches = frames.map(
        ...     lambda frame: encode_frame(frame, preset, seed=(0, 0))
        ... ).batch(2, drop_remainder=True)
        >>> model.fit(batches)
    """
    boxes = frame["boxes"]
    x, y = boxes[:, 0], boxes[:, 1]
    (first_x, last_x), (first_y, last_y) = (
        preset.grid.x_range,
        preset.grid.y_range,
    )
    trained = (
        (frame["num_points"] >= preset.min_num_points)
        & (x >= first_x)
        & (x < last_x)
        & (y >= first_y)
        & (y < last_y)
    )
    return (
        pillars.pillarize(frame["points"], preset, seed),
        anchors.assign(tf.boolean_mask(boxes, trained), preset),
    )
