"""Simulated frames against brute force on what their messages say."""

import math
import zlib

import numpy as np
import pytest

from data.lidar import examples
from data.lidar.simulation import drives, scenes, sensors
from data.lidar.simulation.settings import Settings
from data.lidar.waymo import records
from tests.data.lidar import cases
from tests.data.lidar.simulation.test_ray_casting import face_distances
from trainers.benchmarks import official_decoding

_EXACT = {"noise": 0.0, "dropout": 0.0, "windows": 1.0}


@pytest.fixture
def tiny(monkeypatch):
    cases.messages()
    monkeypatch.setitem(
        sensors.SENSORS, "tiny", sensors.mount((16, 120), (8, 24))
    )
    return "tiny"


def _settings(tiny, **changes):
    return Settings(
        **{"num_frames": 2, "sensors": tiny, "extent": 30.0, **changes}
    )


def _matrix(compressed):
    matrix = cases.messages().MatrixFloat.FromString(
        zlib.decompress(compressed)
    )
    return np.reshape(matrix.data, matrix.shape.dims)


def _rays(frame, laser):
    """The world's origins and directions of all pixels, from the message."""
    image = _matrix(laser.ri_return1.range_image_compressed)
    height, width = image.shape[:2]
    calibration = next(
        c for c in frame.context.laser_calibrations if c.name == laser.name
    )
    extrinsic = np.reshape(calibration.extrinsic.transform, (4, 4))
    low, high = (
        calibration.beam_inclination_min,
        calibration.beam_inclination_max,
    )
    beams = list(calibration.beam_inclinations) or [
        low + (high - low) * (row + 0.5) / height for row in range(height)
    ]
    vehicle = np.reshape(frame.pose.transform, (4, 4))
    poses = None
    if laser.name == 1:
        poses = _matrix(laser.ri_return1.range_image_pose_compressed)
    origins, directions = [], []
    for row in range(height):
        for column in range(width):
            a = (2 * (width - column - 0.5) / width - 1) * math.pi
            a -= math.atan2(extrinsic[1, 0], extrinsic[0, 0])
            i = beams[height - 1 - row]
            ray = [
                math.cos(i) * math.cos(a),
                math.cos(i) * math.sin(a),
                math.sin(i),
                0.0,
            ]
            pose = vehicle
            if poses is not None:
                pose = scenes.pose_matrix(poses[row, column].astype(float))
            origins.append((pose @ extrinsic[:, 3])[:3])
            directions.append((pose @ extrinsic @ ray)[:3])
    return np.array(origins), np.array(directions)


def _in_world(scene, boxes):
    boxes = boxes.copy()
    boxes[:, :3] = (
        boxes[:, :3] @ scene.world_from_road()[:3, :3].T + scene.road_origin
    )
    boxes[:, 6] += scene.road_yaw
    return boxes


