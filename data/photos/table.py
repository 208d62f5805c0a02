"""Photos and their labels."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from data import prepared

YES, NO, MISSING = 1, 0, -1
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclasses.dataclass(frozen=True)
class Photo:
    """A file and its labels.

    Attributes:
        path: The file.
        name: Its path in the folder of photos.
        origin: Where it was named, for messages; empty for a folder.
        labels: `YES`, `NO` or `MISSING` for each attribute; or the index of
            its class alone.
        split: The name of its split.
    """

    path: pathlib.Path
    name: str
    origin: str
    labels: tuple[int, ...]
    split: str


@dataclasses.dataclass(frozen=True)
class Table:
    """Photos with attributes, or with a class each.

    Attributes:
        photos: The photos.
        attributes: The names of the attributes; empty for classes.
        classes: The names of the classes; empty for attributes.
        bad: A line for each row that cannot be used.
        ignored: Files in the folders that are no images.
    """

    photos: Sequence[Photo]
    attributes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Split:
    """How photos are divided.

    Attributes:
        column: The column that names the split of each photo; None to draw
            the test photos.
        test_share: The share that is drawn for the split `test`.
        seed: Seed of the draw.
    """

    column: str | None = None
    test_share: float = 0.1
    seed: int = 0

    def divide(self, photos: Sequence[Photo]) -> list[Photo]:
        """Returns the photos with `train` or `test` as their splits.

        Raises:
            prepared.DataError: If there are not two.
        """
        if len(photos) < 2:
            raise prepared.DataError(
                f"got {len(photos)} photos, expected at least one to train on "
                "and one to test on."
            )
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(len(photos))
        number = round(self.test_share * len(photos))
        number = min(max(number, 1), len(photos) - 1)
        tested = {int(index) for index in order[:number]}
        return [
            dataclasses.replace(photo, split=TEST if i in tested else TRAIN)
            for i, photo in enumerate(photos)
        ]
