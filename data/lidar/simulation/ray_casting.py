"""Intersections of rays with the ground and with upright boxes."""

import dataclasses
from collections.abc import Sequence

import numpy as np

NOTHING, GROUND = -2, -1


@dataclasses.dataclass(frozen=True)
class Hits:
    """The first intersection of each ray.

    Attributes:
        distances: Metres to the nearest surface, `[R]`; infinite for none.
        solids: Index of the solid it belongs to, `[R]`, or `GROUND`, or
            `NOTHING`.
        parts: Index of the box of that solid, `[R]`; 0 for the ground.
        distances_behind: Metres to the nearest surface of anything else,
            `[R]`; infinite for none.
    """

    distances: np.ndarray
    solids: np.ndarray
    parts: np.ndarray
    distances_behind: np.ndarray


def cast(
    origins: np.ndarray,
    directions: np.ndarray,
    solids: Sequence[np.ndarray],
    max_distance: float,
) -> Hits:
    """Follows rays to the ground, z = 0, and to solids.

    Args:
        origins: Where the rays start, `[R, 3]`; above the ground and outside
            of all solids.
        directions: Unit vectors, `[R, 3]`.
        solids: The boxes of each solid, `[parts, 7]`: centre x, y, z, length,
            width, height, heading.
        max_distance: Metres beyond which solids may be overlooked.

    Returns:
        What each ray meets first, and how far it is to what comes behind it.
    """
    falling = directions[:, 2] < 0.0
    nearest = np.full(len(origins), np.inf)
    nearest[falling] = -origins[falling, 2] / directions[falling, 2]
    owners = np.where(falling, GROUND, NOTHING)
    parts = np.zeros(len(origins), np.int64)
    behind = np.full(len(origins), np.inf)
    middle = origins.mean(axis=0)
    spread = np.linalg.norm(origins - middle, axis=1).max(initial=0.0)
    for index, boxes in enumerate(solids):
        center, radius = _sphere(boxes)
        away = np.linalg.norm(center - middle)
        if away > max_distance + spread + radius:
            continue
        rays = np.flatnonzero(_may_meet(origins, directions, center, radius))
        distances = np.stack(
            [_to_box(origins[rays], directions[rays], box) for box in boxes]
        )
        part = np.argmin(distances, axis=0)
        distance = np.min(distances, axis=0)
        closer = distance < nearest[rays]
        behind[rays] = np.minimum(
            behind[rays], np.where(closer, nearest[rays], distance)
        )
        met = rays[closer]
        nearest[met] = distance[closer]
        owners[met] = index
        parts[met] = part[closer]
    return Hits(nearest, owners, parts, behind)


def _sphere(boxes) -> tuple[np.ndarray, float]:
    """Returns centre and radius of a sphere around some boxes."""
    center = boxes[:, :3].mean(axis=0)
    reach = np.linalg.norm(boxes[:, 3:6], axis=1) / 2
    away = np.linalg.norm(boxes[:, :3] - center, axis=1)
    return center, np.max(away + reach)


def _may_meet(origins, directions, center, radius) -> np.ndarray:
    """Returns which rays pass through a sphere."""
    to_center = center - origins
    along = np.einsum("ri,ri->r", to_center, directions)
    squared = np.einsum("ri,ri->r", to_center, to_center)
    return (along > -radius) & (squared - along * along <= radius * radius)


def _to_box(origins, directions, box) -> np.ndarray:
    """Returns the distance at which each ray enters a box, or infinity."""
    x, y, z, length, width, height, heading = box
    cos, sin = np.cos(heading), np.sin(heading)
    rotation = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
    start = (origins - (x, y, z)) @ rotation.T
    step = directions @ rotation.T
    half = np.array([length, width, height]) / 2
    # A ray along a face divides by zero; infinity compares correctly.
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (-half - start) / step, (half - start) / step
    enter = np.minimum(low, high).max(axis=1)
    leave = np.maximum(low, high).min(axis=1)
    return np.where((enter > 0.0) & (enter <= leave), enter, np.inf)
