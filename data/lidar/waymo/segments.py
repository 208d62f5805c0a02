"""Finds the segments of the data set, of both versions."""

import dataclasses
import glob
import pathlib
from collections.abc import Callable, Iterator

from data.lidar import examples as lidar_examples
from data.lidar.waymo import messages, records, scans, tables


@dataclasses.dataclass(frozen=True)
class RecordSegment:
    """A segment of v1.

    Attributes:
        path: Its TFRecord file.
    """

    path: pathlib.Path

    @property
    def name(self) -> str:
        """Its unique name."""
        return self.path.name.partition(".tfrecord")[0]

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All its files."""
        return (self.path,)

    def examples(
        self, on_counted: Callable[[int], None] = scans.pass_over
    ) -> Iterator[lidar_examples.Example]:
        """Reads its frames, see `records.read`."""
        return records.read(self.path, on_counted)


@dataclasses.dataclass(frozen=True)
class TableSegment:
    """A segment of v2.

    Attributes:
        directory: Holds the folders of the tables.
        name: Name of its files, unlike that of any other.
    """

    directory: pathlib.Path
    name: str

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All its files."""
        return tuple(
            self.directory / kind / f"{self.name}.parquet"
            for kind in tables.KINDS
        )

    def examples(
        self, on_counted: Callable[[int], None] = scans.pass_over
    ) -> Iterator[lidar_examples.Example]:
        """Reads its frames, see `tables.read`."""
        return tables.read(self.directory, self.name, on_counted)


Segment = RecordSegment | TableSegment


def find(place: str) -> list[Segment]:
    """Finds segments.

    Args:
        place: A folder of `*.tfrecord` files (v1), a folder that holds the
            folders of the Parquet tables (v2), one TFRecord file, or a pattern
            of them such as `/data/segment-1*.tfrecord`.

    Returns:
        The segments in the order of their names.

    Raises:
        LidarDataError: If there are none, or two of one name, or if what it
            takes to read them is not installed.
    """
    directory = pathlib.Path(place).expanduser()
    if (directory / tables.LIDAR).is_dir():
        found = [
            TableSegment(directory, path.stem)
            for path in (directory / tables.LIDAR).glob("*.parquet")
        ]
    elif directory.is_dir():
        found = [RecordSegment(path) for path in directory.glob("*.tfrecord")]
    else:
        found = [
            RecordSegment(path)
            for path in map(pathlib.Path, glob.glob(str(directory)))
            if path.is_file()
        ]
    if not found:
        raise lidar_examples.LidarDataError(
            f"{place}: got no segments there, expected a folder of "
            "*.tfrecord files, of v2 tables, or a pattern of TFRecords."
        )
    check_unique_names(found)
    if isinstance(found[0], TableSegment):
        tables.load_parquet()
    else:
        messages.load()
    return sorted(found, key=lambda segment: segment.name)


def check_unique_names(segments: list[Segment]) -> None:
    """Raises a `LidarDataError` if two segments have one name."""
    places = {}
    for segment in segments:
        other = places.setdefault(segment.name, segment)
        if other is not segment:
            raise lidar_examples.LidarDataError(
                f"got {other.paths[0]} and {segment.paths[0]}, expected each "
                "segment once."
            )
