"""Prepared data sets: equal to what was read, resumed, never by halves."""

import concurrent.futures
import fcntl
import hashlib
import os
import shutil

import pytest
import tensorflow_datasets as tfds

from data.lidar import examples as lidar_examples
from data.lidar.waymo import builder as builder_lib
from data.lidar.waymo import preparation, segments
from data.lidar.waymo import records as frames
from tests.data.lidar import cases


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Three segments of one to three frames."""
    directory = tmp_path_factory.mktemp("drives")
    for index in range(3):
        records = [cases.frame() for _ in range(index + 1)]
        for number, frame in enumerate(records):
            frame.timestamp_micros += number
            del frame.laser_labels[number + 1 :]
        cases.write_records(directory / f"segment-{index}.tfrecord", records)
    return directory


@pytest.fixture(autouse=True)
def _on_processes(monkeypatch):
    monkeypatch.setattr(preparation, "beam_is_installed", lambda: False)


def _builder(data_dir, drives, **options):
    found = segments.find(str(drives))
    options.setdefault("num_processes", 1)
    return builder_lib.WaymoLidar(
        segments={"train": found[:2], "validation": found[2:]},
        data_dir=data_dir,
        **options,
    )


def _files(directory):
    return {
        str(path.relative_to(directory)): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _copy(drives, tmp_path):
    return shutil.copytree(drives, tmp_path / "drives")


@pytest.fixture(scope="module")
def undisturbed(drives, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "beam_is_installed", lambda: False)
        _builder(data_dir, drives).download_and_prepare()
    return data_dir


def test_what_was_prepared_is_what_was_read(drives, undisturbed):
    version = undisturbed / "waymo_lidar" / "1.0.0"
    builder = tfds.builder_from_directory(version)
    assert builder.info.splits["train"].num_examples == 3
    assert builder.info.splits["train"].shard_lengths == [1, 2]
    assert builder.info.splits["validation"].shard_lengths == [3]
    for split, found in (
        ("train", segments.find(str(drives))[:2]),
        ("validation", segments.find(str(drives))[2:]),
    ):
        dataset = builder.as_dataset(split=split)
        assert {
            name: (spec.shape.as_list(), spec.dtype)
            for name, spec in dataset.element_spec.items()
        } == {
            name: (list(field.shape), field.dtype)
            for name, field in lidar_examples.FIELDS.items()
        }
        want = [e for segment in found for e in frames.read(segment.path)]
        for got, expected in zip(
            dataset.as_numpy_iterator(), want, strict=True
        ):
            cases.assert_same(got, expected)


def test_nothing_else_is_left(undisturbed):
    assert [path.name for path in undisturbed.iterdir()] == ["waymo_lidar"]
    (version,) = (undisturbed / "waymo_lidar").iterdir()
    assert sorted(_files(version)) == [
        "dataset_info.json",
        "features.json",
        "metadata.json",
        "waymo_lidar-train.tfrecord-00000-of-00002",
        "waymo_lidar-train.tfrecord-00001-of-00002",
        "waymo_lidar-validation.tfrecord-00000-of-00001",
    ]


def test_a_second_time_nothing_is_done(drives, undisturbed, monkeypatch):
    before = _files(undisturbed)
    monkeypatch.setattr(preparation, "prepare_segment", None)
    _builder(undisturbed, drives).download_and_prepare()
    assert _files(undisturbed) == before
    other = builder_lib.WaymoLidar(
        segments={"train": segments.find(str(drives))}, data_dir=undisturbed
    )
    with pytest.raises(lidar_examples.LidarDataError, match="other segments"):
        other.download_and_prepare()


@pytest.mark.parametrize("at", ["before", "within", "after"])
def test_interrupted_it_continues(
    at, drives, undisturbed, tmp_path, monkeypatch
):
    """Stops at the second segment, in it, or when all are done."""
    written = []
    prepare_segment = preparation.prepare_segment
    examples = segments.RecordSegment.examples

    def interrupted(task):
        if at == "before" and task.segment.name == "segment-1":
            raise KeyboardInterrupt
        written.append(task.segment.name)
        prepare_segment(task)

    def interrupted_examples(segment, on_counted):
        for example in examples(segment, on_counted):
            yield example
            if at == "within" and segment.name == "segment-1":
                raise KeyboardInterrupt

    def interrupted_link(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "prepare_segment", interrupted)
        patch.setattr(segments.RecordSegment, "examples", interrupted_examples)
        if at == "after":
            patch.setattr(os, "link", interrupted_link)
        with pytest.raises(KeyboardInterrupt):
            _builder(tmp_path, drives).download_and_prepare()
    assert not (tmp_path / "waymo_lidar" / "1.0.0").exists()
    unfinished = tmp_path / "waymo_lidar" / "unfinished-1.0.0"
    shards = [path.stem for path in unfinished.rglob("*.tfrecord")]
    done = {
        "before": ["segment-0"],
        "within": ["segment-0"],
        "after": ["segment-0", "segment-1", "segment-2"],
    }[at]
    assert sorted(shards) == done
    assert not list(unfinished.rglob("*.tmp"))

    def recorded(task):
        written.append(task.segment.name)
        prepare_segment(task)

    written.clear()
    monkeypatch.setattr(preparation, "prepare_segment", recorded)
    _builder(tmp_path, drives).download_and_prepare()
    assert sorted([*done, *written]) == ["segment-0", "segment-1", "segment-2"]
    assert _files(tmp_path) == _files(undisturbed)


def test_what_a_killed_process_left_is_cleared(drives, undisturbed, tmp_path):
    left = tmp_path / "waymo_lidar" / "incomplete.A1B2C3_1.0.0"
    left.mkdir(parents=True)
    (left / "waymo_lidar-train.tfrecord-00000-of-00002").touch()
    _builder(tmp_path, drives).download_and_prepare()
    assert _files(tmp_path) == _files(undisturbed)


def test_a_changed_segment_is_prepared_again(drives, tmp_path):
    copy = _copy(drives, tmp_path)
    found = segments.find(str(copy))
    task = preparation.Task(found[0], tmp_path / "out")
    preparation.prepare_segment(task)
    assert task.outcome()["num_examples"] == 1
    shutil.copy(found[2].path, found[0].path)
    assert task.outcome() is None
    preparation.prepare([task], preparation.on_processes(1))
    assert task.outcome()["num_examples"] == 3
    assert task.outcome()["num_boxes"] == 1 + 2 + 3
    assert task.outcome()["num_counted"] == 0


def test_a_segment_that_changes_meanwhile_is_bad(drives, tmp_path, monkeypatch):
    copy = _copy(drives, tmp_path)
    examples = segments.RecordSegment.examples

    def changing(segment, on_counted):
        yield from examples(segment, on_counted)
        os.utime(segment.path)

    monkeypatch.setattr(segments.RecordSegment, "examples", changing)
    lines = []
    builder = _builder(tmp_path / "out", copy, report=lines.append)
    with pytest.raises(lidar_examples.LidarDataError, match=r"^3 of 3 segm"):
        builder.download_and_prepare()
    assert "segment-0.tfrecord: its files changed" in lines[0]


def test_bad_segments_are_named_and_the_others_kept(drives, tmp_path):
    copy = _copy(drives, tmp_path)
    for name in "segment-1", "segment-2":
        path = copy / f"{name}.tfrecord"
        path.write_bytes(path.read_bytes()[:-9])
    lines = []
    builder = _builder(tmp_path / "out", copy, report=lines.append)
    with pytest.raises(lidar_examples.LidarDataError, match=r"^2 of 3 segm"):
        builder.download_and_prepare()
    for line, name, record in zip(lines, ("segment-1", "segment-2"), (1, 2)):
        assert line.startswith(
            f"bad segment: {copy / name}.tfrecord, record {record}: "
        )
        assert "\n" not in line
    assert not (tmp_path / "out" / "waymo_lidar" / "1.0.0").exists()
    shutil.copy(drives / "segment-2.tfrecord", copy)
    lines.clear()
    builder = _builder(
        tmp_path / "out", copy, report=lines.append, skip_bad_segments=True
    )
    builder.download_and_prepare()
    assert lines[0] == "1/3 segments are done"
    assert len(lines) == 2
    assert builder.info.splits["train"].shard_lengths == [1]
    assert builder.info.splits["validation"].shard_lengths == [3]
    assert list(builder.info.metadata["bad_segments"]) == ["segment-1"]
    assert builder.info.metadata["num_boxes"] == {"train": 1, "validation": 6}


def test_a_split_without_a_good_segment(drives, tmp_path):
    copy = _copy(drives, tmp_path)
    (copy / "segment-2.tfrecord").write_bytes(b"")
    builder = _builder(tmp_path / "out", copy, skip_bad_segments=True)
    with pytest.raises(lidar_examples.LidarDataError, match="--validation.$"):
        builder.download_and_prepare()


def test_one_segment_in_two_splits(drives, tmp_path):
    found = segments.find(str(drives))
    again = segments.find(str(_copy(drives, tmp_path)))
    with pytest.raises(lidar_examples.LidarDataError, match="segment once"):
        builder_lib.WaymoLidar(
            segments={"train": found, "validation": again[2:]},
            data_dir=tmp_path,
        )


def test_nothing_to_prepare(tmp_path):
    with pytest.raises(lidar_examples.LidarDataError, match="no segments"):
        builder_lib.WaymoLidar(data_dir=tmp_path).download_and_prepare()


def test_two_at_a_time_are_refused(drives, tmp_path):
    unfinished = tmp_path / "waymo_lidar" / "unfinished-1.0.0"
    unfinished.mkdir(parents=True)
    with open(unfinished / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="another proc"):
            _builder(tmp_path, drives).download_and_prepare()


def test_without_links(drives, undisturbed, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    _builder(tmp_path, drives).download_and_prepare()
    assert _files(tmp_path) == _files(undisturbed)


def test_another_process_writes_the_same_bytes(drives, undisturbed, tmp_path):
    task = preparation.Task(segments.find(str(drives))[1], tmp_path)
    preparation.prepare([task], preparation.on_processes(2))
    (want,) = undisturbed.rglob("*train.tfrecord-00001-of-00002")
    assert task.outcome()["num_examples"] == 2
    assert task.shard.read_bytes() == want.read_bytes()


def test_a_process_that_died_is_one_line(drives, tmp_path, monkeypatch):
    def died(pool, *arguments):
        raise concurrent.futures.process.BrokenProcessPool

    monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "map", died)
    with pytest.raises(OSError, match="a process died, .* fewer processes"):
        _builder(tmp_path, drives, num_processes=2).download_and_prepare()


def test_on_beam(drives, undisturbed, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed")
    monkeypatch.setattr(preparation, "beam_is_installed", lambda: True)
    _builder(tmp_path, drives).download_and_prepare()
    assert _files(tmp_path) == _files(undisturbed)


def test_tables_are_prepared_too(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    builder = builder_lib.WaymoLidar(
        segments={"train": segments.find(str(cases.TABLES))},
        data_dir=tmp_path,
        num_processes=1,
    )
    builder.download_and_prepare()
    (got,) = builder.as_dataset(split="train").as_numpy_iterator()
    (want,) = segments.find(str(cases.TABLES))[0].examples()
    cases.assert_same(got, want)
