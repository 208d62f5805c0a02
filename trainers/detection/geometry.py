"""Rotated boxes: overlap, intersection over union, heading.

A box is (x, y, z, length, width, height, heading) in 3D and (x, y, length,
width, heading) in bird's eye view: its centre, its sides in metres, and the
angle in radians from the x axis to its length.
"""

import numpy as np

_BIRDS_EYE = (0, 1, 3, 4, 6)
# Boxes with a side outside of these bounds, in metres, overlap with nothing.
_SMALLEST_SIDE, _LARGEST_SIDE = 1e-2, 1e6
_CORNERS = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])


def birds_eye_view(boxes: np.ndarray) -> np.ndarray:
    """Drops z and height of boxes `[..., 7]`; `[..., 5]` stay."""
    return boxes if boxes.shape[-1] == 5 else boxes[..., _BIRDS_EYE]


def sides(boxes: np.ndarray) -> np.ndarray:
    """Picks the lengths of the sides: `[..., 3]` in 3D, `[..., 2]` in 2D."""
    return boxes[..., 2:4] if boxes.shape[-1] == 5 else boxes[..., 3:6]


def distance(boxes: np.ndarray) -> np.ndarray:
    """Returns the distance of the boxes' centres from the origin."""
    return np.linalg.norm(boxes[..., : boxes.shape[-1] // 2], axis=-1)


def overlap_area(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes the area that pairs of boxes share in bird's eye view.

    In the frame of the second box, the outline of the first is clamped to it,
    each coordinate on its own. On the way nothing outside of the second box
    passes a point inside, so the clamped outline still goes once round the
    points that are in both boxes, and round no others: it encloses the
    overlap. It is a polygon whose corners are those of the first box and
    where an edge meets the line of one of the second box's sides. Sides that
    coincide need no care.

    Args:
        first: Boxes `[..., 5]`.
        second: Boxes `[..., 5]`.

    Returns:
        Square metres, `[...]`.
    """
    cos, sin = np.cos(second[..., 4]), np.sin(second[..., 4])
    x, y = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    centre = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
    turn = first[..., 4] - second[..., 4]
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.stack([cos, sin, -sin, cos], axis=-1)
    corners = centre[..., None, :] + (
        first[..., None, 2:4] / 2.0 * _CORNERS
    ) @ rotation.reshape(*turn.shape, 2, 2)
    edges = np.roll(corners, -1, axis=-2) - corners

    limits = second[..., None, 2:4] / 2.0
    crossings = np.concatenate([limits - corners, -limits - corners], axis=-1)
    slopes = np.concatenate([edges, edges], axis=-1)
    parts = np.zeros_like(crossings)
    np.divide(crossings, slopes, out=parts, where=slopes != 0.0)
    parts = np.sort(np.clip(parts, 0.0, 1.0), axis=-1)
    points = corners[..., None, :] + parts[..., None] * edges[..., None, :]
    outline = np.concatenate([corners[..., None, :], points], axis=-2)
    outline = outline.reshape(*turn.shape, 20, 2)
    x, y = np.moveaxis(np.clip(outline, -limits, limits), -1, 0)
    return 0.5 * np.sum(
        x * np.roll(y, -1, axis=-1) - y * np.roll(x, -1, axis=-1), axis=-1
    )


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes the intersection over union of pairs of boxes.

    The definition is that of the official metric: a side of at most 0.01 m or
    at least 1e6 m gives 0. (So does a union of at most 1e-6, which sides of
    more than 0.01 m cannot have.)

    Args:
        first: Boxes `[..., 7]` for 3D, `[..., 5]` for bird's eye view.
        second: As many boxes of the same kind.

    Returns:
        Numbers from 0 to 1, `[...]`, float64.

    Example:
        >>> iou(np.array([[0, 0, 1, 2, 0.0]]), np.array([[0.5, 0, 1, 4, 0.0]]))
        array([0.2])
    """
    first, second = np.float64(first), np.float64(second)
    measurable = np.all(
        [
            (sides(boxes) > _SMALLEST_SIDE) & (sides(boxes) < _LARGEST_SIDE)
            for boxes in (first, second)
        ],
        axis=(0, -1),
    )
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shared = overlap_area(birds_eye_view(first), birds_eye_view(second))
        if first.shape[-1] == 7:
            tops = [
                boxes[..., 2] + boxes[..., 5] / 2 for boxes in (first, second)
            ]
            bottoms = [
                boxes[..., 2] - boxes[..., 5] / 2 for boxes in (first, second)
            ]
            # Negative if one is above the other.
            shared *= np.minimum(*tops) - np.maximum(*bottoms)
        union = (
            np.prod(sides(first), axis=-1)
            + np.prod(sides(second), axis=-1)
            - shared
        )
        ratio = np.clip(shared / union, 0.0, 1.0)
    return np.where(measurable, ratio, 0.0)


def heading_accuracy(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes how well headings agree: 1 - |wrapped difference| / pi.

    Args:
        first: Radians, `[...]`.
        second: Radians, `[...]`.

    Returns:
        Numbers from 0 (opposite) to 1 (equal), `[...]`.
    """
    turns = (np.float64(first) - second) / (2.0 * np.pi)
    return 1.0 - 2.0 * np.abs(turns - np.rint(turns))
