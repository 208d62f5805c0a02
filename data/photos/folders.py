"""Photos in folders: a folder for each class.

If the folders are named `train`, `validation` and `test`, they are splits, each
with a folder for each class.
"""

import pathlib

from data import prepared
from data.photos import pixels
from data.photos.table import TEST, TRAIN, VALIDATION, Photo, Split, Table

_SPLIT_FOLDERS = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "test": TEST,
}  # fmt: skip


def read(images: pathlib.Path, split: Split) -> Table:
    """Reads a folder with a subfolder for each class.

    Args:
        images: The folder.
        split: How photos are divided, where the folders do not say so.

    Raises:
        prepared.DataError: If there are not two classes.
    """
    folders = _subfolders(images)
    names = {folder.name.lower() for folder in folders}
    divided = bool(names) and names <= {*_SPLIT_FOLDERS}
    splits = {
        folder: _SPLIT_FOLDERS[folder.name.lower()] if divided else TRAIN
        for folder in (folders if divided else [images])
    }
    of_classes = [
        (folder, split_name)
        for parent, split_name in splits.items()
        for folder in _subfolders(parent)
    ]
    classes = sorted({folder.name for folder, _ in of_classes})
    if len(classes) < 2:
        raise prepared.DataError(
            f"{images}: got {len(classes)} folders of photos, expected one for "
            "each of several classes, or a table of labels."
        )
    photos, ignored = [], []
    for folder, split_name in of_classes:
        index = classes.index(folder.name)
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(images))
            if path.is_dir() or path.name.startswith("."):
                continue
            if path.suffix.lower() in pixels.SUFFIXES:
                photos.append(Photo(path, name, "", (index,), split_name))
            else:
                ignored.append(name)
    held = {photo.labels[0] for photo in photos}
    empty = [name for i, name in enumerate(classes) if i not in held]
    if empty:
        raise prepared.DataError(
            f"{images}: there are no photos in {', '.join(empty)}; remove "
            "these folders, or fill them."
        )
    if not divided:
        photos = split.divide(photos)
    return Table(photos, classes=tuple(classes), ignored=tuple(ignored))


def _subfolders(parent: pathlib.Path) -> list[pathlib.Path]:
    try:
        paths = sorted(parent.iterdir())
    except OSError as error:
        raise prepared.DataError(
            f"{parent} cannot be read ({error.strerror}); give the folder of "
            "the photos."
        ) from None
    return [p for p in paths if p.is_dir() and not p.name.startswith(".")]
