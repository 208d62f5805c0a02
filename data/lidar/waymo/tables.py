"""Reads v2 of the data set: Parquet tables, a folder for each kind.

A segment is a file of one name in each of the folders `lidar`,
`lidar_calibration`, `lidar_pose`, `vehicle_pose` and `lidar_box`; the folder
`lidar_box` is missing where nothing is labelled.
"""

import collections
import contextlib
import os
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data.lidar import examples
from data.lidar.waymo import range_images, scans

LIDAR = "lidar"
CALIBRATION = "lidar_calibration"
PIXEL_POSE = "lidar_pose"
VEHICLE_POSE = "vehicle_pose"
BOX = "lidar_box"
KINDS = (LIDAR, CALIBRATION, PIXEL_POSE, VEHICLE_POSE, BOX)

_SEGMENT = "key.segment_context_name"
_TIME = "key.frame_timestamp_micros"
_LASER = "key.laser_name"
_RETURNS = {
    number: f"[LiDARComponent].range_image_return{number}"
    for number in (examples.FIRST_RETURN, examples.SECOND_RETURN)
}
_POSES = "[LiDARPoseComponent].range_image_return1"
_EXTRINSIC = "[LiDARCalibrationComponent].extrinsic.transform"
_BEAMS = "[LiDARCalibrationComponent].beam_inclination"
_WORLD_FROM_VEHICLE = "[VehiclePoseComponent].world_from_vehicle.transform"
_BOX = "[LiDARBoxComponent]"
_BOX_COLUMNS = (
    f"{_BOX}.box.center.x",
    f"{_BOX}.box.center.y",
    f"{_BOX}.box.center.z",
    f"{_BOX}.box.size.x",
    f"{_BOX}.box.size.y",
    f"{_BOX}.box.size.z",
    f"{_BOX}.box.heading",
)
_TYPE = f"{_BOX}.type"
_LEVEL = f"{_BOX}.difficulty_level.detection"
_NUM_POINTS = f"{_BOX}.num_lidar_points_in_box"

Row = Mapping[str, Any]


def read(
    directory: str | os.PathLike,
    name: str,
    on_counted: Callable[[int], None] = scans.pass_over,
) -> Iterator[examples.Example]:
    """Reads a segment, one frame at a time.

    Of the large tables only the current frame's row groups are in memory.

    Args:
        directory: Holds the folders of the tables.
        name: Name of the segment's files, without `.parquet`.
        on_counted: See `scans.make_example`.

    Yields:
        An example for each frame, in the order of time.

    Raises:
        LidarDataError: If a table is missing or damaged, or a frame is not
            usable; the message names file and frame.
    """
    root = pathlib.Path(directory)
    paths = {kind: root / kind / f"{name}.parquet" for kind in KINDS}
    images = _ImageTable(paths[LIDAR], tuple(_RETURNS.values()))
    pixel_poses = _ImageTable(paths[PIXEL_POSE], (_POSES,))
    calibrations = _calibrations(paths[CALIBRATION])
    vehicle_poses = {
        row[_TIME]: row[_WORLD_FROM_VEHICLE]
        for row in _rows(paths[VEHICLE_POSE], (_TIME, _WORLD_FROM_VEHICLE))
    }
    labels = _labels(paths[BOX]) if paths[BOX].parent.exists() else {}
    times = sorted({*images.times, *vehicle_poses, *labels})
    if not times:
        raise examples.LidarDataError(
            f"{paths[LIDAR]}: got no rows, expected one a frame and lidar."
        )
    for time in times:
        with examples.located(f"{paths[LIDAR]}, frame {time}"):
            if time not in vehicle_poses:
                raise examples.LidarDataError(
                    f"got no row in {paths[VEHICLE_POSE]}, expected one."
                )
            poses = pixel_poses.frame(time)
            example = scans.make_example(
                {
                    laser: _make_scan(part, poses.get(laser, {}))
                    for laser, part in images.frame(time).items()
                },
                calibrations,
                scans.matrix(vehicle_poses[time], "vehicle pose"),
                labels.get(time, ()),
                segment=images.segment,
                frame=str(time),
                on_counted=on_counted,
            )
        yield example


def _make_scan(part: Row, poses: Row) -> scans.Scan:
    returns = {
        number: part[column]
        for number, column in _RETURNS.items()
        if column in part
    }
    return scans.Scan(returns, poses.get(_POSES))


