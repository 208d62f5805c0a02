"""TFRecord files that are written whole or not at all."""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from data import files


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[tf.io.TFRecordWriter]:
    """Yields a writer of a TFRecord file that replaces `path` at the end.

    Args:
        path: The file to replace or create, also by several processes at
            once; its folder is made if missing.

    Yields:
        The writer.

    Raises:
        OSError: If it cannot be written; the old version stays.
    """
    try:
        with (
            files.replacing(path, shared=True) as temporary,
            tf.io.TFRecordWriter(str(temporary)) as writer,
        ):
            yield writer
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error
