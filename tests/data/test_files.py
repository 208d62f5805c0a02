"""A file is whole, whatever happens while it is written."""

import pytest

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


def test_a_killed_writer_leaves_one_file_for_the_next_to_replace(tmp_path):
    path = tmp_path / "file"
    left = tmp_path / f"file{files.SUFFIX}"
    left.write_text("half, and longer than the new version")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with (
        files.replacing(path, shared=True) as first,
        files.replacing(path, shared=True) as second,
    ):
        assert first != second
        first.write_text("one")
        second.write_text("two")
    assert path.read_text() == "one"
