"""Writes simulated drives as TFRecords of the official `Frame` messages.

The lidars turn once in a frame, ten times a second. While the one on top
turns, our vehicle moves on, and each pixel has the pose that it was measured
at; what else moves stands still for the length of a frame. Some rays that
meet a cabin pass through its windows and return twice.
"""

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from data import files
from data.lidar import examples
from data.lidar.simulation import ray_casting, scenes, sensors
from data.lidar.waymo import messages, range_images

_FRAMES_PER_SECOND = 10
_FIRST_TIMESTAMP = 1_600_000_000_000_000
_ABSENT = -1.0
_GROUND_REFLECTIVITY, _WALL_REFLECTIVITY, _GLASS_REFLECTIVITY = 0.1, 0.4, 0.05
_SETTINGS_FILE = "simulation.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What drives are like.

    Attributes:
        num_frames: Frames of a segment, ten a second.
        sensors: One of `sensors.SENSORS`.
        extent: Metres from us up to which there is something to see.
        occupancy: The share of places that have a vehicle, in [0, 1].
        noise: Standard deviation of a range, in metres; never more than
            three of them.
        dropout: The share of rays that do not return.
        windows: The share of rays to a cabin that also see what is behind.
    """

    num_frames: int = 20
    sensors: str = "waymo"
    extent: float = 75.0
    occupancy: float = 0.5
    noise: float = 0.01
    dropout: float = 0.03
    windows: float = 0.5

    def __post_init__(self):
        """Refuses values that make no scene."""
        if self.sensors not in sensors.SENSORS:
            raise ValueError(
                f"sensors: got {self.sensors!r}, expected one of "
                f"{', '.join(sensors.SENSORS)}."
            )
        if self.num_frames < 1:
            raise ValueError(
                f"num_frames: got {self.num_frames}, expected at least 1."
            )
        if not self.extent > 0.0:
            raise ValueError(
                f"extent: got {self.extent}, expected metres above 0."
            )
        for name in "occupancy", "dropout", "windows":
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, expected a share "
                    "from 0 to 1."
                )
        # Beyond, points would leave the labels, whose margin is 0.08 m.
        if not 0.0 <= self.noise <= 0.02:
            raise ValueError(
                f"noise: got {self.noise}, expected metres from 0 to 0.02."
            )


def write(
    directory: pathlib.Path,
    settings: Settings,
    *,
    num_segments: int,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> None:
    """Writes segments; those that are there already are kept.

    Args:
        directory: Takes `segment-*.tfrecord`.
        settings: What the drives are like.
        num_segments: How many.
        seed: Decides what is drawn: each segment by the seed and its number.
        report: Is told each segment that was written.

    Raises:
        LidarDataError: If the directory holds segments of other settings, or
            the official package is missing.
        OSError: If a segment cannot be written.
    """
    messages.load()
    drawn = {**dataclasses.asdict(settings), "seed": seed}
    note = directory / _SETTINGS_FILE
    if note.exists():
        if json.loads(note.read_text()) != drawn:
            raise examples.LidarDataError(
                f"{directory}: holds segments of other settings (see {note}); "
                "choose another directory."
            )
    else:
        with files.replacing(note) as temporary:
            temporary.write_text(json.dumps(drawn, indent=2) + "\n")
    for index in range(num_segments):
        name = f"simulated_{seed}_{index:05d}"
        path = directory / f"segment-{name}.tfrecord"
        if not path.exists():
            write_segment(path, name, settings, [seed, index])
            report(f"{index + 1}/{num_segments} {path}")


def write_segment(
    path: pathlib.Path, name: str, settings: Settings, seed: list[int]
) -> None:
    """Writes one segment.

    Args:
        path: The file.
        name: The segment's name.
        settings: What the drive is like.
        seed: Numbers that decide what is drawn.

    Raises:
        OSError: If it cannot be written.
    """
    scene = draw_scene(settings, seed)
    with files.writing_records(path) as writer:
        for index in range(settings.num_frames):
            frame = make_frame(scene, index, name, settings, seed)
            writer.write(frame.SerializeToString())


def draw_scene(settings: Settings, seed: list[int]) -> scenes.Scene:
    """Draws the scene of a segment.

    Args:
        settings: What the drive is like.
        seed: Numbers that decide what is drawn.

    Returns:
        The scene.
    """
    return scenes.draw(
        np.random.default_rng(seed),
        extent=settings.extent,
        occupancy=settings.occupancy,
        duration=settings.num_frames / _FRAMES_PER_SECOND,
    )


def full_size_frame(seed: int = 0):
    """Simulates one frame of the size of Waymo's, to measure with.

    Args:
        seed: Decides what is drawn.

    Returns:
        The `Frame` message; it holds about 500,000 points.
    """
    settings = Settings(num_frames=1)
    scene = draw_scene(settings, [seed])
    return make_frame(scene, 0, f"full_size_{seed}", settings, [seed])


def make_frame(
    scene: scenes.Scene,
    index: int,
    name: str,
    settings: Settings,
    seed: list[int],
):
    """Simulates one frame.

    Args:
        scene: What there is to see.
        index: Number of the frame.
        name: The segment's name.
        settings: What the drive is like.
        seed: Numbers that, with `index`, decide noise and dropout.

    Returns:
        The `Frame` message.
    """
    dataset_pb2 = messages.load()
    generator = np.random.default_rng([*seed, index])
    time = index / _FRAMES_PER_SECOND
    pose = scenes.pose_matrix(scene.our_pose(time))
    frame = dataset_pb2.Frame(
        timestamp_micros=_FIRST_TIMESTAMP + round(time * 1e6)
    )
    frame.context.name = name
    frame.context.stats.location = "location_simulated"
    frame.context.stats.time_of_day = "Day"
    frame.pose.transform.extend(pose.ravel())
    points = {}
    for lidar in sensors.SENSORS[settings.sensors]:
        geometry = [lidar.calibration]
        laser = frame.lasers.add(name=lidar.name)
        if lidar.name == sensors.TOP:
            poses = _pixel_poses(scene, lidar, time)
            geometry += [poses, pose]
            laser.ri_return1.range_image_pose_compressed = _compress(
                dataset_pb2.MatrixFloat, poses
            )
        rays = range_images.pixel_rays(
            (lidar.num_rows, lidar.num_columns), *geometry
        )
        images = _scan(scene, lidar, rays, pose, time, generator, settings)
        points[lidar.name] = np.concatenate(
            [
                range_images.returned_points(image, rays).values
                for image in images.values()
            ]
        )
        for number, part in (
            (examples.FIRST_RETURN, laser.ri_return1),
            (examples.SECOND_RETURN, laser.ri_return2),
        ):
            part.range_image_compressed = _compress(
                dataset_pb2.MatrixFloat, images[number]
            )
            # Nothing here reads it, but the official utilities want one.
            part.camera_projection_compressed = _compress(
                dataset_pb2.MatrixInt32,
                np.zeros((*images[number].shape[:2], 6), np.int32),
            )
        _add_calibration(frame.context.laser_calibrations.add(), lidar)
    _add_labels(frame, scene, time, pose, points, settings.extent)
    _add_zone(frame.no_label_zones.add(), scene)
    return frame


def _pixel_poses(scene, lidar, time) -> np.ndarray:
    """Returns our pose at each pixel while the lidar turns, `[H, W, 6]`."""
    columns = np.arange(lidar.num_columns)
    turned = (columns + 0.5) / lidar.num_columns - 0.5
    poses = scene.our_pose(time + turned / _FRAMES_PER_SECOND)
    return np.broadcast_to(
        poses.astype(np.float32), (lidar.num_rows, lidar.num_columns, 6)
    )


def _scan(
    scene, lidar, rays, pose, time, generator, settings
) -> dict[int, np.ndarray]:
    """Returns the range image of each return, `[H, W, 4]`."""
    origins, directions = _on_road(scene, rays, pose)
    hits = ray_casting.cast(
        origins, directions, scene.solids(time), lidar.max_range
    )
    num_rays = len(origins)
    num_vehicles = len(scene.vehicles)
    is_vehicle = (hits.solids >= 0) & (hits.solids < num_vehicles)
    is_cabin = is_vehicle & (hits.parts == scenes.CABIN)
    through = is_cabin & (generator.random(num_rays) < settings.windows)
    returning = generator.random(num_rays) >= settings.dropout

    behind = np.full(num_rays, _GROUND_REFLECTIVITY)
    before = behind.copy()
    before[hits.solids >= num_vehicles] = _WALL_REFLECTIVITY
    before[is_vehicle] = scene.reflectivities[hits.solids[is_vehicle]]
    before[through] = _GLASS_REFLECTIVITY

    images = {}
    for number, distances, seen, reflectivities in (
        (examples.FIRST_RETURN, hits.distances, returning, before),
        (
            examples.SECOND_RETURN,
            hits.distances_behind,
            returning & through,
            behind,
        ),
    ):
        seen = np.flatnonzero(seen & (distances <= lidar.max_range))
        distances = distances[seen]
        noise = generator.standard_normal(len(seen)).clip(-3.0, 3.0)
        met = origins[seen] + distances[:, None] * directions[seen]
        image = np.full((num_rays, 4), _ABSENT, np.float32)
        image[seen] = np.column_stack(
            [
                distances + settings.noise * noise,
                reflectivities[seen] * generator.uniform(0.8, 1.2, len(seen)),
                generator.uniform(0.0, 0.2, len(seen)),
                np.where(scene.in_zone(met), 1.0, -1.0),
            ]
        )
        images[number] = image.reshape(*rays.directions.shape[:2], 4)
    return images


def _on_road(scene, rays, pose) -> tuple[np.ndarray, np.ndarray]:
    """Returns origins and directions of rays on the road, `[R, 3]` each."""
    road_from_vehicle = np.linalg.inv(scene.world_from_road()) @ pose
    rotation = road_from_vehicle[:3, :3].T
    directions = rays.directions.reshape(-1, 3) @ rotation
    origins = rays.origins.reshape(-1, 3) @ rotation + road_from_vehicle[:3, 3]
    return np.broadcast_to(origins, directions.shape), directions


def _compress(message_class, image: np.ndarray) -> bytes:
    matrix = message_class()
    matrix.data.extend(image.ravel().tolist())
    matrix.shape.dims.extend(image.shape)
    return zlib.compress(matrix.SerializeToString())


def _add_calibration(message, lidar) -> None:
    message.name = lidar.name
    message.extrinsic.transform.extend(lidar.calibration.extrinsic.ravel())
    message.beam_inclinations.extend(lidar.calibration.inclinations)
    low, high = lidar.calibration.inclination_range
    message.beam_inclination_min = low
    message.beam_inclination_max = high


def _add_labels(frame, scene, time, pose, points, extent) -> None:
    """Labels the vehicles near us that are not in the no-label zone."""
    on_road = scene.boxes(time)
    vehicle_from_road = np.linalg.inv(pose) @ scene.world_from_road()
    boxes = on_road.copy()
    boxes[:, :3] = (
        on_road[:, :3] @ vehicle_from_road[:3, :3].T + vehicle_from_road[:3, 3]
    )
    ahead = np.stack([np.cos(on_road[:, 6]), np.sin(on_road[:, 6])], axis=-1)
    ahead = ahead @ vehicle_from_road[:2, :2].T
    boxes[:, 6] = np.arctan2(ahead[:, 1], ahead[:, 0])
    labelled = ~scene.in_zone(on_road)
    labelled &= np.linalg.norm(boxes[:, :2], axis=1) <= extent
    counts = {
        name: examples.count_points(cloud, boxes)
        for name, cloud in points.items()
    }
    for index in np.flatnonzero(labelled):
        label = frame.laser_labels.add(
            type=examples.VEHICLE,
            id=f"vehicle_{index:03d}",
            num_lidar_points_in_box=int(sum(c[index] for c in counts.values())),
            num_top_lidar_points_in_box=int(counts[sensors.TOP][index]),
        )
        box = label.box
        box.center_x, box.center_y, box.center_z = boxes[index, :3]
        box.length, box.width, box.height = boxes[index, 3:6]
        box.heading = boxes[index, 6]
        velocity = scene.speeds[index] * ahead[index]
        label.metadata.speed_x, label.metadata.speed_y = velocity


def _add_zone(message, scene) -> None:
    """Writes the corners of the no-label zone in the world."""
    low_x, high_x, low_y, high_y = scene.zone
    corners = np.array(
        [
            (x, y, 0.0, 1.0)
            for x, y in (
                (low_x, low_y),
                (high_x, low_y),
                (high_x, high_y),
                (low_x, high_y),
            )
        ]
    )
    world = corners @ scene.world_from_road().T
    message.x.extend(world[:, 0])
    message.y.extend(world[:, 1])
    message.id = "zone"
