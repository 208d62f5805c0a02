"""What a gradient monitor reads and writes: batches and a CSV file."""

from __future__ import annotations

import csv
import io
import itertools
import pathlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import parts


class Batches:
    """The batches to measure on, by ascending number.

    Args:
        data: A batch `(x, y)` or `(x, y, sample_weight)`, which has every
            number, or a `tf.data.Dataset` of such batches, which is repeated.

    Raises:
        ValueError: If `data` is neither.
    """

    def __init__(self, data):
        _check_data(data)
        if not isinstance(data, tf.data.Dataset):
            data = keras.tree.map_structure(parts.as_tensor, data)
        self._data = data
        self._rest = None

    def restart(self) -> None:
        """Starts over, so that the next number may be lower."""
        self._rest = None

    def get(self, number: int):
        """Returns a batch.

        Args:
            number: Its number, not lower than the last one.

        Returns:
            The batch, a function of the number alone.

        Raises:
            ValueError: If the dataset is empty.
        """
        if not isinstance(self._data, tf.data.Dataset):
            return self._data
        if self._rest is None:
            self._rest = iter(self._data.repeat().skip(number))
            self._number = number - 1
        while self._number < number:
            self._batch = next(self._rest, None)
            if self._batch is None:
                raise ValueError(
                    "`data` must hold at least one batch. Received: an empty "
                    "dataset."
                )
            self._number += 1
        return self._batch


def _check_data(data) -> None:
    batch = data.element_spec if isinstance(data, tf.data.Dataset) else data
    received = type(batch).__name__
    if isinstance(batch, (list, tuple)):
        if len(batch) in (2, 3):
            return
        received += f" of length {len(batch)}"
    if batch is not data:
        received = f"Dataset of {received}"
    raise ValueError(
        "`data` takes a batch `(x, y)` or `(x, y, sample_weight)`, or a "
        f"tf.data.Dataset of such batches. Received: a {received}."
    )


class Table:
    """A CSV file with a row for each sample, in the order of the steps.

    Opening the file drops an unfinished last line and the rows from `step`
    on: a resumed run then ends with the file of an uninterrupted one.

    Args:
        path: The file; its directory is created if needed.
        columns: Names of the columns after the first, `step`.
        step: The step of the next row.

    Raises:
        ValueError: If the file has other columns.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str], step: int):
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        header = _line(["step", *columns])
        with open(path, "ab+") as file:
            file.seek(0)
            # A killed run may leave an unfinished last line.
            lines = [x for x in file if x.endswith(b"\n")]
            if lines[:1] not in ([], [header]):
                raise ValueError(
                    f"{path} has other columns; give the monitor another "
                    f"`path`. Received: {lines[0].decode().strip()!r}, "
                    f"expected: {header.decode().strip()!r}."
                )
            earlier = itertools.takewhile(
                lambda line: int(line.partition(b",")[0]) < step, lines[1:]
            )
            kept = b"".join([*lines[:1], *earlier])
            # In place: a run that is killed here has lost nothing.
            file.truncate(len(kept))
            if not kept:
                file.write(header)

    def append(self, step: int, values: Sequence[float]) -> None:
        """Adds a row."""
        with open(self._path, "ab") as file:
            file.write(_line([step, *values]))


def _line(values: Sequence) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue().encode()
