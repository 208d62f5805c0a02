"""Boxes: their overlap, the points in them, and their coding on anchors.

A box is (x, y, z, length, width, height, heading): its centre and sizes in
metres, and its heading in radians, counterclockwise from x.
"""

import math
from collections.abc import Mapping

import tensorflow as tf

# Offsets to the centre, sizes and heading of a box, coded on an anchor.
RESIDUALS = ("x", "y", "z", "length", "width", "height", "rotation")

# Bounds the output of an untrained network: exp(4) is 55 times the anchor.
_LARGEST_LOG_SIZE = 4.0


def wrap_angle(angle) -> tf.Tensor:
    """Wraps angles in radians to [-pi, pi)."""
    return tf.math.floormod(angle + math.pi, 2 * math.pi) - math.pi


def bev_intersection(boxes, others) -> tf.Tensor:
    """Computes the overlap of boxes seen from above.

    The overlap of a polygon with the rectangle |x| <= a, |y| <= b is, by
    Green's theorem, the integral of clip(x, -a, a) dy along the polygon where
    |y| <= b: on an edge, a length times a mean. So no corner of the overlap
    has to be found, and boxes that share edges need no special case.

    Args:
        boxes: `[..., 7]`.
        others: `[..., 7]`, of a shape that broadcasts with it.

    Returns:
        Areas `[...]` in square metres.
    """
    x, y = _corners_in_frame(boxes, others)
    next_x, next_y = tf.roll(x, -1, axis=-1), tf.roll(y, -1, axis=-1)
    a, b = tf.unstack(others[..., None, 3:5] / 2, axis=-1)
    low, high = tf.clip_by_value(y, -b, b), tf.clip_by_value(next_y, -b, b)
    run, rise = next_x - x, next_y - y
    first = x + run * tf.math.divide_no_nan(low - y, rise)
    last = x + run * tf.math.divide_no_nan(high - y, rise)
    area = tf.reduce_sum((high - low) * _mean_clipped(first, last, a), axis=-1)
    return tf.maximum(area, 0.0)


def _corners_in_frame(boxes, frames) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns corners `[..., 4]`, counterclockwise, in other boxes' frames."""
    cosine, sine = tf.cos(frames[..., 6]), tf.sin(frames[..., 6])
    x, y = boxes[..., 0] - frames[..., 0], boxes[..., 1] - frames[..., 1]
    x, y = cosine * x + sine * y, cosine * y - sine * x
    heading = (boxes[..., 6] - frames[..., 6])[..., None]
    ahead = boxes[..., 3, None] / 2 * tf.constant([1.0, -1.0, -1.0, 1.0])
    aside = boxes[..., 4, None] / 2 * tf.constant([1.0, 1.0, -1.0, -1.0])
    cosine, sine = tf.cos(heading), tf.sin(heading)
    return (
        x[..., None] + cosine * ahead - sine * aside,
        y[..., None] + sine * ahead + cosine * aside,
    )


def _mean_clipped(first, last, limit) -> tf.Tensor:
    """Averages `clip(x, -limit, limit)` over x from `first` to `last`."""
    low = tf.clip_by_value(first, -limit, limit)
    high = tf.clip_by_value(last, -limit, limit)
    # The integral is x^2 / 2 inside the limits and limit |x| beyond them.
    beyond = tf.abs(last - high) - tf.abs(first - low)
    integral = (high - low) * (high + low) / 2 + limit * beyond
    flat = tf.equal(first, last)
    ratio = integral / tf.where(flat, tf.ones_like(first), last - first)
    return tf.where(flat, low, ratio)


def bev_iou(boxes, others) -> tf.Tensor:
    """Computes the intersection over union of boxes seen from above.

    Args:
        boxes: `[..., 7]`.
        others: `[..., 7]`, of a shape that broadcasts with it.

    Returns:
        Ratios `[...]` in [0, 1]; 0 for boxes without an area.

    Example:
        >>> first = tf.constant([0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0])
        >>> second = tf.constant([1.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0])
        >>> bev_iou(first, second)  # 1 / 3
    """
    intersection = bev_intersection(boxes, others)
    areas = boxes[..., 3] * boxes[..., 4] + others[..., 3] * others[..., 4]
    return tf.math.divide_no_nan(intersection, areas - intersection)


