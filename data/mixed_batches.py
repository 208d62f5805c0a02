"""Batches with examples of two data sets of labelled images.

A *target*, which is what matters, and a *source*, which is to help; each is
any set that TensorFlow Datasets prepares with the features `image` and
`label`, such as `cifar100`, `cifar10`, `imagenet2012`,
`imagenet_resized/32x32`. Each has its own stream, shuffled and repeated for
itself. Values are divided by 256; nothing else is done to the images, except
that those of a set without a fixed size, like `imagenet2012`, are resized as
they are read, to the size of the target's.
"""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared, streams

SOURCE = "source"
TARGET = "target"

SCALE = 1.0 / 256.0
_SOURCE_TRAINING_SPLIT = "train"
_SOURCE_EVALUATION_SPLITS = ("validation", "test")
SHUFFLED_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size.

    Attributes:
        prepared: The data set on disk.
        image_shape: Height, width and channels of the images as they are
            read.
        training_split: What is trained on.
        evaluation_split: What is tested on.
        antialias: Whether images of another size are resized bilinearly with
            antialiasing; otherwise to the means of their areas.
    """

    prepared: prepared.PreparedSet
    image_shape: tuple[int, int, int]
    training_split: str
    evaluation_split: str
    antialias: bool = False

    @property
    def num_classes(self) -> int:
        """The number of labels."""
        return self.prepared.features["label"].num_classes

    @property
    def class_names(self) -> list[str]:
        """The names of the labels, in their order."""
        return list(self.prepared.features["label"].names)

    def check(self) -> None:
        """Reads everything; see `prepared.PreparedSet.check`."""
        for split in self.training_split, self.evaluation_split:
            self.prepared.check(split)

    def read(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes a serialized example.

        Args:
            record: A scalar string.

        Returns:
            The image, of `image_shape` with values in [0, 255], and the
            label, an integer.
        """
        example = self.prepared.parse(record)
        image = example["image"]
        size = self.image_shape[:2]
        if self.antialias:
            image = tf.image.resize(image, size, antialias=True)
        elif not image.shape.is_fully_defined():
            image = tf.image.resize(image, size, tf.image.ResizeMethod.AREA)
        return tf.ensure_shape(image, self.image_shape), example["label"]

    def training_batches(self, reading: streams.Reading) -> tf.data.Dataset:
        """Returns the endless stream of a worker's part of each batch."""
        records = self.prepared.endless_records(
            self.training_split, reading, self._shuffle_buffer()
        )
        return self._batches(records, reading.share, drop_remainder=True)

    def test_batches(self, batch_size: int) -> tf.data.Dataset:
        """Returns one pass over the test split; the last batch may be small."""
        records = self.prepared.records(self.evaluation_split)
        return self._batches(records, batch_size, drop_remainder=False)

    def no_examples(self) -> tf.data.Dataset:
        """Returns an empty batch."""
        labels = tf.zeros([0], self.prepared.features["label"].tf_dtype)
        images = tf.zeros([0, *self.image_shape])
        return tf.data.Dataset.from_tensors((images, labels))

    def _batches(
        self, records: tf.data.Dataset, batch_size: int, drop_remainder: bool
    ) -> tf.data.Dataset:
        examples = records.map(
            self.read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return examples.batch(batch_size, drop_remainder=drop_remainder).map(
            lambda images, labels: (
                tf.cast(images, tf.float32) * SCALE,
                labels,
            )
        )

    def _shuffle_buffer(self) -> int:
        """Returns how many records fit the memory of the shuffle buffer."""
        info = self.prepared.builder.info
        average = info.dataset_size / info.splits.total_num_examples
        return int(SHUFFLED_BYTES / max(average, 1))


def open_sets(
    *,
    target: str,
    training_split: str,
    evaluation_split: str,
    source: str | None,
    data_dir: str | None = None,
    image_size: int = 0,
) -> dict[str, ImageSet]:
    """Opens target and source.

    Of the source, `train` is trained on, and `validation` (`test` where there
    is none) tested on.

    Args:
        target: Name of the target.
        training_split: What of the target is trained on, such as
            `train[:40000]`.
        evaluation_split: What of the target is tested on.
        source: Name of the source; None for the target alone.
        data_dir: As in `prepared.open_set`.
        image_size: Side of the square that images of the target are resized
            to; 0 for their own size.

    Returns:
        The sets under `source`, if there is one, and `target`.

    Raises:
        prepared.DataError: If a set is not to be had or not of images with
            labels, or the two do not fit.
    """
    opened = _open(target, data_dir)
    shape = _image_shape(opened)
    if image_size:
        shape = (image_size, image_size, shape[-1])
    if None in shape:
        raise prepared.DataError(
            f"{target} has images of many sizes; give the size of the target's "
            "images, or take it for the source, which is resized."
        )
    sets = {}
    if source is not None:
        sets[SOURCE] = _open_source(source, target, shape, data_dir)
    sets[TARGET] = ImageSet(
        opened,
        shape,
        training_split,
        evaluation_split,
        antialias=shape != _image_shape(opened),
    )
    for images in sets.values():
        for split in images.training_split, images.evaluation_split:
            images.prepared.num_examples(split)
    return sets


def training_batches(
    sets: Mapping[str, ImageSet],
    batch_sizes: Mapping[str, int],
    reading: streams.Reading,
) -> tf.data.Dataset:
    """Returns the endless stream of mixed batches.

    The stream is a function of the seed, and so is each of its parts: what
    the source is does not change the order of the target.

    Args:
        sets: From `open_sets`.
        batch_sizes: Examples of each set in a step, over all workers; they
            replace the batch size of `reading`.
        reading: Which batches.

    Returns:
        Batches of (images by set, labels by set): `float32`
        `[batch_size, height, width, channels]` in [0, 1), and integers
        `[batch_size]`. All are full.
    """
    # A data set that is both target and source is read in two orders.
    seeds = {TARGET: 2 * reading.seed, SOURCE: 2 * reading.seed + 1}
    parts = {
        name: images.training_batches(
            dataclasses.replace(
                reading, batch_size=batch_sizes[name], seed=seeds[name]
            )
        )
        for name, images in sets.items()
    }
    return _mixed(parts)


def test_batches(
    sets: Mapping[str, ImageSet], batch_size: int
) -> tf.data.Dataset:
    """Returns one pass over the target's test images.

    Beside them come the source's, as many of them as there are: where they
    end before, the rest of the batches holds none.

    Args:
        sets: From `open_sets`.
        batch_size: Examples of each set in a batch; a part may be smaller.

    Returns:
        Batches as `training_batches` makes them.
    """
    parts = {
        name: images.test_batches(batch_size) for name, images in sets.items()
    }
    if SOURCE in parts:
        nothing = sets[SOURCE].no_examples().repeat()
        parts[SOURCE] = parts[SOURCE].concatenate(nothing)
    return _mixed(parts)


def _mixed(parts: Mapping[str, tf.data.Dataset]) -> tf.data.Dataset:
    def regroup(batch):
        images = {name: part[0] for name, part in batch.items()}
        labels = {name: part[1] for name, part in batch.items()}
        return images, labels

    return (
        tf.data.Dataset.zip(dict(parts)).map(regroup).prefetch(tf.data.AUTOTUNE)
    )


def _open(name: str, data_dir: str | None) -> prepared.PreparedSet:
    """Opens a data set and checks that it has images with labels."""
    opened = prepared.open_set(name, data_dir)
    wanted = {
        "image": tfds.features.Image,
        "label": tfds.features.ClassLabel,
    }
    for feature, kind in wanted.items():
        if feature not in opened.features or not isinstance(
            opened.features[feature], kind
        ):
            raise prepared.DataError(
                f"{name}: got the features {', '.join(opened.features)}, "
                "expected an `image` and a `label` that is a class."
            )
    return opened


def _open_source(
    name: str,
    target: str,
    shape: tuple[int, int, int],
    data_dir: str | None,
) -> ImageSet:
    """Opens a source and checks that its images fit the target's."""
    opened = _open(name, data_dir)
    found = _image_shape(opened)
    if any(a not in (None, b) for a, b in zip(found, shape, strict=True)):
        raise prepared.DataError(
            f"{name} has images of shape {found}, but {target} of {shape}; "
            "expected two sets of one shape, or a source without a fixed "
            "size, which is resized."
        )
    splits = opened.builder.info.splits
    for split in _SOURCE_EVALUATION_SPLITS:
        if split in splits:
            return ImageSet(opened, shape, _SOURCE_TRAINING_SPLIT, split)
    raise prepared.DataError(
        f"{name}: got the splits {', '.join(splits)}, expected one of "
        f"{', '.join(_SOURCE_EVALUATION_SPLITS)} to test on."
    )


def _image_shape(opened: prepared.PreparedSet) -> tuple[int | None, ...]:
    return tuple(opened.features["image"].shape)
