"""Files that are either whole or untouched."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from trainers import errors

SUFFIX = ".tmp"


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Opens a new version of a file, which takes its place at the end.

    Whenever the process dies, `path` holds the old or the new version.

    Args:
        path: The file to replace or create; its folder is made if missing.

    Yields:
        The new version, open for writing.

    Raises:
        UserError: If it cannot be written; the old version stays.
    """
    temporary = path.with_name(path.name + SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise errors.UserError(
                f"{path} cannot be written ({error.strerror or error}); what "
                "was there before is still there. Make room, or see to the "
                "permissions, and use the same command again."
            ) from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: pathlib.Path, text: str) -> None:
    """Replaces a file by `text`."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Replaces a file by `value`, readable for people too."""
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
