"""Files that are either whole or not there."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

import tensorflow as tf


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary file, which takes the place of `path` at the end.

    Whenever the process dies, `path` holds the old or the new version, also
    if several processes write it.

    Args:
        path: The file to replace or create; its folder is made if missing.

    Yields:
        Where to write the new version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_records(path: pathlib.Path) -> Iterator[tf.io.TFRecordWriter]:
    """Writes a TFRecord file, which takes the place of `path` at the end.

    Args:
        path: The file to replace or create; its folder is made if missing.

    Yields:
        The writer.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        with (
            replacing(path) as temporary,
            tf.io.TFRecordWriter(str(temporary)) as writer,
        ):
            yield writer
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error