def points_in_boxes(points, boxes) -> tf.Tensor:
    """Returns which points are in which boxes, faces included.

    Args:
        points: `[N, F]`, with x, y, z first.
        boxes: `[M, 7]`.

    Returns:
        Booleans `[N, M]`.
    """
    x = points[:, 0, None] - boxes[:, 0]
    y = points[:, 1, None] - boxes[:, 1]
    z = points[:, 2, None] - boxes[:, 2]
    cosine, sine = tf.cos(boxes[:, 6]), tf.sin(boxes[:, 6])
    return (
        (2 * tf.abs(cosine * x + sine * y) <= boxes[:, 3])
        & (2 * tf.abs(cosine * y - sine * x) <= boxes[:, 4])
        & (2 * tf.abs(z) <= boxes[:, 5])
    )


def encode(boxes, anchors) -> dict[str, tf.Tensor]:
    """Encodes boxes relative to anchors.

    Offsets in x and y are in diagonals of the anchor seen from above, the one
    in z in its height; sizes are logarithms of ratios (Lang et al., CVPR
    2019, section 3.2). The sine of a heading's difference does not tell a box
    from the one turned by half a turn, which the direction does.

    Args:
        boxes: `[..., 7]`.
        anchors: `[..., 7]`.

    Returns:
        A tensor `[...]` for each name in `RESIDUALS`, and `direction`: 1 where
        the box faces backwards, seen from the anchor, else 0.
    """
    diagonal = tf.norm(anchors[..., 3:5], axis=-1)
    rotation = wrap_angle(boxes[..., 6] - anchors[..., 6])
    sizes = tf.math.log(boxes[..., 3:6] / anchors[..., 3:6])
    return {
        "x": (boxes[..., 0] - anchors[..., 0]) / diagonal,
        "y": (boxes[..., 1] - anchors[..., 1]) / diagonal,
        "z": (boxes[..., 2] - anchors[..., 2]) / anchors[..., 5],
        "length": sizes[..., 0],
        "width": sizes[..., 1],
        "height": sizes[..., 2],
        "rotation": rotation,
        "direction": tf.cast(
            tf.abs(rotation - _forwards(rotation)) > math.pi / 2, tf.float32
        ),
    }


def decode(codes: Mapping[str, tf.Tensor], anchors) -> tf.Tensor:
    """Decodes boxes from their codes on anchors.

    Args:
        codes: What `encode` returns. A rotation counts up to half turns: the
            direction decides between the two.
        anchors: `[..., 7]`.

    Returns:
        Boxes `[..., 7]` with headings in [-pi, pi).
    """
    diagonal = tf.norm(anchors[..., 3:5], axis=-1)
    sizes = tf.stack([codes["length"], codes["width"], codes["height"]], -1)
    sizes = tf.clip_by_value(sizes, -_LARGEST_LOG_SIZE, _LARGEST_LOG_SIZE)
    length, width, height = tf.unstack(
        anchors[..., 3:6] * tf.exp(sizes), axis=-1
    )
    heading = anchors[..., 6] + _forwards(codes["rotation"])
    return tf.stack(
        [
            anchors[..., 0] + diagonal * codes["x"],
            anchors[..., 1] + diagonal * codes["y"],
            anchors[..., 2] + anchors[..., 5] * codes["z"],
            length,
            width,
            height,
            wrap_angle(heading + math.pi * codes["direction"]),
        ],
        axis=-1,
    )


def _forwards(rotation) -> tf.Tensor:
    """Adds half turns, to [-pi / 2, pi / 2)."""
    return tf.math.floormod(rotation + math.pi / 2, math.pi) - math.pi / 2
