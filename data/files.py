"""Files that are written whole or not at all."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

SUFFIX = ".tmp"


@contextlib.contextmanager
def replacing(
    path: pathlib.Path, *, shared: bool = False
) -> Iterator[pathlib.Path]:
    """Yields a temporary file that replaces `path` at the end.

    Whenever the process dies, `path` holds the old or the new version.

    Args:
        path: The file to replace or create; its folder is made if missing.
        shared: Whether several processes may write `path` at once. Each then
            has its own temporary file; one that is killed leaves it behind.

    Yields:
        The path to write the new version to.

    Raises:
        OSError: If it cannot be written; the old version stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f".{uuid.uuid4().hex}" if shared else ""
    temporary = path.with_name(f"{path.name}{writer}{SUFFIX}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def link(source: pathlib.Path, target: os.PathLike) -> None:
    """Makes a file appear at a second path too."""
    try:
        os.link(source, target)
    except OSError:
        # Some file systems have no links.
        shutil.copyfile(source, target)


@contextlib.contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[None]:
    """Locks a folder against other processes, until this one ends.

    Args:
        directory: The folder; it is made if missing.

    Raises:
        OSError: If another process holds the lock.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(
                f"{directory}: another process is preparing it; wait for it."
            ) from error
        yield
