"""The synthetic frame as v2 tables; damaged tables."""

import shutil
import sys

import numpy as np
import pytest

from data.lidar import examples as lidar_examples
from data.lidar.waymo import records, tables
from tests.data.lidar import cases
from tests.data.lidar.waymo.test_records import assert_as_official

parquet = pytest.importorskip(
    "pyarrow.parquet", reason="pyarrow is not installed"
)
pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

_TIME = "key.frame_timestamp_micros"
_LASER = "key.laser_name"
_NUM_POINTS = "[LiDARBoxComponent].num_lidar_points_in_box"
_VALUES = "[LiDARComponent].range_image_return{}.values"


@pytest.fixture
def copy(tmp_path):
    directory = tmp_path / "v2"
    shutil.copytree(cases.TABLES, directory)
    return directory


def _path(directory, kind):
    return directory / kind / f"{cases.NAME}.parquet"


def _edit(directory, kind, change, **options):
    path = _path(directory, kind)
    table = change(parquet.read_table(path))
    parquet.write_table(table, path, **options)


def _set(table, column, row, value):
    values = table[column].to_pylist()
    values[row] = value
    index = table.schema.get_field_index(column)
    field = table.schema.field(index)
    return table.set_column(index, field, pyarrow.array(values, field.type))


def _raises(directory):
    with pytest.raises(lidar_examples.LidarDataError) as error:
        list(tables.read(directory, cases.NAME))
    message = str(error.value)
    assert "\n" not in message
    assert cases.NAME in message
    return message


def test_the_synthetic_frame():
    (example,) = tables.read(cases.TABLES, cases.NAME)
    assert_as_official(example)


def test_both_versions_agree():
    cases.messages()
    (first,) = records.read(cases.RECORDS)
    (second,) = tables.read(cases.TABLES, cases.NAME)
    cases.assert_same(first, second)


def test_frames_come_in_order_from_any_order_of_rows(copy):
    """Three frames, their rows mixed over row groups of two rows."""

    def later(table, seconds, share):
        column = table.schema.get_field_index(_TIME)
        times = [t + seconds for t in table[_TIME].to_pylist()]
        table = table.set_column(column, _TIME, pyarrow.array(times))
        return table.slice(0, round(share * table.num_rows))

    def thrice(table):
        return pyarrow.concat_tables(
            [later(table, s, 1.0) for s in (20, 0, 10)]
        )

    def mixed(table):
        table = thrice(table)
        order = np.random.default_rng(0).permutation(table.num_rows)
        return table.take(order)

    _edit(copy, tables.LIDAR, mixed, row_group_size=2)
    for kind in tables.PIXEL_POSE, tables.VEHICLE_POSE:
        _edit(copy, kind, thrice)
    _edit(
        copy,
        tables.BOX,
        lambda table: pyarrow.concat_tables(
            [later(table, 10, 0.25), later(table, 0, 1.0)]
        ),
    )
    examples = list(tables.read(copy, cases.NAME))
    (want,) = tables.read(cases.TABLES, cases.NAME)
    assert [int(e["frame"]) - cases.TIME for e in examples] == [0, 10, 20]
    assert [len(e["boxes"]) for e in examples] == [12, 3, 0]
    cases.assert_same(examples[0], want)
    for example in examples:
        np.testing.assert_array_equal(example["points"], want["points"])


def _without_numbers(table):
    for row in range(table.num_rows):
        table = _set(table, _NUM_POINTS, row, None)
    return table


@pytest.mark.parametrize(
    "clear", [_without_numbers, lambda t: t.drop_columns([_NUM_POINTS])]
)
def test_points_are_counted_where_no_label_has_their_number(clear, copy):
    _edit(copy, tables.BOX, clear)
    counted = []
    (example,) = tables.read(copy, cases.NAME, counted.append)
    (want,) = tables.read(cases.TABLES, cases.NAME)
    cases.assert_same(example, want)
    assert counted == [12]


