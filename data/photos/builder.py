"""Writes photos as a data set of TensorFlow Datasets.

TFDS itself writes a data set at one go; here each shard is written by itself in
a folder beside, which survives an interruption. When all are there, they move
into the data set as they are.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data import files, prepared, records
from data.photos import pixels, table

_VERSION = "1.0.0"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
PER_SHARD = 256
_SECONDS_BETWEEN_LINES = 10.0
_ORDER_SEED = 0
_MADE_OF = "made_of"
_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Contents:
    """A data set of photos.

    Attributes:
        directory: Its folder.
        num_examples: The number of photos in each split.
        bad: A line for each photo that was left out.
    """

    directory: pathlib.Path
    num_examples: dict[str, int]
    bad: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Some photos of a split, and where they are written.

    A shard is written beside a note that says what it was made of. Both appear
    whole or not at all, the note last.

    Attributes:
        photos: The photos.
        path: The TFRecord file.
    """

    photos: Sequence[table.Photo]
    path: pathlib.Path

    @property
    def _note(self) -> pathlib.Path:
        return self.path.with_suffix(".json")

    def outcome(self) -> dict[str, Any] | None:
        """Reads what was written; None if that was not these photos."""
        try:
            outcome = json.loads(self._note.read_text())
        except (OSError, ValueError):
            return None
        known = self.path.exists() and outcome[_MADE_OF] == self._made_of()
        return outcome if known else None

    def write(
        self,
        features: tfds.features.FeaturesDict,
        example_of: Callable[[table.Photo, bytes], dict[str, Any]],
        pool: concurrent.futures.Executor,
    ) -> None:
        """Writes the photos that can be read, and the note."""
        made_of = self._made_of()
        bad, count = [], 0
        with records.writing(self.path) as writer:
            contents = pool.map(_encoded, self.photos)
            for photo, content in zip(self.photos, contents, strict=True):
                if isinstance(content, prepared.DataError):
                    named = f"{photo.origin}: " if photo.origin else ""
                    bad.append([photo.name, f"{named}{content}"])
                    continue
                example = features.encode_example(example_of(photo, content))
                writer.write(features.serialize_example(example))
                count += 1
        with files.replacing(self._note) as temporary:
            outcome = {_MADE_OF: made_of, "bad": bad, "num_examples": count}
            temporary.write_text(json.dumps(outcome))

    def _made_of(self) -> str:
        return made_of(self.photos)