def _in_polygon(points, polygon):
    corners = list(zip(polygon.x, polygon.y, strict=True))
    inside = np.ones(len(points), bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        inside &= (bx - ax) * (points[:, 1] - ay) >= (by - ay) * (
            points[:, 0] - ax
        )
    return inside


@pytest.mark.parametrize("seed", [[0, 0], [1, 2]])
def test_points_labels_and_counts_against_brute_force(seed, tiny):
    settings = _settings(tiny, **_EXACT, occupancy=0.9, extent=45.0)
    scene = drives.draw_scene(settings, seed)
    frame = drives.make_frame(scene, 1, "x", settings, seed)
    (zone,) = frame.no_label_zones
    time = 0.1
    solids = [_in_world(scene, boxes) for boxes in scene.solids(time)]
    num_vehicles = len(scene.vehicles)
    reach = {1: 75.0, 2: 20.0, 3: 20.0, 4: 20.0, 5: 20.0}
    counts = np.zeros(num_vehicles, int)
    top_counts = np.zeros(num_vehicles, int)
    num_returns = np.zeros(2, int)
    num_in_zone = 0
    for laser in frame.lasers:
        origins, directions = _rays(frame, laser)
        down = directions[:, 2] < 0.0
        ground = np.full(len(origins), np.inf)
        ground[down] = (scene.road_origin[2] - origins[down, 2]) / directions[
            down, 2
        ]
        parts = [
            np.stack(
                [face_distances(origins, directions, b).min(0) for b in boxes]
            )
            for boxes in solids
        ]
        every = np.stack([ground, *(part.min(0) for part in parts)])
        order = np.argsort(every, axis=0, kind="stable")
        first, second = order[0], order[1]
        rays = np.arange(len(origins))
        is_cabin = np.zeros(len(origins), bool)
        for index in range(num_vehicles):
            met = first == index + 1
            is_cabin[met] = (parts[index][:, met].argmin(0)) == 1
        for number, part, owner, seen in (
            (0, laser.ri_return1, first, np.ones(len(origins), bool)),
            (1, laser.ri_return2, second, is_cabin),
        ):
            image = _matrix(part.range_image_compressed).reshape(-1, 4)
            distance = every[owner, rays]
            seen = seen & (distance <= reach[laser.name])
            np.testing.assert_array_equal(image[:, 0] > 0.0, seen)
            np.testing.assert_allclose(
                image[seen, 0], distance[seen], atol=1e-3
            )
            np.testing.assert_array_equal(image[~seen], -1.0)
            met = origins + distance[:, None] * directions
            in_zone = _in_polygon(met[seen], zone)
            np.testing.assert_array_equal(image[seen, 3] > 0.0, in_zone)
            num_in_zone += in_zone.sum()
            num_returns[number] += seen.sum()
            on_vehicle = seen & (owner >= 1) & (owner <= num_vehicles)
            hits = np.bincount(owner[on_vehicle] - 1, minlength=num_vehicles)
            counts += hits
            if laser.name == 1:
                top_counts += hits
    assert num_returns[1] > 20
    assert num_in_zone > 20

    example = records.decode(frame)
    assert (example["returns"] == 1).sum() == num_returns[0]
    assert (example["returns"] == 2).sum() == num_returns[1]
    assert example["in_no_label_zone"].sum() == num_in_zone

    boxes = _in_world(scene, scene.boxes(time))
    pose = np.reshape(frame.pose.transform, (4, 4))
    near = np.linalg.norm(boxes[:, :3] - pose[:3, 3], axis=1)
    unlabelled = _in_polygon(boxes, zone)
    assert (unlabelled & (near <= settings.extent)).any()
    assert (near > settings.extent).any()
    labelled = ~unlabelled & (near <= settings.extent)
    ids = [label.id for label in frame.laser_labels]
    assert ids == [f"vehicle_{i:03d}" for i in np.flatnonzero(labelled)]
    for label, index in zip(frame.laser_labels, np.flatnonzero(labelled)):
        assert label.type == 1
        assert label.num_lidar_points_in_box == counts[index]
        assert label.num_top_lidar_points_in_box == top_counts[index]
        box = label.box
        center = pose @ [box.center_x, box.center_y, box.center_z, 1.0]
        np.testing.assert_allclose(center[:3], boxes[index, :3], atol=1e-6)
        np.testing.assert_allclose(
            [box.length, box.width, box.height], boxes[index, 3:6]
        )
        ahead = pose[:3, :3] @ [math.cos(box.heading), math.sin(box.heading), 0]
        heading = math.atan2(ahead[1], ahead[0])
        assert abs(math.remainder(heading - boxes[index, 6], math.tau)) < 1e-4
        assert -math.pi <= box.heading < math.pi
    assert (example["num_points"] > 20).sum() > 3
    assert frame.timestamp_micros == 1_600_000_000_100_000


def test_the_official_utilities_see_the_same_points(tiny):
    settings = _settings(tiny)
    scene = drives.draw_scene(settings, [1, 0])
    frame = drives.make_frame(scene, 0, "x", settings, [1, 0])
    got, want = records.decode(frame), official_decoding.decode(frame)
    # Theirs are rounded to 1e-4 m at world coordinates of 2 km, several times.
    np.testing.assert_allclose(got["points"], want["points"], atol=1e-3)
    for name in "returns", "in_no_label_zone":
        np.testing.assert_array_equal(got[name], want[name])


def test_the_lidar_on_top_turns_while_we_drive(tiny):
    settings = _settings(tiny)
    scene = drives.draw_scene(settings, [0, 0])
    frame = drives.make_frame(scene, 1, "x", settings, [0, 0])
    poses = _matrix(frame.lasers[0].ri_return1.range_image_pose_compressed)
    assert poses.shape == (16, 120, 6)
    np.testing.assert_array_equal(
        poses, np.broadcast_to(poses[:1], poses.shape)
    )
    way = poses[0, -1, 3:] - poses[0, 0, 3:]
    # In a tenth of a second, less half a column at each end.
    assert abs(np.linalg.norm(way) - 0.1 * scene.our_speed * 119 / 120) < 1e-3
    np.testing.assert_allclose(
        poses[0, 59:61, 3:].mean(0),
        np.reshape(frame.pose.transform, (4, 4))[:3, 3],
        atol=1e-3,
    )


def test_noise_and_dropout(tiny):
    exact = _settings(tiny, **_EXACT)
    noisy = _settings(tiny, noise=0.02, dropout=0.25, windows=0.0)
    scene = drives.draw_scene(exact, [0, 0])
    clean, changed = (
        drives.make_frame(scene, 0, "x", settings, [0, 0])
        for settings in (exact, noisy)
    )
    left, right = (
        _matrix(f.lasers[0].ri_return1.range_image_compressed)[..., 0]
        for f in (clean, changed)
    )
    kept = (right > 0.0) & (left > 0.0)
    lost = (right < 0.0) & (left > 0.0)
    assert 0.15 < lost.sum() / (left > 0.0).sum() < 0.35
    away = (right - left)[kept]
    assert 0.015 < away.std() < 0.025
    assert np.abs(away).max() <= 0.0601
    assert (records.decode(changed)["returns"] == 1).all()
    assert (records.decode(clean)["returns"] == 2).any()


def test_writing_continues_and_repeats(tmp_path, tiny):
    def write(directory, num_segments, **changes):
        lines = []
        drives.write(
            directory,
            _settings(tiny, num_frames=1, **changes),
            num_segments=num_segments,
            seed=5,
            report=lines.append,
        )
        return lines

    assert len(write(tmp_path / "a", 1)) == 1
    first = next((tmp_path / "a").glob("*.tfrecord"))
    before = first.stat().st_mtime_ns
    assert len(write(tmp_path / "a", 3)) == 2
    assert first.stat().st_mtime_ns == before
    write(tmp_path / "b", 3)
    contents = [
        [path.read_bytes() for path in sorted((tmp_path / d).iterdir())]
        for d in ("a", "b")
    ]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 4
    with pytest.raises(examples.LidarDataError, match="other settings"):
        write(tmp_path / "a", 3, extent=31.0)


def test_no_half_segment(tmp_path, tiny, monkeypatch):
    made = drives.make_frame

    def fail(scene, index, *rest):
        if index == 1:
            raise KeyboardInterrupt
        return made(scene, index, *rest)

    monkeypatch.setattr(drives, "make_frame", fail)
    with pytest.raises(KeyboardInterrupt):
        drives.write(tmp_path, _settings(tiny), num_segments=1)
    assert [path.name for path in tmp_path.iterdir()] == ["simulation.json"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sensors", "radar"),
        ("num_frames", 0),
        ("extent", 0.0),
        ("extent", math.nan),
        ("occupancy", 1.5),
        ("dropout", -0.1),
        ("windows", math.nan),
        ("noise", 0.1),
    ],
)
def test_settings_that_make_no_scene(field, value):
    with pytest.raises(ValueError, match=f"{field}: got"):
        Settings(**{field: value})
