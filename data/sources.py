"""Names where a data set comes from that is not on disk."""

import pathlib

import tensorflow_datasets as tfds

_IMAGES = "launch.prepare_images"
# Data sets that TensorFlow Datasets does not know; None where no command makes
# them.
_MADE_BY = {
    "cmu_faces": None,
    "drawn_faces": "launch.draw_faces",
    "kitti_lidar": "launch.prepare_kitti",
    "waymo_lidar": (
        "launch.prepare_waymo, from segments of Waymo or of "
        "launch.simulate_waymo"
    ),
}


def advise(name: str, root: pathlib.Path, maker: str | None = None) -> str:
    """Says what to do about a missing data set, after `give a copy, or`.

    Args:
        name: As TensorFlow Datasets has it.
        root: Where prepared data sets lie.
        maker: The command that makes sets of its kind under names that are
            not known here; `launch.prepare_images` by default.

    Returns:
        Words without a full stop; empty if there is nothing else to do.
    """
    if is_downloadable(name):
        archives = describe_archives(name, root)
        if archives:
            return f"{archives}, and let it be prepared, by --download"
        return "let it be downloaded, by --download"
    made_by = _MADE_BY.get(name, maker or _IMAGES)
    return f"prepare it with {made_by}" if made_by else ""


def is_downloadable(name: str) -> bool:
    """Returns whether TensorFlow Datasets knows a data set."""
    # Ours are registered too, once their modules are imported.
    known = tfds.list_builders(with_community_datasets=False)
    return name not in _MADE_BY and name.partition("/")[0] in known


def archives_folder(root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of archives that TFDS cannot download."""
    return root / "downloads" / "manual"


def describe_archives(name: str, root: pathlib.Path) -> str:
    """Says where to put archives that TensorFlow Datasets cannot download.

    Args:
        name: A data set that it knows.
        root: Where prepared data sets lie.

    Returns:
        Words without a full stop; empty if it downloads them itself.
    """
    text = tfds.builder_cls(name.partition("/")[0]).MANUAL_DOWNLOAD_INSTRUCTIONS
    if not text:
        return ""
    words = " ".join(text.split()).rstrip(".")
    return (
        f"put its archives into {archives_folder(root)} by hand, as TensorFlow "
        f"Datasets cannot download them ({words})"
    )