def made_of(photos: Sequence[table.Photo]) -> str:
    """Describes files and labels, to detect changes."""
    digest = hashlib.sha256()
    for photo in photos:
        try:
            status = photo.path.stat()
            state = [status.st_size, status.st_mtime_ns]
        except OSError:
            state = []
        parts = [photo.name, photo.labels, photo.split, state]
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def prepare(
    photos: table.Table,
    data_dir: str | os.PathLike,
    name: str,
    *,
    skip_bad: bool = False,
    num_threads: int | None = None,
    report: Callable[[str], None] = print,
) -> Contents:
    """Writes a data set, or the rest of it.

    An example is an `image` of any size and the name of its `file`, with the
    dictionary `attributes` of labels of the classes "no" and "yes", or with
    the class `label`. As everywhere in TFDS, -1 is a label that is missing.

    Args:
        photos: The photos and their labels.
        data_dir: Where prepared data sets lie.
        name: The name of the data set.
        skip_bad: Whether to leave out what cannot be read.
        num_threads: How many photos to read at once; None for one on each
            core.
        report: Called with lines about progress and what cannot be read.

    Raises:
        prepared.DataError: If photos cannot be read, if another data set is
            there, or if it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise prepared.DataError(
            f"{name!r} cannot be the name of a data set; expected small "
            "letters, digits and underscores, as in my_photos."
        )
    root = pathlib.Path(data_dir).expanduser() / name
    try:
        return _Writing(photos, root, skip_bad, report).run(num_threads)
    except OSError as error:
        raise prepared.DataError(
            f"{root} cannot be written ({prepared.first_line(error)})."
        ) from None


class _Writing:
    """The writing of a data set."""

    def __init__(
        self,
        photos: table.Table,
        root: pathlib.Path,
        skip_bad: bool,
        report: Callable[[str], None],
    ):
        self._table = photos
        self._root = root
        self._skip_bad = skip_bad
        self._report = report
        self._directory = root / _VERSION
        self._unfinished = root / f"unfinished-{_VERSION}"
        self._features = _features(photos)
        self._shards = {
            split: _shards(photos.photos, split, self._unfinished)
            for split in sorted({photo.split for photo in photos.photos})
        }

    def run(self, num_threads: int | None) -> Contents:
        """Writes what is missing."""
        if self._directory.exists():
            return self._existing()
        self._list("bad row", self._table.bad)
        with files.alone_in(self._unfinished):
            outcomes = self._write(num_threads or os.cpu_count() or 1)
            of_files = dict(b for o in outcomes.values() for b in o["bad"])
            names = [photo.name for photo in self._table.photos]
            in_order = [of_files[name] for name in names if name in of_files]
            self._list("bad file", in_order)
            bad = (*self._table.bad, *in_order)
            if bad and not self._skip_bad:
                raise prepared.DataError(
                    f"{len(bad)} of "
                    f"{len(self._table.photos) + len(self._table.bad)} photos "
                    "cannot be used (see above); mend them and start again, "
                    "which keeps the others, or leave them out by --skip_bad."
                )
            contents = self._finish(outcomes, bad)
        shutil.rmtree(self._unfinished)
        return contents

    def _list(self, kind: str, lines: Sequence[str]) -> None:
        for line in lines[:_LISTED]:
            self._report(f"{kind}: {line}")
        if len(lines) > _LISTED:
            self._report(f"{kind}: {len(lines) - _LISTED:,} more")

    def _existing(self) -> Contents:
        """Returns what is there, if it is what was asked for."""
        held = prepared.open_set(self._root.name, str(self._root.parent))
        metadata = held.builder.info.metadata or {}
        if metadata.get(_MADE_OF) != made_of(self._table.photos):
            raise prepared.DataError(
                f"{self._directory}: holds other photos or labels; give "
                "another name, or remove this folder."
            )
        splits = held.builder.info.splits
        return Contents(
            self._directory,
            {split: info.num_examples for split, info in splits.items()},
            tuple(metadata["bad"]),
        )

    def _write(self, num_threads: int) -> dict[_Shard, dict[str, Any]]:
        """Writes the shards that are not there; returns their outcomes."""
        shards = [s for found in self._shards.values() for s in found]
        total = sum(len(shard.photos) for shard in shards)
        done, printed = 0, time.monotonic()
        outcomes = {}
        with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
            for shard in shards:
                outcome = shard.outcome()
                if outcome is None:
                    shard.write(self._features, self._example, pool)
                    outcome = shard.outcome()
                if outcome is None:
                    raise prepared.DataError(
                        f"{shard.photos[0].path} or a file beside it changed "
                        "while it was read; start again."
                    )
                outcomes[shard] = outcome
                done += len(shard.photos)
                now = time.monotonic()
                if now - printed >= _SECONDS_BETWEEN_LINES and done < total:
                    self._report(f"{done:,}/{total:,} photos")
                    printed = now
        return outcomes

    def _example(self, photo: table.Photo, content: bytes) -> dict[str, Any]:
        example = {"image": content, "file": photo.name}
        if self._table.classes:
            return {**example, "label": photo.labels[0]}
        pairs = zip(self._table.attributes, photo.labels, strict=True)
        return {**example, "attributes": dict(pairs)}

    def _finish(self, outcomes, bad: Sequence[str]) -> Contents:
        """Moves the shards into the data set."""
        whole = self._unfinished / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        infos, numbers = [], {}
        for split, shards in self._shards.items():
            held = [s for s in shards if outcomes[s]["num_examples"]]
            numbers[split] = sum(outcomes[s]["num_examples"] for s in held)
            if not held:
                raise prepared.DataError(
                    f"{split}: got no photo that can be read, expected some."
                )
            template = tfds.core.ShardedFileTemplate(
                data_dir=whole,
                dataset_name=self._root.name,
                split=split,
                filetype_suffix="tfrecord",
            )
            for index, shard in enumerate(held):
                target = template.sharded_filepath(
                    shard_index=index, num_shards=len(held)
                )
                files.link(shard.path, target)
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[outcomes[s]["num_examples"] for s in held],
                    num_bytes=sum(s.path.stat().st_size for s in held),
                    filename_template=template,
                )
            )
        tfds.folder_dataset.write_metadata(
            data_dir=whole,
            features=self._features,
            split_infos=infos,
            version=_VERSION,
            description="Photos of a folder, with their labels.",
            metadata=tfds.core.MetadataDict(
                {_MADE_OF: made_of(self._table.photos), "bad": list(bad)}
            ),
        )
        os.rename(whole, self._directory)
        return Contents(self._directory, numbers, tuple(bad))


def _features(photos: table.Table) -> tfds.features.FeaturesDict:
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "file": tfds.features.Text(),
    }
    if photos.classes:
        names = list(photos.classes)
        features["label"] = tfds.features.ClassLabel(names=names)
    else:
        features["attributes"] = {
            name: tfds.features.ClassLabel(names=["no", "yes"])
            for name in photos.attributes
        }
    return tfds.features.FeaturesDict(features)


def _shards(
    photos: Sequence[table.Photo], split: str, directory: pathlib.Path
) -> list[_Shard]:
    """Divides a split into shards that hold photos of all kinds."""
    held = [photo for photo in photos if photo.split == split]
    order = np.random.default_rng(_ORDER_SEED).permutation(len(held))
    parts = np.array_split(order, -(-len(held) // PER_SHARD))
    return [
        _Shard(
            tuple(held[i] for i in part),
            directory / split / f"{index:05d}.tfrecord",
        )
        for index, part in enumerate(parts)
    ]


def _encoded(photo: table.Photo) -> bytes | prepared.DataError:
    try:
        return pixels.encoded(photo.path)
    except prepared.DataError as error:
        return error
