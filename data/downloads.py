"""Downloads of the data sets that TensorFlow Datasets knows."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable
from urllib import parse

import requests
import tensorflow_datasets as tfds

from data import files, prepared, sources

_SECONDS_FOR_AN_ANSWER = 10.0


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
    _reach_host(name, root)
    existed = root.exists()
    unfinished = root / f"incomplete.{name.replace('/', '-')}"
    try:
        with files.alone_in(unfinished):
            _download(name, root, unfinished, report)
    except (prepared.DataError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Every host fails in its own way.
        reason = f"{type(error).__name__}: {prepared.first_line(error)}"
        raise _failed(name, root, reason) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):
                root.rmdir()


def _reach_host(name: str, root: pathlib.Path) -> None:
    """Raises a `DataError` if the host of a data set gives no answer.

    TFDS would try again for minutes.
    """
    urls = tfds.builder_cls(name.partition("/")[0]).url_infos or {}
    for url in [*urls][:1]:
        try:
            requests.head(url, timeout=_SECONDS_FOR_AN_ANSWER)
        except requests.RequestException:
            host = parse.urlsplit(url).netloc
            raise _failed(name, root, f"{host} gives no answer") from None


def _failed(name: str, root: pathlib.Path, reason: str) -> prepared.DataError:
    return prepared.DataError(
        f"{name} could not be downloaded to {root} ({reason}); give the data "
        "directory of a prepared copy."
    )


def _download(
    name: str,
    root: pathlib.Path,
    unfinished: pathlib.Path,
    report: Callable[[str], None],
) -> None:
    builder = tfds.builder(name, data_dir=unfinished)
    size = builder.info.download_size
    # 0 where TFDS does not know it.
    report(f"Downloading {name}{(size and f' ({size})') or ''} to {root}")
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
