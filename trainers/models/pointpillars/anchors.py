"""Anchors: two at each position of the map, each assigned to a box.

Lang et al., CVPR 2019, section 4.3; overlaps are those of rotated boxes seen
from above.
"""

import math

import tensorflow as tf

from trainers.models.pointpillars import box_tensors
from trainers.models.pointpillars.presets import Preset

HEADINGS = (0.0, math.pi / 2)


def num_anchors(preset: Preset) -> int:
    """Returns the number of all anchors of a frame."""
    rows, columns = preset.map_shape
    return rows * columns * len(HEADINGS)


def anchors_at(indices, preset: Preset) -> tf.Tensor:
    """Returns anchors by number: row by row, the headings of a place together.

    Args:
        indices: Integers `[...]` below `num_anchors`.
        preset: Values of the detector.

    Returns:
        Boxes `[..., 7]`.
    """
    columns = preset.map_shape[1]
    places = indices // len(HEADINGS)
    x = tf.cast(places % columns, tf.float32) + 0.5
    y = tf.cast(places // columns, tf.float32) + 0.5
    fixed = tf.constant([preset.anchor_z, *preset.anchor_size])
    heading = tf.gather(tf.constant(HEADINGS), indices % len(HEADINGS))
    return tf.concat(
        [
            (preset.grid.x_range[0] + x * preset.map_stride)[..., None],
            (preset.grid.y_range[0] + y * preset.map_stride)[..., None],
            tf.ones_like(x)[..., None] * fixed,
            heading[..., None],
        ],
        axis=-1,
    )


def assign(boxes, preset: Preset) -> dict[str, tf.Tensor]:
    """Computes the targets of all losses.

    An anchor is positive for the box that it overlaps most, from
    `positive_iou` on; the best anchor of each box is positive for that box in
    any case (of equal ones the first; of boxes with one best anchor the last
    has it). Below `negative_iou` with every box it is negative, between the
    two it does not count.

    Args:
        boxes: `[M, 7]`, with centres inside of the grid.
        preset: Values of the detector.

    Returns:
        For each loss float32 `[rows, columns, 2]`, NaN where the anchor does
        not count in that loss: `class` is 1 for positive and 0 for negative
        anchors; all others are what `boxes.encode` gives for the positive
        ones.
    """
    count = num_anchors(preset)
    box, anchor = _near_pairs(boxes, preset)
    iou = box_tensors.bev_iou(tf.gather(boxes, box), anchors_at(anchor, preset))
    best_of_anchor = tf.math.unsorted_segment_max(iou, anchor, count)
    best_of_box = tf.math.unsorted_segment_max(iou, box, tf.shape(boxes)[0])

    is_match = (iou >= preset.positive_iou) & (
        iou == tf.gather(best_of_anchor, anchor)
    )
    match = _last_box(tf.where(is_match, box, -1), anchor, count)
    is_best = (iou > 0) & (iou == tf.gather(best_of_box, box))
    best_anchor = tf.math.unsorted_segment_min(
        tf.where(is_best, anchor, count), box, tf.shape(boxes)[0]
    )
    is_first = is_best & (anchor == tf.gather(best_anchor, box))
    forced = _last_box(tf.where(is_first, box, -1), anchor, count)
    match = tf.where(forced >= 0, forced, match)

    background = tf.where(best_of_anchor < preset.negative_iou, 0.0, math.nan)
    positive = tf.where(match >= 0)[:, 0]
    codes = box_tensors.encode(
        tf.gather(boxes, tf.gather(match, positive)),
        anchors_at(tf.cast(positive, tf.int32), preset),
    )
    targets = {"class": tf.where(match >= 0, 1.0, background)}
    for name, values in codes.items():
        targets[name] = tf.tensor_scatter_nd_update(
            tf.fill([count], math.nan), positive[:, None], values
        )
    shape = [*preset.map_shape, len(HEADINGS)]
    return {name: tf.reshape(t, shape) for name, t in targets.items()}


def _last_box(box, anchor, count: int) -> tf.Tensor:
    """Returns the largest box number at each anchor, -1 if there is none."""
    return tf.maximum(tf.math.unsorted_segment_max(box, anchor, count), -1)


def _near_pairs(boxes, preset: Preset) -> tuple[tf.Tensor, tf.Tensor]:
    """Lists the pairs of boxes and anchors that lie near each other.

    Left out are anchors whose centre is farther from the box's, along x or y,
    than half a diagonal of the larger of the two. A line between them through
    either centre then halves that rectangle, so that the overlap is below
    half of each and the IoU below 1/3.
    """
    rows, columns = preset.map_shape
    diagonals = tf.norm(boxes[:, 3:5], axis=1)
    reach = tf.maximum(diagonals, math.hypot(*preset.anchor_size[:2])) / 2
    first_column, num_columns = _window(
        boxes[:, 0] - preset.grid.x_range[0], reach, preset.map_stride, columns
    )
    first_row, num_rows = _window(
        boxes[:, 1] - preset.grid.y_range[0], reach, preset.map_stride, rows
    )
    counts = num_rows * num_columns * len(HEADINGS)
    box = tf.repeat(tf.range(tf.size(counts)), counts)
    before = tf.gather(tf.cumsum(counts, exclusive=True), box)
    number = tf.range(tf.size(box)) - before
    place, heading = number // len(HEADINGS), number % len(HEADINGS)
    width = tf.gather(num_columns, box)
    row = tf.gather(first_row, box) + place // width
    column = tf.gather(first_column, box) + place % width
    return box, (row * columns + column) * len(HEADINGS) + heading


def _window(
    centre, reach, stride: float, limit: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first position within reach of a centre, and their number."""
    first = tf.math.ceil((centre - reach) / stride - 0.5)
    last = tf.math.floor((centre + reach) / stride - 0.5)
    first = tf.clip_by_value(tf.cast(first, tf.int32), 0, limit)
    last = tf.clip_by_value(tf.cast(last, tf.int32), -1, limit - 1)
    return first, tf.maximum(last - first + 1, 0)
