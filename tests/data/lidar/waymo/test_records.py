"""The synthetic v1 frame against the official utilities; damaged ones."""

import sys
import zlib

import numpy as np
import pytest

from data.lidar import examples, labels
from data.lidar.waymo import records as frames
from tests.data.lidar import cases


def _raises(path):
    with pytest.raises(examples.LidarDataError) as error:
        list(frames.read(path))
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_the_synthetic_frame():
    cases.messages()
    (example,) = frames.read(cases.RECORDS)
    assert_as_official(example)


def assert_as_official(example):
    want = cases.expected()
    away = np.abs(example["points"][:, :3] - want["points"][:, :3]).max(axis=1)
    assert away[~want["is_top"]].max() <= 1e-5
    assert away[want["is_top"]].max() <= 3e-4
    for name in "returns", "in_no_label_zone", "types", "num_points", "boxes":
        np.testing.assert_array_equal(example[name], want[name], err_msg=name)
    np.testing.assert_array_equal(
        example["points"][:, 3:], want["points"][:, 3:]
    )
    counts = labels.count_points(example["points"], example["boxes"])
    np.testing.assert_array_equal(counts, want["in_box"].sum(axis=0))
    # The first box was called hard by a person, though it has 7 points.
    hard = want["num_points"] <= 5
    hard[0] = True
    np.testing.assert_array_equal(example["difficulties"], 1 + hard)
    assert example["segment"] == cases.NAME
    assert example["frame"] == str(cases.TIME)
    for name, field in examples.FIELDS.items():
        if field.shape:
            assert example[name].dtype == field.dtype.as_numpy_dtype, name
            field_shape = tuple(
                a if b is None else b
                for a, b in zip(example[name].shape, field.shape, strict=True)
            )
            assert example[name].shape == field_shape, name


def test_points_are_counted_where_no_label_has_their_number(tmp_path):
    frame = cases.frame()
    for label in frame.laser_labels:
        label.ClearField("num_lidar_points_in_box")
    path = cases.write_records(tmp_path / "a.tfrecord", [frame, cases.frame()])
    counted = []
    found = list(frames.read(path, counted.append))
    (want,) = frames.read(cases.RECORDS)
    assert want["num_points"].sum() == 93
    for example in found:
        cases.assert_same(example, want)
    assert counted == [12]


def test_a_number_that_one_label_lacks_is_zero():
    frame = cases.frame()
    frame.laser_labels[1].ClearField("num_lidar_points_in_box")
    counted = []
    found = frames.decode(frame, counted.append)["num_points"]
    assert found[:3].tolist() == [7, 0, 19]
    assert counted == []


def test_a_frame_without_second_returns_or_labels():
    frame = cases.frame()
    for laser in frame.lasers:
        laser.ClearField("ri_return2")
    del frame.laser_labels[:]
    example = frames.decode(frame)
    want = cases.expected()
    assert len(example["points"]) == (want["returns"] == 1).sum()
    assert (example["returns"] == 1).all()
    assert example["boxes"].shape == (0, 7)


@pytest.mark.parametrize("cut", [1, 3, 8, 11, 12, 13, 500, -1, -5])
def test_a_truncated_file(cut, tmp_path):
    frame = cases.frame()
    path = cases.write_records(tmp_path / "x.tfrecord", [frame, frame])
    whole = path.read_bytes()
    second = len(whole) // 2
    path.write_bytes(whole[: second + cut] if cut > 0 else whole[:cut])
    records = frames.read(path)
    next(records)
    with pytest.raises(examples.LidarDataError, match="record 1: cannot"):
        next(records)
    _raises(path)


def test_a_flipped_bit(tmp_path):
    path = cases.write_records(tmp_path / "x.tfrecord", [cases.frame()])
    raw = bytearray(path.read_bytes())
    raw[5000] ^= 1
    path.write_bytes(raw)
    assert _raises(path).endswith("read (corrupted record at byte 12).")


def test_no_file_and_no_records(tmp_path):
    cases.messages()
    assert "record 0: cannot be read" in _raises(tmp_path / "x.tfrecord")
    empty = tmp_path / "empty.tfrecord"
    empty.write_bytes(b"")
    assert "got no records" in _raises(empty)


def _top(frame):
    return next(laser for laser in frame.lasers if laser.name == 1)


def _calibration(frame, name):
    return next(c for c in frame.context.laser_calibrations if c.name == name)


