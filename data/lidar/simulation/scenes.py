"""The scene of a drive: a road, vehicles and walls.

The world of a scene is its road: x along it, y to the left, the ground at
z = 0. Vehicles drive in four lanes, or stand at the kerb and on lots behind
broken walls. A vehicle is a hull with a cabin on its rear half, so that one
can tell its front; its label leaves a margin around them, and the ground out.
"""

import dataclasses

import numpy as np

HULL, CABIN = 0, 1
_MARGIN = 0.08
_CLEARANCE = 0.15
_HULL_SHARE = 0.55

_LANE_WIDTH = 3.6
# Lane number and direction; lane 0 is ours.
_LANES = ((-1, 1.0), (0, 1.0), (1, -1.0), (2, -1.0))
_KERBS = (-8.5, 12.0)
_WALLS = (-15.0, 18.5)
_LOTS = ((-22.0, -1.0), (25.5, 1.0))
_LOT_ROWS = 4
_LOT_SPACING = 8.5
# From behind the kerb to beyond the lot, to the right or to the left.
_ZONE_SIDES = ((-60.0, -10.5), (14.0, 60.0))
_ZONE_LENGTH = 20.0
_TRUCK_SHARE = 0.1
_GAP_AROUND_US = 9.0
_WORLD_SIZE = 2000.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """A stretch of road, and how everything on it moves.

    Attributes:
        vehicles: What would be their labels at time 0 on the road, `[V, 7]`.
        speeds: Of the vehicles along their headings in m/s, `[V]`.
        reflectivities: Of the vehicles, `[V]`, in [0, 1].
        walls: Boxes on the road, `[K, 7]`.
        zone: Where nothing is labelled: the smallest and largest x and y.
        our_speed: Of the vehicle with the lidars, in m/s.
        road_yaw: The road's heading in the world.
        road_origin: The road's origin in the world, `[3]`.
        phase: Decides how our vehicle sways.
    """

    vehicles: np.ndarray
    speeds: np.ndarray
    reflectivities: np.ndarray
    walls: np.ndarray
    zone: tuple[float, float, float, float]
    our_speed: float
    road_yaw: float
    road_origin: np.ndarray
    phase: float

    def boxes(self, time: float) -> np.ndarray:
        """Returns the labels of all vehicles on the road, `[V, 7]`."""
        boxes = self.vehicles.copy()
        headings = boxes[:, 6]
        boxes[:, 0] += time * self.speeds * np.cos(headings)
        boxes[:, 1] += time * self.speeds * np.sin(headings)
        return boxes

    def solids(self, time: float) -> list[np.ndarray]:
        """Returns the boxes of each vehicle, then of each wall."""
        return [
            *(vehicle_parts(box) for box in self.boxes(time)),
            *(wall[None] for wall in self.walls),
        ]

    def in_zone(self, points: np.ndarray) -> np.ndarray:
        """Returns which points on the road, `[..., 2+]`, lie in the zone."""
        low_x, high_x, low_y, high_y = self.zone
        x, y = points[..., 0], points[..., 1]
        return (low_x <= x) & (x <= high_x) & (low_y <= y) & (y <= high_y)

    def world_from_road(self) -> np.ndarray:
        """Returns the matrix `[4, 4]` from the road to the world."""
        return pose_matrix(
            np.array([0.0, 0.0, self.road_yaw, *self.road_origin])
        )

    def our_pose(self, times: np.ndarray) -> np.ndarray:
        """Returns our roll, pitch, yaw, x, y, z in the world.

        Args:
            times: Seconds, `[...]`.

        Returns:
            The poses, `[..., 6]`.
        """
        times = np.asarray(times, np.float64)
        still = np.zeros_like(times)
        swaying = 5.0 * times + self.phase
        on_road = np.stack([times * self.our_speed, still, still], axis=-1)
        rotation = self.world_from_road()[:3, :3]
        angles = np.stack(
            [
                0.003 * np.sin(swaying),
                0.004 * np.cos(swaying),
                self.road_yaw + 0.02 * np.sin(0.7 * swaying),
            ],
            axis=-1,
        )
        places = on_road @ rotation.T + self.road_origin
        return np.concatenate([angles, places], axis=-1)


