"""Lidars with the geometry of Waymo's, in more or fewer beams."""

import dataclasses

import numpy as np

from data.lidar.waymo import range_images

TOP, FRONT, SIDE_LEFT, SIDE_RIGHT, REAR = 1, 2, 3, 4, 5
_TOP_RANGE = 75.0
_SIDE_RANGE = 20.0
_TOP_LOWEST, _TOP_HIGHEST = np.radians([-17.6, 2.4])
_SIDE_INCLINATIONS = (-np.pi / 2, np.pi / 6)


@dataclasses.dataclass(frozen=True)
class Lidar:
    """A lidar on the vehicle.

    Attributes:
        name: Its number, as in Waymo.
        calibration: How it is mounted.
        num_rows: Beams.
        num_columns: Azimuths in a turn.
        max_range: Metres up to which it sees.
    """

    name: int
    calibration: range_images.Calibration
    num_rows: int
    num_columns: int
    max_range: float


def _mounted(x: float, y: float, z: float, yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array(
        [[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]]
    )


def _top_inclinations(num_rows: int) -> np.ndarray:
    """Returns beams that lie closer together towards the horizon."""
    share = (np.arange(num_rows) + 0.5) / num_rows
    span = _TOP_HIGHEST - _TOP_LOWEST
    return _TOP_LOWEST + span * (1.0 - (1.0 - share) ** 1.5)


def mount(
    top_shape: tuple[int, int], side_shape: tuple[int, int]
) -> tuple[Lidar, ...]:
    """Mounts five lidars where Waymo's are.

    The one on top has more beams; the others, at the four sides, have
    beams at even distances, straight down to 30 degrees up, and see 20 m.

    Args:
        top_shape: Beams and columns of the lidar on top.
        side_shape: Beams and columns of each other one.

    Returns:
        The lidars in the order of their numbers.
    """
    top = Lidar(
        TOP,
        range_images.Calibration(
            _mounted(1.43, 0.0, 2.18, np.radians(148.0)),
            _top_inclinations(top_shape[0]),
            (_TOP_LOWEST, _TOP_HIGHEST),
        ),
        *top_shape,
        _TOP_RANGE,
    )
    places = {
        FRONT: (4.07, 0.0, 0.69, 0.0),
        SIDE_LEFT: (3.24, 1.02, 0.98, np.pi / 2),
        SIDE_RIGHT: (3.24, -1.02, 0.98, -np.pi / 2),
        REAR: (-1.15, 0.0, 0.46, np.pi),
    }
    sides = [
        Lidar(
            name,
            range_images.Calibration(
                _mounted(*place), np.zeros(0), _SIDE_INCLINATIONS
            ),
            *side_shape,
            _SIDE_RANGE,
        )
        for name, place in places.items()
    ]
    return (top, *sides)


SENSORS = {
    "waymo": mount((64, 2650), (200, 600)),
    "small": mount((32, 512), (16, 64)),
}
