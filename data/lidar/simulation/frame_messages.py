"""One frame of a simulated drive, as an official `Frame` message."""

import zlib

import numpy as np

from data.lidar import examples, labels
from data.lidar.simulation import ray_casting, scenes, sensors
from data.lidar.simulation.settings import FRAMES_PER_SECOND, Settings
from data.lidar.waymo import messages, range_images

_FIRST_TIMESTAMP = 1_600_000_000_000_000
_ABSENT = -1.0
_GROUND_REFLECTIVITY, _WALL_REFLECTIVITY, _GLASS_REFLECTIVITY = 0.1, 0.4, 0.05


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
    time = index / FRAMES_PER_SECOND
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
        laser = frame.lasers.add(name=lidar.name)
        rays = _cast_rays(dataset_pb2, laser, scene, lidar, time, pose)
        images = _scan(scene, lidar, rays, pose, time, generator, settings)
        points[lidar.name] = np.concatenate(
            [
                range_images.returned_points(image, rays).values
                for image in images.values()
            ]
        )
        _add_returns(dataset_pb2, laser, images)
        _add_calibration(frame.context.laser_calibrations.add(), lidar)
    _add_labels(frame, scene, time, pose, points, settings.extent)
    _add_zone(frame.no_label_zones.add(), scene)
    return frame


def _cast_rays(dataset_pb2, laser, scene, lidar, time, pose):
    """Returns the lidar's rays; keeps the pose of each pixel in its message."""
    geometry = [lidar.calibration]
    if lidar.name == sensors.TOP:
        poses = _pixel_poses(scene, lidar, time)
        geometry += [poses, pose]
        laser.ri_return1.range_image_pose_compressed = _compress(
            dataset_pb2.MatrixFloat, poses
        )
    return range_images.pixel_rays(
        (lidar.num_rows, lidar.num_columns), *geometry
    )


def _add_returns(dataset_pb2, laser, images) -> None:
    for number, part in (
        (examples.FIRST_RETURN, laser.ri_return1),
        (examples.SECOND_RETURN, laser.ri_return2),
    ):
        part.range_image_compressed = _compress(
            dataset_pb2.MatrixFloat, images[number]
        )
        # Unused here, but the official utilities need one.
        part.camera_projection_compressed = _compress(
            dataset_pb2.MatrixInt32,
            np.zeros((*images[number].shape[:2], 6), np.int32),
        )


def _pixel_poses(scene, lidar, time) -> np.ndarray:
    """Returns our pose at each pixel while the lidar turns, `[H, W, 6]`."""
    columns = np.arange(lidar.num_columns)
    turned = (columns + 0.5) / lidar.num_columns - 0.5
    poses = scene.our_pose(time + turned / FRAMES_PER_SECOND)
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
        name: labels.count_points(cloud, boxes)
        for name, cloud in points.items()
    }
    for index in np.flatnonzero(labelled):
        label = frame.laser_labels.add(
            type=labels.VEHICLE,
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
