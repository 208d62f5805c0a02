"""A table of photos and labels in a CSV file.

Its first column names the files. Its other columns are attributes (`1` or
`true` for yes; `0`, `-1` or `false` for no; nothing where it is not known), or
one of them a class.
"""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Sequence

from data import prepared
from data.photos.table import MISSING, NO, TRAIN, YES, Photo, Split, Table

_VALUES = {
    "": MISSING, "1": YES, "true": YES, "yes": YES, "0": NO, "-1": NO,
    "false": NO, "no": NO, "1.0": YES, "0.0": NO, "-1.0": NO,
}  # fmt: skip
_EXPECTED = "expected 0, 1, -1, true, false, yes, no or nothing"
_SPLIT = re.compile(r"[a-z][a-z0-9_]*", re.IGNORECASE)


def read(
    path: pathlib.Path,
    images: pathlib.Path,
    split: Split,
    attributes: Sequence[str] = (),
    class_column: str | None = None,
) -> Table:
    """Reads a table of labels.

    Args:
        path: The CSV file; its first column names files in `images`.
        images: The folder of the photos.
        split: How photos are divided.
        attributes: The columns to take for attributes; by default all but the
            first and that of the split.
        class_column: The column that names the class of each photo, instead
            of attributes; a single column of other values than yes and no is
            one by itself.

    Raises:
        prepared.DataError: If the table cannot be read, or a column is missing
            or neither.
    """
    header, rows = _rows(path)
    columns = header[1:]
    for name in (*attributes, class_column, split.column):
        if name is not None and name not in columns:
            raise prepared.DataError(
                f"{path}: there is no column {name!r}, expected one of "
                f"{', '.join(columns)}."
            )
    taken = list(attributes) or [n for n in columns if n != split.column]
    if not taken:
        raise prepared.DataError(
            f"{path}: got no column with labels, expected some after the "
            f"first, {header[0]!r}."
        )
    if class_column is None and len(taken) == 1 and not attributes:
        values = [row.get(taken[0], "") for _, row in rows]
        if any(values) and not _holds_attribute(values):
            class_column = taken[0]
    if class_column is None:
        for name in taken:
            _check_attribute(path, name, rows)
    classes = _classes(path, class_column, rows) if class_column else ()
    photos, bad, seen = [], [], {}
    for origin, row in rows:
        try:
            photo = _photo(origin, row, header[0], images, split.column)
            if photo.name in seen:
                raise prepared.DataError(
                    f"{origin}: {photo.name} was named before, in "
                    f"{seen[photo.name]}."
                )
            if class_column:
                labels = (_class(origin, row, class_column, classes),)
            else:
                labels = tuple(_value(origin, row, name) for name in taken)
        except prepared.DataError as error:
            bad.append(str(error))
            continue
        seen[photo.name] = origin
        photos.append(dataclasses.replace(photo, labels=labels))
    if split.column is None:
        photos = split.divide(photos)
    names = () if class_column else tuple(taken)
    return Table(photos, names, tuple(classes), tuple(bad))


def _rows(path: pathlib.Path) -> tuple[list[str], list[tuple[str, dict]]]:
    """Reads the header, and rows by the names of their columns.

    A row that is too short or too long says so in a column None.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            start = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=start.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [[cell.strip() for cell in line] for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise prepared.DataError(
            f"{path}: cannot be read as a CSV file ({reason})."
        ) from None
    if len(lines) < 2 or len(lines[0]) < 2:
        raise prepared.DataError(
            f"{path}: expected a line with the names of two columns or more, "
            "the first that of the files, and a line for each file."
        )
    header = lines[0]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        raise prepared.DataError(
            f"{path}: row 1: expected a different name for each column, got "
            f"{', '.join(map(repr, header))}."
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not any(line):
            continue
        row = dict(zip(header, line, strict=False))
        if len(line) != len(header):
            row[None] = f"got {len(line)} cells, expected {len(header)}"
        rows.append((f"{path}: row {number}", row))
    return header, rows


def _holds_attribute(values: Sequence[str]) -> bool:
    """Returns whether most of a column's values are yes and no."""
    known = [value.lower() for value in values if value]
    return sum(value in _VALUES for value in known) * 2 > len(known)


def _check_attribute(path: pathlib.Path, name: str, rows: Sequence) -> None:
    values = [row.get(name, "") for _, row in rows]
    if not any(values):
        raise prepared.DataError(f"{path}: the column {name!r} is empty.")
    if "/" in name:
        raise prepared.DataError(
            f"{path}: the column {name!r} cannot be the name of an attribute; "
            "write it without a slash."
        )
    if not _holds_attribute(values):
        origin, row = next(
            (origin, row)
            for origin, row in rows
            if row.get(name, "").lower() not in _VALUES
        )
        raise prepared.DataError(
            f"{origin}: the column {name!r} is no attribute: got "
            f"{row[name]!r}, {_EXPECTED}; name the columns to take."
        )


def _photo(
    origin: str,
    row: dict,
    file_column: str,
    images: pathlib.Path,
    split_column: str | None,
) -> Photo:
    """Returns the photo of a row, without its labels."""
    if None in row:
        raise prepared.DataError(f"{origin}: {row[None]}.")
    name = row[file_column]
    path = images / name
    if not name or not path.is_file():
        raise prepared.DataError(f"{origin}: there is no file {path}.")
    split = TRAIN if split_column is None else row[split_column]
    if not _SPLIT.fullmatch(split):
        raise prepared.DataError(
            f"{origin}: {split_column}: got {split!r}, expected the name of a "
            "split, such as train or test."
        )
    return Photo(path, name, origin, (), split.lower())


def _value(origin: str, row: dict, name: str) -> int:
    text = row[name].lower()
    if text not in _VALUES:
        raise prepared.DataError(
            f"{origin}: {name}: got {row[name]!r}, {_EXPECTED}."
        )
    return _VALUES[text]


def _classes(path: pathlib.Path, name: str, rows: Sequence) -> tuple[str, ...]:
    found = sorted({row[name] for _, row in rows if row.get(name)})
    if len(found) < 2:
        raise prepared.DataError(
            f"{path}: the column {name!r} names {len(found)} classes, expected "
            "at least two."
        )
    return tuple(found)


def _class(origin: str, row: dict, name: str, classes: Sequence[str]) -> int:
    if not row[name]:
        raise prepared.DataError(
            f"{origin}: {name}: got nothing, expected a class."
        )
    return classes.index(row[name])
