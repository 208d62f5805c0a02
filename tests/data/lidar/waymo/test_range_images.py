"""Rays by hand and against matrices in double precision."""

import math

import numpy as np
import pytest

from data.lidar import examples
from data.lidar.simulation import scenes
from data.lidar.waymo import range_images


def _calibration(extrinsic=None, beams=(), between=(-0.5, 0.5)):
    extrinsic = np.eye(4) if extrinsic is None else extrinsic
    return range_images.Calibration(extrinsic, np.array(beams), between)


def _turned(yaw, place=(0.0, 0.0, 0.0)):
    return scenes.pose_matrix(np.array([0.0, 0.0, yaw, *place]))


def test_beams_at_even_distances_and_the_highest_first():
    rows = range_images.row_inclinations(_calibration(between=(-0.4, 0.4)), 4)
    np.testing.assert_allclose(rows, [0.3, 0.1, -0.1, -0.3], atol=1e-7)
    listed = _calibration(beams=[-0.3, -0.1, 0.2])
    rows = range_images.row_inclinations(listed, 3)
    np.testing.assert_allclose(rows, [0.2, -0.1, -0.3], atol=1e-7)


def test_columns_go_clockwise_from_the_back():
    azimuths = range_images.column_azimuths(np.eye(4), 4)
    expected = np.array([0.75, 0.25, -0.25, -0.75]) * math.pi
    np.testing.assert_allclose(azimuths, expected, atol=1e-6)
    # In the vehicle frame they are the same, however the lidar is turned.
    turned = range_images.column_azimuths(_turned(0.5), 4)
    np.testing.assert_allclose(turned, expected - 0.5, atol=1e-6)


def test_one_point_by_hand():
    # Inclination 30 degrees, azimuth 90: from (1, 2, 3) 10 m to the left.
    image = np.full((1, 4, 4), -1.0, np.float32)
    image[0, 0] = 10.0, 0.7, 0.2, 1.0
    extrinsic = _turned(-math.pi / 4, (1.0, 2.0, 3.0))
    calibration = _calibration(extrinsic, beams=[math.pi / 6])
    rays = range_images.pixel_rays((1, 4), calibration)
    points = range_images.returned_points(image, rays)
    level, up = 10.0 * math.cos(math.pi / 6), 5.0
    azimuth = 0.75 * math.pi
    want = [
        1.0 + level * math.cos(azimuth),
        2.0 + level * math.sin(azimuth),
        3.0 + up,
    ]
    np.testing.assert_allclose(points.values[0, :3], want, atol=1e-5)
    np.testing.assert_allclose(points.values[0, 3:], [0.7, 0.2])
    assert points.values.dtype == np.float32
    assert points.in_no_label_zone.tolist() == [True]


def test_pixel_poses_against_matrices():
    rng = np.random.default_rng(0)
    shape = (3, 5)
    poses = np.concatenate(
        [
            rng.uniform(-0.3, 0.3, (*shape, 2)),
            rng.uniform(-3.0, 3.0, (*shape, 1)),
            [21_000.0, -17_000.0, 40.0] + rng.uniform(-1.0, 1.0, (*shape, 3)),
        ],
        axis=-1,
    ).astype(np.float32)
    vehicle = scenes.pose_matrix(
        np.array([0.1, -0.2, 1.2, 21_000.2, -17_000.5, 40.0])
    )
    extrinsic = scenes.pose_matrix(np.array([0.02, 0.01, 2.0, 1.4, 0.1, 2.2]))
    beams = np.array([-0.3, -0.1, 0.05])
    image = np.ones((*shape, 4), np.float32)
    image[..., 0] = rng.uniform(5.0, 60.0, shape)
    (points,) = range_images.decode(
        {1: image}, _calibration(extrinsic, beams), poses, vehicle
    ).values()
    index = 0
    for row in range(shape[0]):
        for column in range(shape[1]):
            a = ((5 - column - 0.5) / 5 * 2 - 1) * math.pi
            a -= math.atan2(extrinsic[1, 0], extrinsic[0, 0])
            i = beams[::-1][row]
            r = float(image[row, column, 0])
            lidar = [
                r * math.cos(i) * math.cos(a),
                r * math.cos(i) * math.sin(a),
                r * math.sin(i),
                1.0,
            ]
            pose = _rotation(*poses[row, column, :3].astype(float))
            world = pose @ (extrinsic @ lidar)[:3] + poses[row, column, 3:]
            want = np.linalg.solve(vehicle, [*world, 1.0])[:3]
            np.testing.assert_allclose(
                points.values[index, :3], want, atol=3e-5
            )
            index += 1
    assert index == len(points.values)


def _rotation(roll, pitch, yaw):
    def about(axis, angle):
        matrix = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        c, s = math.cos(angle), math.sin(angle)
        sign = -1.0 if axis == 1 else 1.0
        matrix[[i, i, j, j], [i, j, i, j]] = c, -sign * s, sign * s, c
        return matrix

    return about(2, yaw) @ about(1, pitch) @ about(0, roll)


def test_no_pixel_is_a_point_without_a_range():
    image = np.zeros((1, 3, 4), np.float32)
    image[0, :, 0] = -1.0, 0.0, 1.0
    rays = range_images.pixel_rays((1, 3), _calibration())
    assert len(range_images.returned_points(image, rays).values) == 1


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3), 6), ((2, 3, 4), 23), ((0, 3, 4), 0), ((), 0)]
)
def test_values_have_to_fill_their_shape(shape, size):
    with pytest.raises(examples.LidarDataError, match=f"got {size} val"):
        range_images.image_of(np.zeros(size, np.float32), shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: range_images.inflate(b"nonsense"), "8 bytes that zlib"),
        (
            lambda: range_images.row_inclinations(_calibration(beams=[1.0]), 2),
            "image of 2 rows, expected 1",
        ),
        (
            lambda: range_images.row_inclinations(
                _calibration(between=(0.0, 0.0)), 2
            ),
            "from 0 to 0",
        ),
        (
            lambda: range_images.pixel_rays(
                (2, 3), _calibration(), np.zeros((2, 4, 6)), np.eye(4)
            ),
            r"\[2, 4, 6\], expected \[2, 3, 6\]",
        ),
        (
            lambda: range_images.decode(
                {1: np.zeros((2, 3, 4)), 2: np.zeros((2, 2, 4))}, _calibration()
            ),
            "expected one",
        ),
        (
            lambda: range_images.decode(
                {2: np.zeros((2, 3, 3))}, _calibration()
            ),
            "return 2: got 3 channels",
        ),
        (
            lambda: range_images.decode(
                {1: np.full((1, 1, 4), np.nan)}, _calibration()
            ),
            "return 1: row 0, column 0: got the range nan",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(examples.LidarDataError, match=message):
        call()