def _cut_image(frame):
    part = _top(frame).ri_return2
    part.range_image_compressed = part.range_image_compressed[:-20]


def _not_a_matrix(frame):
    _top(frame).ri_return1.range_image_compressed = zlib.compress(
        b"\x08nonsense"
    )


def _repack(part, change):
    matrix = cases.messages().MatrixFloat.FromString(
        zlib.decompress(part.range_image_compressed)
    )
    change(matrix)
    part.range_image_compressed = zlib.compress(matrix.SerializeToString())


def _wrong_shape(frame):
    def change(matrix):
        matrix.shape.dims[0] += 1

    _repack(frame.lasers[1].ri_return1, change)


def _nan_range(frame):
    def change(matrix):
        matrix.data[4] = np.nan

    _repack(frame.lasers[1].ri_return1, change)


def _fewer_beams(frame):
    del _calibration(frame, 1).beam_inclinations[-1]


def _no_pixel_poses(frame):
    _top(frame).ri_return1.ClearField("range_image_pose_compressed")


def _cut_pixel_poses(frame):
    _top(frame).ri_return1.range_image_pose_compressed = b"x"


def _nan_box(frame):
    frame.laser_labels[3].box.center_y = np.nan


def _infinite_box(frame):
    frame.laser_labels[0].box.length = np.inf


def _no_lidar(frame):
    del frame.lasers[:]


def _one_lidar_less(frame):
    del frame.lasers[2]


def _one_lidar_twice(frame):
    frame.lasers.add().CopyFrom(frame.lasers[1])


def _no_first_return(frame):
    frame.lasers[4].ClearField("ri_return1")


def _no_calibration(frame):
    frame.context.laser_calibrations.remove(_calibration(frame, 3))


def _no_calibrations(frame):
    del frame.context.laser_calibrations[:]


def _no_extrinsic(frame):
    _calibration(frame, 2).ClearField("extrinsic")


def _nan_extrinsic(frame):
    _calibration(frame, 2).extrinsic.transform[3] = np.nan


def _no_pose(frame):
    frame.ClearField("pose")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (_cut_image, ["lidar TOP: return 2", "zlib"]),
        (_not_a_matrix, ["lidar TOP: return 1", "not a MatrixFloat"]),
        (_wrong_shape, ["lidar FRONT: return 1", "[17, 32, 4]"]),
        (_nan_range, ["lidar FRONT: return 1", "row 0, column 1", "nan"]),
        (_fewer_beams, ["lidar TOP", "64 rows, expected 63"]),
        (_no_pixel_poses, ["lidar TOP", "pose for each pixel"]),
        (_cut_pixel_poses, ["lidar TOP: pixel poses", "zlib"]),
        (_nan_box, ["box 3", "y nan"]),
        (_infinite_box, ["box 0", "length inf"]),
        (_no_lidar, ["no lidar"]),
        (_one_lidar_less, ["lidar SIDE_LEFT", "range image"]),
        (_one_lidar_twice, ["lidar FRONT", "twice"]),
        (_no_first_return, ["lidar REAR", "first return"]),
        (_no_calibration, ["lidar SIDE_LEFT", "calibration"]),
        (_no_calibrations, ["lidar TOP", "calibration"]),
        (_no_extrinsic, ["lidar FRONT: extrinsic", "0 numbers"]),
        (_nan_extrinsic, ["lidar FRONT: extrinsic", "15 of them finite"]),
        (_no_pose, ["vehicle pose", "0 numbers"]),
    ],
)
def test_a_damaged_frame(damage, parts, tmp_path):
    whole, damaged = cases.frame(), cases.frame()
    damage(damaged)
    path = cases.write_records(tmp_path / "x.tfrecord", [whole, damaged])
    records = frames.read(path)
    next(records)
    with pytest.raises(examples.LidarDataError) as error:
        next(records)
    message = str(error.value)
    assert message.startswith(f"{path}, record 1: ")
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_record_that_is_no_frame(tmp_path):
    cases.messages()
    path = cases.write_records(tmp_path / "x.tfrecord", [b"\x08nonsense"])
    assert "record 0: got 9 bytes that are not a Frame message" in _raises(path)


def test_without_the_official_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "waymo_open_dataset", None)
    with pytest.raises(
        examples.LidarDataError, match="official package.*make setup"
    ):
        frames.parse(b"")
