"""The synthetic frame, whole and damaged; small simulated segments."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from data.lidar.simulation import drives
from data.lidar.simulation.settings import Settings

ORACLE = (
    pathlib.Path(__file__).parents[2] / "oracle" / "waymo" / "synthetic_frame"
)
RECORDS = ORACLE / "synthetic_frame.tfrecord"
TABLES = ORACLE / "v2_parquet"
NAME = "synthetic_segment_0001"
TIME = 1600000000000000


def messages():
    """The official messages; skips where they are not installed."""
    return pytest.importorskip(
        "waymo_open_dataset.dataset_pb2",
        reason="the official Waymo package is not installed",
        exc_type=Exception,
    )


def frame():
    """Parses the synthetic frame."""
    dataset_pb2 = messages()
    (record,) = tf.data.TFRecordDataset(str(RECORDS)).as_numpy_iterator()
    return dataset_pb2.Frame.FromString(record)


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            if not isinstance(record, bytes):
                record = record.SerializeToString()
            writer.write(record)
    return path


def expected():
    """What the official utilities make of it, in the order of examples."""
    with np.load(ORACLE / "expected_official_1_6_7_tf213.npz") as arrays:
        arrays = dict(arrays)
    order = [(number, lidar) for number in (1, 2) for lidar in range(1, 6)]
    clouds = [arrays[f"points_ret{n}_{lidar}"] for n, lidar in order]
    zones = [arrays[f"nlz_ret{n}_{lidar}"] for n, lidar in order]
    cloud = np.concatenate(clouds)
    return {
        **{name: arrays[name] for name in ("boxes", "types", "num_points")},
        "in_box": arrays["in_box"],
        "points": cloud[:, [3, 4, 5, 1, 2]],
        "is_top": np.repeat([lidar == 1 for _, lidar in order], sizes(clouds)),
        "returns": np.repeat([number for number, _ in order], sizes(clouds)),
        "in_no_label_zone": np.concatenate(zones) == 1.0,
    }


def sizes(arrays):
    return [len(array) for array in arrays]


def simulate(directory, num_segments=2, num_frames=2, seed=0):
    """Writes segments of very few beams."""
    messages()
    drives.write(
        directory,
        Settings(num_frames=num_frames, sensors="small", extent=25.0),
        num_segments=num_segments,
        seed=seed,
        report=lambda line: None,
    )
    return sorted(directory.glob("*.tfrecord"))


def assert_same(left, right):
    """Compares two examples, or what TFDS reads of them."""
    assert left.keys() == right.keys()
    for name in left:
        a, b = (
            v.encode() if isinstance(v, str) else v
            for v in (left[name], right[name])
        )
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert getattr(a, "dtype", bytes) == getattr(b, "dtype", bytes), name
