"""Segments are found and read, whichever version they are of."""

import sys

import pytest

from data.lidar import examples
from data.lidar.waymo import segments
from tests.data.lidar import cases


def _touch(directory, *names):
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_a_pattern_and_a_file(tmp_path):
    cases.messages()
    _touch(tmp_path, "segment-b.tfrecord", "segment-a.tfrecord", "note.txt")
    found = segments.find(str(tmp_path))
    assert [segment.name for segment in found] == ["segment-a", "segment-b"]
    assert found[0].paths == (tmp_path / "segment-a.tfrecord",)
    for place in "segment-a*", "segment-a.tfrecord":
        (one,) = segments.find(str(tmp_path / place))
        assert one == found[0]
    _touch(tmp_path, "x/segment-a.tfrecord-00000-of-00001")
    (one,) = segments.find(f"{tmp_path}/x/*")
    assert one.name == "segment-a"


def test_tables():
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (segment,) = segments.find(str(cases.TABLES))
    assert segment.name == cases.NAME
    assert len(segment.paths) == 5
    assert all(path.exists() for path in segment.paths)
    (example,) = segment.examples()
    assert len(example["points"]) == 9392


def test_records():
    cases.messages()
    (segment,) = segments.find(str(cases.RECORDS))
    (example,) = segment.examples()
    assert len(example["points"]) == 9392


@pytest.mark.parametrize("place", ["missing", "empty", "empty/*.tfrecord", ""])
def test_nothing_there(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(examples.LidarDataError) as error:
        segments.find(place)
    assert str(error.value).startswith(f"{place}: got no segments there")


def test_one_segment_twice(tmp_path):
    _touch(tmp_path, "x/segment-a.tfrecord", "y/segment-a.tfrecord")
    with pytest.raises(examples.LidarDataError, match="segment once"):
        segments.find(f"{tmp_path}/*/*.tfrecord")


def test_what_is_not_installed_is_said_at_once(tmp_path, monkeypatch):
    _touch(tmp_path, "v1/a.tfrecord", "v2/lidar/a.parquet")
    monkeypatch.setitem(sys.modules, "waymo_open_dataset", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(examples.LidarDataError, match="official package"):
        segments.find(str(tmp_path / "v1"))
    with pytest.raises(examples.LidarDataError, match="pyarrow"):
        segments.find(str(tmp_path / "v2"))
