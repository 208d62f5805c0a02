"""Files of a run, written whole or not at all."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from data import files
from trainers import errors

SUFFIX = files.SUFFIX


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a new version of a file that replaces `path` at the end.

    Whenever the process dies, `path` holds the old or the new version.

    Args:
        path: The file to replace or create; its folder is made if missing.

    Yields:
        The new version, open for writing.

    Raises:
        UserError: If it cannot be written; the old version stays.
    """
    try:
        with (
            files.replacing(path) as temporary,
            open(temporary, "wb") as file,
        ):
            yield file
    except OSError as error:
        raise errors.UserError(
            f"{path} cannot be written ({error.strerror or error}); its "
            "previous version is unchanged. Free some space or change the "
            "permissions, then run the same command again."
        ) from None


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces a file by `text`."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replaces a file by `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads a JSON object.

    Args:
        path: The file to read.

    Returns:
        The object, or None where there is no such file.

    Raises:
        UserError: If the file holds anything else.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        reason = str(error)
    else:
        if isinstance(value, dict):
            return value
        reason = f"got a {type(value).__name__}"
    raise errors.UserError(
        f"{path}: expected a JSON object ({reason}); remove the run directory "
        "or restore the file."
    )
