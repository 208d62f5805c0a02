"""A KITTI frame made by hand, damaged ones, and real ones where they are."""

import math
import os
import pathlib
import shutil

import numpy as np
import pytest

from data.lidar import examples as lidar_examples
from data.lidar import labels
from data.lidar.kitti import frames

# The camera sits 0.3 m before the lidar and 0.1 m below it. Its axes are: x to
# the right (-y of the lidar), y down (-z), z ahead (x); before R0_rect it is
# turned by 90 degrees about its z.
_CALIBRATION = """P0: 1 0 0 0 0 1 0 0 0 0 1 0
P2: 700 0 600 70 0 700 180 0 0 0 1 0
R0_rect: 0 -1 0 1 0 0 0 0 1
Tr_velo_to_cam: 0 0 -1 -0.1 0 1 0 0 1 0 0 -0.3
"""
# Class, truncation, occlusion, alpha, image box; h, w, l; x, y, z; turn.
_LABELS = """Car 0.00 0 0 1 2 3 4 1.5 1.6 4.0 -2.0 1.7 10.0 0.0
DontCare -1 -1 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10
Pedestrian 0.00 0 0 1 2 3 4 1.8 0.6 0.8 3.0 1.7 20.0 -1.570796
Van 0.00 0 0 1 2 3 4 2.0 1.9 5.0 0.0 1.7 30.0 0.5

Cyclist 0.00 0 0 1 2 3 4 1.7 0.6 1.8 0.0 1.7 15.0 3.0 0.9
"""


@pytest.fixture
def directory(tmp_path):
    points = np.array(
        [
            # In the car: camera z = 10 is x = 10.3, camera x = -2 is y = 2.
            [10.3, 2.0, -1.0, 0.5],
            [10.3 + 0.75, 2.0 + 1.9, -1.0, 0.25],
            # Wrongly turned boxes would have it, and not the one before.
            [10.3 + 1.9, 2.0 + 0.75, -1.0, 0.25],
            [-10.0, 0.0, 0.0, 0.0],
            [10.0, 12.0, 0.0, 0.0],
            [10.0, 0.0, -4.0, 0.0],
        ],
        np.float32,
    )
    files = {
        "velodyne/000007.bin": points.tobytes(),
        "label_2/000007.txt": _LABELS.encode(),
        "calib/000007.txt": _CALIBRATION.encode(),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(content)
    return tmp_path


def test_a_frame_by_hand(directory):
    example = frames.read_frame(directory, "000007")
    # Turn 0 looks along the camera's x: to the right. The car's bottom is 1.7
    # below the camera, which is 0.1 below the lidar.
    np.testing.assert_allclose(
        example["boxes"],
        [
            [10.3, 2.0, -1.8 + 0.75, 4.0, 1.6, 1.5, -math.pi / 2],
            [20.3, -3.0, -1.8 + 0.9, 0.8, 0.6, 1.8, 0.0],
            [30.3, 0.0, -1.8 + 1.0, 5.0, 1.9, 2.0, -math.pi / 2 - 0.5],
            [15.3, 0.0, -1.8 + 0.85, 1.8, 0.6, 1.7, 1.5 * math.pi - 3.0],
        ],
        atol=1e-5,
    )
    assert example["types"].tolist() == [1, 2, -1, 4]
    assert example["num_points"].tolist() == [2, 0, 0, 0]
    assert example["difficulties"].tolist() == [2, 2, 2, 2]
    np.testing.assert_allclose(
        example["points"][1], [11.05, 3.9, -1.0, 0.25, 0.0], rtol=1e-6
    )
    # Behind the camera, too far to the left, too far down.
    assert example["in_no_label_zone"].tolist() == [False] * 3 + [True] * 3
    assert example["returns"].tolist() == [1] * 6
    assert (example["segment"], example["frame"]) == ("kitti", "000007")


def test_neighbours_of_types(directory):
    path = directory / "label_2" / "000007.txt"
    (line,) = (line for line in _LABELS.splitlines() if line.startswith("Van"))
    names = ("Van", "Person_sitting", "Truck", "Tram", "Misc", "Car")
    path.write_text("".join(line.replace("Van", name) + "\n" for name in names))
    example = frames.read_frame(directory, "000007")
    assert example["types"].tolist() == [-1, -2, 0, 0, 0, 1]


def test_frames_without_labels(directory):
    shutil.rmtree(directory / "label_2")
    (example,) = frames.read(directory)
    assert example["boxes"].shape == (0, 7)
    assert example["types"].dtype == np.int32


def _edit(old, new):
    def edit(path):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("name", "damage", "parts"),
    [
        ("velodyne", pathlib.Path.unlink, ["cannot be read"]),
        ("calib", pathlib.Path.unlink, ["cannot be read"]),
        ("label_2", pathlib.Path.unlink, ["cannot be read"]),
        ("velodyne", lambda path: path.write_bytes(bytes(30)), ["30 bytes"]),
        ("velodyne", lambda path: path.write_bytes(b""), ["no lidar points"]),
        (
            "velodyne",
            lambda path: path.write_bytes(b"\xff" * 16),
            ["point 0", "x nan"],
        ),
        ("calib", _edit("R0_rect", "R1_rect"), ["R0_rect", "got ''"]),
        ("calib", _edit("0 0 1 0\nR0", "0 0 1\nR0"), ["P2", "12 finite"]),
        ("calib", _edit("-0.3", "nan"), ["Tr_velo_to_cam", "nan"]),
        ("label_2", _edit("4.0 -2.0", "4.0 x"), ["line 1", "4.0 x"]),
        ("label_2", _edit("20.0 -1.570796", "20.0"), ["line 3", "14 finite"]),
        ("label_2", _edit("1.8 0.6 0.8", "1.8 inf 0.8"), ["line 3", "inf"]),
    ],
)
def test_a_damaged_file(name, damage, parts, directory):
    (path,) = (directory / name).iterdir()
    damage(path)
    with pytest.raises(lidar_examples.LidarDataError) as error:
        frames.read_frame(directory, "000007")
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def _cloud(num_points):
    """Points around the lidar, with a reflectance in [0, 1]."""
    generator = np.random.default_rng(0)
    places = generator.normal(0.0, [20.0, 20.0, 1.0], (num_points, 3))
    reflectance = generator.integers(0, 100, (num_points, 1)) / 99
    return np.hstack([places, reflectance]).astype(np.float32)