def test_without_labels(copy):
    shutil.rmtree(copy / tables.BOX)
    (example,) = tables.read(copy, cases.NAME)
    assert example["boxes"].shape == (0, 7)
    assert len(example["points"]) == 9392


@pytest.mark.parametrize("kind", tables.KINDS)
def test_a_table_is_missing_or_truncated(kind, copy):
    path = _path(copy, kind)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    message = _raises(copy)
    assert message.startswith(f"{path}: cannot be read")
    path.unlink()
    message = _raises(copy)
    assert message.startswith(f"{path}: got no such file")
    assert kind in message


def test_a_damaged_page(copy):
    path = _path(copy, tables.LIDAR)
    raw = bytearray(path.read_bytes())
    raw[2000:40000] = bytes(38000)
    path.write_bytes(raw)
    message = _raises(copy)
    assert f"frame {cases.TIME}" in message


def _drop_lasers(table):
    return table.slice(0, 0)


def _drop_laser_2(table):
    return table.filter(
        pyarrow.array([laser != 2 for laser in table[_LASER].to_pylist()])
    )


@pytest.mark.parametrize(
    ("kind", "change", "parts"),
    [
        (tables.LIDAR, _drop_lasers, ["frame", "no lidar"]),
        (tables.LIDAR, _drop_laser_2, ["lidar FRONT", "range image"]),
        (
            tables.LIDAR,
            lambda t: _set(t, _LASER, 4, 2),
            ["lidar FRONT twice"],
        ),
        (tables.CALIBRATION, _drop_laser_2, ["lidar FRONT", "calibration"]),
        (tables.VEHICLE_POSE, lambda t: t.slice(0, 0), ["frame", "no row in"]),
        (tables.PIXEL_POSE, lambda t: t.slice(0, 0), ["lidar TOP", "pose"]),
        (
            tables.LIDAR,
            lambda t: t.drop_columns([_VALUES.format(2)]),
            [f"no column {_VALUES.format(2)}"],
        ),
        (
            tables.LIDAR,
            lambda t: _set(t, _VALUES.format(1), 3, [1.0] * 9),
            ["lidar SIDE_RIGHT", "9 values", "[16, 32, 4]"],
        ),
        (
            tables.LIDAR,
            lambda t: _set(t, _VALUES.format(1), 3, None),
            ["lidar SIDE_RIGHT", "first return"],
        ),
        (
            tables.BOX,
            lambda t: _set(t, "[LiDARBoxComponent].box.center.x", 5, np.nan),
            ["box 5", "x nan"],
        ),
        (
            tables.BOX,
            lambda t: _set(t, "[LiDARBoxComponent].box.size.x", 5, None),
            ["no value", "size.x"],
        ),
        (
            tables.BOX,
            lambda t: _set(t, _NUM_POINTS, 5, None),
            ["no value", _NUM_POINTS],
        ),
        (
            tables.CALIBRATION,
            lambda t: _set(
                t,
                "[LiDARCalibrationComponent].extrinsic.transform",
                1,
                [np.nan] * 16,
            ),
            ["lidar FRONT: extrinsic", "0 of them finite"],
        ),
        (
            tables.CALIBRATION,
            lambda t: _set(
                t, "[LiDARCalibrationComponent].beam_inclination.min", 1, None
            ),
            ["lidar FRONT", "from nan to 0.5"],
        ),
    ],
)
def test_a_damaged_table(kind, change, parts, copy):
    _edit(copy, kind, change)
    message = _raises(copy)
    for part in parts:
        assert part in message


def test_a_missing_second_return_is_none(copy):
    _edit(copy, tables.LIDAR, lambda t: _set(t, _VALUES.format(2), 0, None))
    (example,) = tables.read(copy, cases.NAME)
    want = cases.expected()
    gone = want["is_top"] & (want["returns"] == 2)
    assert len(example["points"]) == len(gone) - gone.sum() > 0


def test_without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        lidar_examples.LidarDataError, match="pip install pyarrow"
    ):
        next(tables.read(cases.TABLES, cases.NAME))
