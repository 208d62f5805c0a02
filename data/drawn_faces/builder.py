"""Writes drawn faces as a data set of TensorFlow Datasets.

    contents = builder.Contents(train=10_000)
    directory = builder.prepare("~/tensorflow_datasets", contents)
    faces = tfds.builder_from_directory(directory).as_dataset(split="train")

The data set has the features and splits of `celeb_a` 2.1.0: what reads one
reads the other, and this code is not needed to read it.
"""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from data import prepared
from data.drawn_faces import attributes, drawing, examples

_JPEG_QUALITY = 90


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a data set of drawn faces holds.

    Attributes:
        train: Faces in the split of that name.
        validation: Faces in the split of that name.
        test: Faces in the split of that name.
        seed: Decides the faces, each by the seed, its split and its number:
            a larger data set of the same seed begins with the same faces.

    Raises:
        prepared.DataError: For an empty split or a negative seed.
    """

    train: int = 4_000
    validation: int = 500
    test: int = 500
    seed: int = 0

    def __post_init__(self):
        """Validates the fields."""
        for split in examples.SPLITS:
            if getattr(self, split) < 1:
                raise prepared.DataError(
                    f"{split}: got {getattr(self, split)} faces, expected at "
                    "least 1."
                )
        if self.seed < 0:
            raise prepared.DataError(
                f"seed: got {self.seed}, expected at least 0."
            )

    def __str__(self) -> str:
        """Returns a description for a message."""
        return (
            f"{self.train:,} train, {self.validation:,} validation, "
            f"{self.test:,} test faces of seed {self.seed}"
        )


class DrawnFaces(tfds.core.GeneratorBasedBuilder):
    """Faces drawn with the attributes of CelebA.

    Args:
        contents: Sizes and seed.
        **kwargs: As for every builder, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, contents: Contents | None = None, **kwargs: Any):
        self._contents = contents or Contents()
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(drawing.HEIGHT, drawing.WIDTH, 3),
                        encoding_format="jpeg",
                    ),
                    "landmarks": dict.fromkeys(drawing.LANDMARKS, np.int64),
                    "attributes": dict.fromkeys(attributes.NAMES, np.bool_),
                    "identity": {"Identity_No": np.int64},
                }
            ),
            metadata=tfds.core.MetadataDict(dataclasses.asdict(self._contents)),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {
            split: self._generate_examples(split) for split in examples.SPLITS
        }

    def _generate_examples(
        self, split: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(getattr(self._contents, split)):
            example = examples.draw_example(self._contents.seed, split, index)
            jpeg = io.BytesIO()
            Image.fromarray(example["image"]).save(
                jpeg, "JPEG", quality=_JPEG_QUALITY
            )
            yield index, {**example, "image": jpeg.getvalue()}


def prepare(
    data_dir: str | os.PathLike, contents: Contents | None = None
) -> pathlib.Path:
    """Draws a data set, unless it exists.

    Args:
        data_dir: Where prepared data sets lie.
        contents: Sizes and seed.

    Returns:
        The folder of the data set, for `tfds.builder_from_directory`. It
        appears when all faces are drawn.

    Raises:
        prepared.DataError: If another data set is there, or none can be
            written.
    """
    contents = contents or Contents()
    root = pathlib.Path(data_dir).expanduser()
    directory = root / DrawnFaces.name / str(DrawnFaces.VERSION)
    prepared.write(DrawnFaces, data_dir, contents=contents)
    _require(contents, directory)
    return directory


def _require(contents: Contents, directory: pathlib.Path) -> None:
    """Raises a `DataError` if a folder holds anything else."""
    try:
        metadata = json.loads((directory / "metadata.json").read_text())
        held = Contents(**metadata)
    except (OSError, ValueError, TypeError):
        held = "something else"
    if held != contents:
        raise prepared.DataError(
            f"{directory}: holds {held}, expected {contents}; give another "
            "data directory, or remove this folder."
        )