def load_parquet() -> types.ModuleType:
    """Imports `pyarrow.parquet`.

    Returns:
        The module.

    Raises:
        LidarDataError: If it is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise examples.LidarDataError(
            "Parquet tables need pyarrow, but importing it failed "
            f"({error}); run pip install pyarrow."
        ) from error
    return parquet


def _calibrations(path: pathlib.Path) -> dict[int, range_images.Calibration]:
    low, high, beams = (f"{_BEAMS}.{part}" for part in ("min", "max", "values"))
    calibrations = {}
    for row in _rows(path, (_LASER, _EXTRINSIC, low, high, beams)):
        place = f"{path}, {scans.lidar_text(row[_LASER])}"
        with examples.located(place):
            calibrations[row[_LASER]] = range_images.Calibration(
                scans.matrix(row[_EXTRINSIC], "extrinsic"),
                np.array(row[beams] or (), np.float64),
                tuple(np.array([row[low], row[high]], np.float64)),
            )
    return calibrations


def _labels(path: pathlib.Path) -> dict[int, list[scans.Label]]:
    """Returns the labels of each frame by its time."""
    labels = collections.defaultdict(list)
    needed = (_TIME, *_BOX_COLUMNS, _TYPE)
    rows = _rows(path, (*needed, _LEVEL), optional=(_NUM_POINTS,))
    numbered = {row[_TIME] for row in rows if row[_NUM_POINTS] is not None}
    for row in rows:
        expected = {*needed}
        if row[_TIME] in numbered:
            expected.add(_NUM_POINTS)
        empty = sorted(column for column in expected if row[column] is None)
        if empty:
            raise examples.LidarDataError(
                f"{path}, frame {row[_TIME]}: got no value for {empty[0]}."
            )
        labels[row[_TIME]].append(
            scans.Label(
                tuple(row[column] for column in _BOX_COLUMNS),
                row[_TYPE],
                row[_LEVEL] or 0,
                row[_NUM_POINTS],
            )
        )
    return labels


def _rows(
    path: pathlib.Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[Row]:
    """Reads all rows of a small table; None where an optional column lacks."""
    file = _open(path, columns)
    there = {*file.schema_arrow.names}
    with _reading(path):
        rows = file.read(
            [*columns, *(column for column in optional if column in there)]
        ).to_pylist()
    return [{**dict.fromkeys(optional), **row} for row in rows]


def _open(path: pathlib.Path, columns: Sequence[str]):
    """Opens a table and checks its columns."""
    parquet = load_parquet()
    if not path.exists():
        raise examples.LidarDataError(
            f"{path}: got no such file, expected the segment's table of the "
            f"kind {path.parent.name}."
        )
    with _reading(path):
        file = parquet.ParquetFile(path)
    missing = sorted({*columns} - {*file.schema_arrow.names})
    if missing:
        raise examples.LidarDataError(
            f"{path}: got no column {missing[0]}, expected a table of v2."
        )
    return file


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise examples.LidarDataError(
            f"{path}: cannot be read ({' '.join(str(error).split())})."
        ) from error


class _ImageTable:
    """A table with range images, with few rows in memory."""

    def __init__(self, path: pathlib.Path, columns: Sequence[str]):
        """Reads the keys of all rows."""
        self._path = path
        self._columns = columns
        parts = [f"{c}.{part}" for c in columns for part in ("values", "shape")]
        self._file = _open(path, (_SEGMENT, _TIME, _LASER, *parts))
        self._parts = parts
        self._groups = {}
        self._places = collections.defaultdict(dict)
        self.segment = ""
        for group in range(self._file.num_row_groups):
            with _reading(path):
                keys = self._file.read_row_group(
                    group, [_SEGMENT, _TIME, _LASER]
                ).to_pylist()
            for index, key in enumerate(keys):
                self.segment = key[_SEGMENT]
                lasers = self._places[key[_TIME]]
                if key[_LASER] in lasers:
                    raise examples.LidarDataError(
                        f"{path}, frame {key[_TIME]}: got "
                        f"{scans.lidar_text(key[_LASER])} twice."
                    )
                lasers[key[_LASER]] = group, index

    @property
    def times(self) -> list[int]:
        """Times of all frames."""
        return list(self._places)

    def frame(self, time: int) -> dict[int, dict[str, np.ndarray]]:
        """Returns the images of each lidar by their columns."""
        places = self._places.get(time, {})
        groups = {group for group, _ in places.values()}
        with _reading(self._path):
            self._groups = {
                group: self._groups.get(group)
                or self._file.read_row_group(group, self._parts)
                for group in groups
            }
        images = {}
        for laser, (group, index) in places.items():
            with examples.located(scans.lidar_text(laser)):
                images[laser] = self._images(self._groups[group], index)
        return images

    def _images(self, group, index: int) -> dict[str, np.ndarray]:
        images = {}
        for column in self._columns:
            values = group[f"{column}.values"][index]
            shape = group[f"{column}.shape"][index].as_py()
            if values.is_valid:
                images[column] = range_images.image_of(
                    values.values.to_numpy(zero_copy_only=False).astype(
                        np.float32, copy=False
                    ),
                    tuple(shape or ()),
                )
        return images
