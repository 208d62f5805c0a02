"""Whatever happens while a file is written, a good one stands."""

import contextlib
import pathlib

import pytest
import tensorflow as tf

from data import files


def test_a_new_version_takes_the_place_at_the_end(tmp_path):
    path = tmp_path / "folder" / "file"
    for text in "old", "new":
        before = path.read_text() if path.exists() else None
        with files.replacing(path) as temporary:
            temporary.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_failure_leaves_the_old_version(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_records(tmp_path):
    path = tmp_path / "folder" / "file"
    with files.writing_records(path) as writer:
        writer.write(b"one")
        writer.write(b"two")
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    assert list(records) == [b"one", b"two"]


def test_records_that_cannot_be_written():
    with (
        pytest.raises(OSError, match=r"^/dev/full: "),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(files, "replacing", contextlib.nullcontext)
        with files.writing_records(pathlib.Path("/dev/full")) as writer:
            writer.write(bytes(1_000_000))


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with files.replacing(path) as first, files.replacing(path) as second:
        assert first != second
        first.write_text("one")
        second.write_text("two")
    assert path.read_text() == "one"
