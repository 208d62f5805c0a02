"""Data sets as TensorFlow Datasets prepares them: opened, read and checked."""

import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf import json_format

from data import sources, streams, turns

_DEFAULT_DIRECTORY = "~/tensorflow_datasets"
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_FILES_AT_ONCE = 8


class DataError(ValueError):
    """A data set cannot be used as asked; the message is one line."""


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A data set on disk.

    Attributes:
        name: Its name, with the config after a slash if it has one.
        builder: What TensorFlow Datasets knows of it.
    """

    name: str
    builder: tfds.core.DatasetBuilder

    @property
    def features(self) -> tfds.features.FeaturesDict:
        """The schema of an example."""
        return self.builder.info.features

    def num_examples(self, split: str) -> int:
        """Counts the examples of a split, such as `train[:80%]`.

        Raises:
            DataError: If the split is missing or empty.
        """
        return sum(part.take for part in self._parts(split))

    def records(
        self, split: str, seed: tf.Tensor | None = None, skipped: int = 0
    ) -> tf.data.Dataset:
        """Reads the records of a split, once.

        Files are not opened of which all records are left out.

        Args:
            split: Such as `train` or `train[:80%]`.
            seed: Decides the order of the files, `[2]`; theirs by default.
            skipped: How many records to leave out at the beginning; if any,
                the seed is concrete.

        Returns:
            Serialized examples, for `parse`.

        Raises:
            DataError: If the split is missing.
        """
        parts = self._parts(split)
        num_open = min(len(parts), _FILES_AT_ONCE)
        columns = (
            tf.constant([str(part.filename) for part in parts]),
            tf.constant([part.skip for part in parts], tf.int64),
            tf.constant([part.take for part in parts], tf.int64),
        )
        if seed is not None:
            order = streams.permutation(len(parts), seed)
            columns = tuple(tf.gather(column, order) for column in columns)
        if skipped:
            left, read = turns.after(columns[2].numpy(), num_open, skipped)
            names, skips, takes = (tf.gather(c, left) for c in columns)
            columns = names, skips + read, takes - read
        files = tf.data.Dataset.from_tensor_slices(columns)
        records = files.interleave(
            lambda name, skip, take: (
                tf.data.TFRecordDataset(name).skip(skip).take(take)
            ),
            cycle_length=num_open,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        # A file truncated between two records can be read without an error.
        return records.apply(
            tf.data.experimental.assert_cardinality(
                sum(part.take for part in parts) - skipped
            )
        )

    def endless_records(
        self, split: str, reading: streams.Reading, shuffle_buffer: int
    ) -> tf.data.Dataset:
        """Returns the endless stream of a worker's records; see `streams`.

        Args:
            split: Such as `train` or `train[:80%]`.
            reading: Which batches.
            shuffle_buffer: Records in a block; two of them are in memory.

        Returns:
            Serialized examples, for `parse`.

        Raises:
            DataError: If the split is missing or empty.
        """
        return streams.endless(
            lambda seed, skipped: self.records(split, seed, skipped),
            self.num_examples(split),
            reading,
            shuffle_buffer,
        )

    def parse(
        self,
        record: tf.Tensor,
        decoders: Mapping[str, tfds.decode.Decoder] | None = None,
    ) -> dict[str, Any]:
        """Decodes a serialized example.

        Args:
            record: A scalar string.
            decoders: As in `tfds.load`.

        Returns:
            The features by name.
        """
        return self.features.deserialize_example(record, decoders=decoders)

    def check(self, split: str) -> None:
        """Reads a split from end to end and decodes every example.

        Raises:
            DataError: Naming the first file and record that are damaged.
        """
        for part in self._parts(split):
            count = 0
            try:
                for record in tf.data.TFRecordDataset(str(part.filename)):
                    self.parse(record)
                    count += 1
            except tf.errors.OpError as error:
                raise DataError(
                    f"{part.filename}: record {count} cannot be read "
                    f"({first_line(error)}); prepare {self.name} again."
                ) from None
            if count != part.examples_in_shard:
                raise DataError(
                    f"{part.filename}: got {count} records, expected "
                    f"{part.examples_in_shard}; prepare {self.name} again."
                )

    def _parts(
        self, split: str
    ) -> list[tfds.core.utils.shard_utils.FileInstruction]:
        splits = self.builder.info.splits
        try:
            parts = splits[split].file_instructions
        except (KeyError, ValueError, AssertionError):
            raise DataError(
                f"{self.name}: there is no split {split!r}, expected one of "
                f"{', '.join(sorted(splits))}, or a part as in train[:80%]."
            ) from None
        if not sum(part.take for part in parts):
            raise DataError(
                f"{self.name}: the split {split!r} holds no examples."
            )
        for part in parts:
            if not tf.io.gfile.exists(str(part.filename)):
                raise DataError(
                    f"{part.filename} is missing; prepare {self.name} again."
                )
        return parts


def open_set(
    name: str, data_dir: str | None = None, prepared_by: str | None = None
) -> PreparedSet:
    """Opens a data set; it downloads nothing.

    Args:
        name: As TensorFlow Datasets has it: `celeb_a`, or with a config
            `imagenet_resized/32x32`.
        data_dir: Where prepared data sets lie; `~/tensorflow_datasets` by
            default.
        prepared_by: The command that prepares such sets, for the message.

    Returns:
        The data set; of several versions the newest.

    Raises:
        DataError: If it is not there, or cannot be read.
    """
    root = root_of(data_dir)
    newest = newest_version(root / name)
    if newest is None:
        advice = sources.advise(name, root, prepared_by)
        raise DataError(
            f"{name} is not prepared in {root}; give the data directory of a "
            f"prepared copy{advice and f', or {advice}'}."
        )
    try:
        return PreparedSet(name, tfds.builder_from_directory(newest))
    except Exception as error:
        raise DataError(
            f"{newest} holds no data set that can be read "
            f"({first_line(error)}); prepare {name} again."
        ) from None


def root_of(data_dir: str | None) -> pathlib.Path:
    """Returns the folder of the prepared data sets."""
    return pathlib.Path(data_dir or _DEFAULT_DIRECTORY).expanduser()


def newest_version(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the newest version of a data set, if any.

    Raises:
        DataError: If the folder cannot be read.
    """
    try:
        versions = [
            path
            for path in directory.glob("*")
            if _VERSION.fullmatch(path.name)
            and (path / "dataset_info.json").exists()
        ]
    except OSError as error:
        raise DataError(
            f"{directory} cannot be read ({error.strerror}); give another "
            "data directory, or the right to read this one."
        ) from None
    return max(versions, key=_version, default=None)


