"""Downloads of the data sets that TensorFlow Datasets knows."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable

import tensorflow_datasets as tfds

from data import files, prepared, sources


def download(
    name: str,
    data_dir: str | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Downloads and prepares a data set, unless it is there.

    Nothing is left behind if that fails.

    Args:
        name: As TensorFlow Datasets has it: `celeb_a`, or with a config
            `imagenet_resized/32x32`.
        data_dir: Where prepared data sets lie.
        report: Called with a line about what is downloaded.

    Raises:
        prepared.DataError: If it cannot be downloaded.
    """
    root = prepared.root_of(data_dir)
    if prepared.newest_version(root / name) is not None:
        return
    if not sources.is_downloadable(name):
        raise prepared.DataError(
            f"{name} cannot be downloaded; expected one of the data sets of "
            "https://www.tensorflow.org/datasets."
        )
    archives = sources.describe_archives(name, root)
    if archives and not any(sources.archives_folder(root).glob("*")):
        raise prepared.DataError(f"{name}: {archives}.")
    existed = root.exists()
    unfinished = root / f"incomplete.{name.replace('/', '-')}"
    try:
        with files.alone_in(unfinished):
            _download(name, root, unfinished, report)
    except (prepared.DataError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Every host fails in its own way.
        raise prepared.DataError(
            f"{name} could not be downloaded to {root} "
            f"({type(error).__name__}: {prepared.first_line(error)}); give the "
            "data directory of a prepared copy."
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                root.rmdir()


def _download(
    name: str,
    root: pathlib.Path,
    unfinished: pathlib.Path,
    report: Callable[[str], None],
) -> None:
    builder = tfds.builder(name, data_dir=unfinished)
    report(f"Downloading {name} ({builder.info.download_size}) to {root}")
    # TFDS prints the same again, and of a folder that does not stay.
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare(
            download_dir=unfinished / "downloads",
            download_config=tfds.download.DownloadConfig(
                manual_dir=sources.archives_folder(root)
            ),
        )
    version = pathlib.Path(builder.data_dir)
    target = root / version.relative_to(unfinished)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(version, target)