# 4,000 points of five numbers are as large as 5,000 of four.
@pytest.mark.parametrize("num_points", [4000, 4001, 4004])
@pytest.mark.parametrize("intensity", [1.0, 255.0])
def test_five_numbers_a_point_are_refused(num_points, intensity, directory):
    path = directory / "velodyne" / "000007.bin"
    rings = np.arange(num_points)[:, None] % 32
    cloud = np.hstack([_cloud(num_points), rings]).astype("<f4")
    cloud[:, 3] *= intensity
    path.write_bytes(cloud.tobytes())
    with pytest.raises(lidar_examples.LidarDataError) as error:
        frames.read_frame(directory, "000007")
    assert str(error.value) == (
        f"{path}: got five numbers for each point, as in nuScenes, expected "
        "KITTI's four: x, y, z, reflectance."
    )


@pytest.mark.parametrize("reflectance", [0.0, 1.0, 255.0])
@pytest.mark.parametrize("num_points", [5, 5000, 5001])
def test_four_numbers_a_point_are_read(num_points, reflectance, directory):
    path = directory / "velodyne" / "000007.bin"
    cloud = _cloud(num_points)
    cloud[:, 3] *= reflectance
    path.write_bytes(cloud.astype("<f4").tobytes())
    found = frames.read_frame(directory, "000007")["points"]
    np.testing.assert_array_equal(found[:, :4], cloud)


def test_no_frames(tmp_path):
    with pytest.raises(lidar_examples.LidarDataError, match="velodyne: got no"):
        list(frames.read(tmp_path))


def test_real_frames():
    root = os.environ.get("GRADDROP_TEST_DATA")
    if root is None:
        pytest.skip("GRADDROP_TEST_DATA names no folder of real data")
    directory = pathlib.Path(root) / "kitti" / "training"
    examples = list(frames.read(directory))
    assert len(examples) == len(frames.frame_names(directory)) > 0
    for example in examples:
        assert len(example["points"]) > 100_000
        # What is labelled has points, which the camera sees but for cut ones.
        assert (example["num_points"] > 0).all()
        seen = example["points"][~example["in_no_label_zone"]]
        counts = labels.count_points(seen, example["boxes"])
        assert counts.sum() > 0.8 * example["num_points"].sum()
        near = example["num_points"] > 50
        for box in example["boxes"][near]:
            beside = np.linalg.norm(example["points"][:, :2] - box[:2], axis=1)
            heights = example["points"][beside < 2.0 + box[3] / 2, 2]
            ground = np.percentile(heights, 5)
            assert abs(box[2] - box[5] / 2 - ground) < 0.6
