"""TFRecord files are whole or not there."""

import contextlib
import pathlib

import pytest
import tensorflow as tf

from data import files, records


def test_records(tmp_path):
    path = tmp_path / "folder" / "file"
    with records.writing(path) as writer:
        writer.write(b"one")
        writer.write(b"two")
    written = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    assert list(written) == [b"one", b"two"]


def test_records_that_cannot_be_written():
    with (
        pytest.raises(OSError, match=r"^/dev/full: "),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(
            files,
            "replacing",
            lambda path, shared: contextlib.nullcontext(path),
        )
        with records.writing(pathlib.Path("/dev/full")) as writer:
            writer.write(bytes(1_000_000))