def write(
    kind: type[tfds.core.DatasetBuilder],
    data_dir: str | os.PathLike,
    **arguments: Any,
) -> tfds.core.DatasetBuilder:
    """Writes a generated data set, unless it exists.

    Args:
        kind: The builder, which downloads nothing.
        data_dir: Where prepared data sets lie.
        **arguments: What else the builder takes.

    Returns:
        The builder. The data set appears when all of it is written.

    Raises:
        DataError: If it cannot be written, or what is there cannot be read.
    """
    root = pathlib.Path(data_dir).expanduser()
    directory = root / kind.name / str(kind.VERSION)
    try:
        builder = kind(data_dir=root, **arguments)
        # A builder prints of a download, and needs a folder for it.
        with (
            tempfile.TemporaryDirectory() as nowhere,
            contextlib.redirect_stdout(None),
        ):
            builder.download_and_prepare(download_dir=nowhere)
    except (OSError, tf.errors.OpError) as error:
        raise DataError(
            f"{directory} cannot be written ({first_line(error)}); give "
            "another data directory."
        ) from None
    except json_format.ParseError as error:
        raise DataError(
            f"{directory} holds no data set that can be read "
            f"({first_line(error)}); give another data directory, or remove "
            "this folder."
        ) from None
    return builder


def _version(path: pathlib.Path) -> tuple[int, ...]:
    return tuple(map(int, path.name.split(".")))


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    text = getattr(error, "message", None) or str(error)
    return text.strip().partition("\n")[0]
