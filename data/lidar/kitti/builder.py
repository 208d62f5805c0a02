"""Writes KITTI's frames as a data set of TensorFlow Datasets."""

import os
from collections.abc import Iterator, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from data import prepared
from data.lidar import examples
from data.lidar.kitti import frames


class KittiLidar(tfds.core.GeneratorBasedBuilder):
    """Training examples of lidar detection, from KITTI's own folders.

    Args:
        directory: The folder `training`.
        **kwargs: As for every builder, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Vans and sitting persons are neighbours of their types."
    }

    def __init__(self, *, directory: str | os.PathLike = "", **kwargs):
        self._directory = directory
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Lidar frames and boxes of KITTI.",
            features=examples.features(),
            homepage="https://www.cvlibs.net/datasets/kitti/",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        names = frames.frame_names(self._directory)
        self.info.metadata["frames"] = names
        return {"train": self._generate_examples(names)}

    def _generate_examples(
        self, names: Sequence[str]
    ) -> Iterator[tuple[int, examples.Example]]:
        boxes = empty = 0
        for index, example in enumerate(frames.read(self._directory, names)):
            boxes += len(example["num_points"])
            empty += int((example["num_points"] == 0).sum())
            yield index, example
        self.info.metadata["num_boxes"] = boxes
        self.info.metadata["num_empty_boxes"] = empty


def prepare(
    directory: str | os.PathLike, data_dir: str | os.PathLike
) -> tfds.core.DatasetBuilder:
    """Prepares the frames of a folder, unless they are prepared.

    Args:
        directory: The folder `training`, with velodyne, label_2 and calib.
        data_dir: Where prepared data sets lie.

    Returns:
        The builder of the data set, whose folder appears when all frames are
        written; its one split is `train`. Its metadata hold `num_boxes` and
        `num_empty_boxes`, those without a lidar point.

    Raises:
        prepared.DataError: If a frame cannot be read, if the data set is
            there with other frames, or if none can be written.
    """
    names = frames.frame_names(directory)
    builder = prepared.write(KittiLidar, data_dir, directory=directory)
    if builder.info.metadata.get("frames") != names:
        raise prepared.DataError(
            f"{builder.data_dir}: holds other frames than {directory}; give "
            "another data directory, or remove this folder."
        )
    return builder
