"""Writes KITTI's frames as a data set of TensorFlow Datasets."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from data import kitti, lidar_examples


class KittiLidar(tfds.core.GeneratorBasedBuilder):
    """Training examples of lidar detection, from KITTI's own folders.

    Args:
        directory: The folder `training`.
        **kwargs: As for every builder, such as `data_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, directory: str | os.PathLike = "", **kwargs):
        self._directory = pathlib.Path(directory)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Lidar frames and boxes of KITTI.",
            features=lidar_examples.features(),
            homepage="https://www.cvlibs.net/datasets/kitti/",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(
        self,
    ) -> Iterator[tuple[int, lidar_examples.Example]]:
        yield from enumerate(kitti.read(self._directory))


def prepare(
    directory: str | os.PathLike, data_dir: str | os.PathLike
) -> pathlib.Path:
    """Prepares the frames of a folder, unless that was done before.

    Args:
        directory: The folder `training`, with velodyne, label_2 and calib.
        data_dir: Where prepared data sets lie.

    Returns:
        The folder of the data set, for `tfds.builder_from_directory`. It
        appears when all frames are written; its one split is `train`.

    Raises:
        LidarDataError: If a frame cannot be read, if the data set is there
            with another number of frames, or if none can be written.
    """
    root = pathlib.Path(data_dir).expanduser()
    target = root / KittiLidar.name / str(KittiLidar.VERSION)
    num_frames = len(kitti.frame_names(directory))
    try:
        builder = KittiLidar(directory=directory, data_dir=root)
        if not target.exists():
            # The builder speaks of a download, and wants a folder for it.
            with (
                tempfile.TemporaryDirectory() as nowhere,
                contextlib.redirect_stdout(None),
            ):
                builder.download_and_prepare(download_dir=nowhere)
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise lidar_examples.LidarDataError(
            f"{target} cannot be written ({reason}); give another data "
            "directory."
        ) from None
    held = builder.info.splits["train"].num_examples
    if held != num_frames:
        raise lidar_examples.LidarDataError(
            f"{target}: holds {held} frames, expected the {num_frames} of "
            f"{directory}; give another data directory, or remove this folder."
        )
    return target