def pose_matrix(pose: np.ndarray) -> np.ndarray:
    """Turns roll, pitch, yaw, x, y, z into a matrix.

    Args:
        pose: Poses, `[..., 6]`.

    Returns:
        Matrices `[..., 4, 4]`, float64: roll about x first, then pitch about
        y, then yaw about z, then the translation.
    """
    roll, pitch, yaw, x, y, z = np.moveaxis(np.asarray(pose, np.float64), -1, 0)
    cr, sr = np.cos(roll), np.sin(roll)
    cp, sp = np.cos(pitch), np.sin(pitch)
    cy, sy = np.cos(yaw), np.sin(yaw)
    zero, one = np.zeros_like(x), np.ones_like(x)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y],
        [-sp, cp * sr, cp * cr, z],
        [zero, zero, zero, one],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def vehicle_parts(label: np.ndarray) -> np.ndarray:
    """Returns the hull and the cabin that a label surrounds.

    Args:
        label: A box, `[7]`.

    Returns:
        Two boxes, `[2, 7]`: `HULL` and `CABIN`.
    """
    x, y, z, length, width, height, heading = label
    bottom, top = z - height / 2 + _MARGIN, z + height / 2 - _MARGIN
    middle = bottom + _HULL_SHARE * (top - bottom)
    length, width = length - 2 * _MARGIN, width - 2 * _MARGIN
    back = 0.2 * length
    return np.array(
        [
            [
                x, y, (bottom + middle) / 2,
                length, width, middle - bottom, heading,
            ],
            [
                x - back * np.cos(heading), y - back * np.sin(heading),
                (middle + top) / 2,
                0.5 * length, 0.85 * width, top - middle, heading,
            ],
        ]
    )  # fmt: skip


def draw(
    generator: np.random.Generator,
    *,
    extent: float,
    occupancy: float,
    duration: float,
) -> Scene:
    """Draws a scene.

    Args:
        generator: Where randomness comes from.
        extent: Metres from us up to which there is something.
        occupancy: The share of places that have a vehicle, in [0, 1].
        duration: Seconds that the drive will take.

    Returns:
        The scene.
    """
    our_speed = generator.uniform(4.0, 14.0)
    ahead = extent + duration * our_speed
    places = _lane_places(generator, extent, ahead, occupancy, our_speed)
    places += _standing_places(generator, extent, ahead, occupancy)
    places = np.array(places).reshape(-1, 4)
    boxes = np.array([_vehicle(generator, *place[:3]) for place in places])
    start = generator.uniform(0.2, 0.6) * extent
    side = _ZONE_SIDES[generator.integers(len(_ZONE_SIDES))]
    return Scene(
        vehicles=boxes.reshape(-1, 7),
        speeds=places[:, 3],
        reflectivities=generator.uniform(0.2, 1.0, len(places)),
        walls=_walls(generator, extent, ahead),
        zone=(start, start + _ZONE_LENGTH, *side),
        our_speed=our_speed,
        road_yaw=generator.uniform(-np.pi, np.pi),
        road_origin=generator.uniform(
            [-_WORLD_SIZE, -_WORLD_SIZE, -20.0],
            [_WORLD_SIZE, _WORLD_SIZE, 20.0],
        ),
        phase=generator.uniform(0.0, 2.0 * np.pi),
    )


def _lane_places(generator, extent, ahead, occupancy, our_speed) -> list:
    """Draws x, y, heading and speed of vehicles that drive."""
    places = []
    for lane, way in _LANES:
        speed = our_speed if lane == 0 else generator.uniform(0.0, 14.0)
        x = -extent + generator.uniform(0.0, 12.0)
        while x < ahead:
            ours = lane == 0 and abs(x) < _GAP_AROUND_US
            if generator.random() < occupancy and not ours:
                y = lane * _LANE_WIDTH + generator.uniform(-0.3, 0.3)
                turned = generator.normal(0.0, 0.02)
                heading = (0.0 if way > 0 else np.pi) + turned
                places.append((x, y, heading, speed))
            x += generator.uniform(12.0, 18.0)
    return places


def _standing_places(generator, extent, ahead, occupancy) -> list:
    """Draws x, y, heading and speed of vehicles that stand."""
    lots = [
        (first + way * row * _LOT_SPACING, 1.0, np.pi)
        for first, way in _LOTS
        for row in range(_LOT_ROWS)
    ]
    places = []
    for line, jitter, turn in [*((kerb, 0.2, 0.05) for kerb in _KERBS), *lots]:
        for x in np.arange(-extent, ahead, _LOT_SPACING):
            if abs(line) < extent and generator.random() < occupancy:
                dx, dy = generator.uniform(-jitter, jitter, 2)
                heading = generator.uniform(-turn, turn)
                places.append((x + dx, line + dy, heading, 0.0))
    return places


def _vehicle(generator, x, y, heading) -> np.ndarray:
    if generator.random() < _TRUCK_SHARE:
        mean, spread = (6.5, 2.4, 2.7), (0.4, 0.08, 0.15)
    else:
        mean, spread = (4.7, 2.05, 1.75), (0.2, 0.06, 0.08)
    length, width, height = generator.normal(mean, spread)
    z = _CLEARANCE + height / 2
    return np.array([x, y, z, length, width, height, heading])


def _walls(generator, extent, ahead) -> np.ndarray:
    walls = []
    for y in _WALLS:
        x = -extent
        while x < ahead:
            length = generator.uniform(6.0, 14.0)
            height = generator.uniform(1.5, 5.0)
            heading = generator.uniform(-0.05, 0.05)
            center = x + length / 2
            walls.append((center, y, height / 2, length, 0.4, height, heading))
            x += length + generator.uniform(4.0, 14.0)
    return np.array(walls)
