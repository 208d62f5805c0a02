"""Images with binary attributes, such as CelebA, from a prepared data set.

Attributes are read from any features that hold yes or no, or one of several
classes:

| feature | attributes |
| --- | --- |
| a dictionary of booleans (`attributes` of `celeb_a`) | one for each key |
| a boolean | one |
| a label of two classes | one, named after the second |
| a label of more classes | one for each class, of which one is true |
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared, streams

_IMAGE = "image"
_SHUFFLE_BUFFER = 16_384


@dataclasses.dataclass(frozen=True)
class Shape:
    """How images are brought to one shape.

    Attributes:
        height: Rows that the model sees.
        width: Columns that the model sees.
        crop: Side of the square that is cut out of the middle before it is
            resized; 0 takes the whole image.
    """

    height: int
    width: int
    crop: int = 0


class AttributeSet:
    """A data set of images and attributes.

    Args:
        name: Name of a data set, see `prepared.open_set`.
        labels: The features that hold the attributes.
        data_dir: Where prepared data sets lie.

    Attributes:
        names: Names of the attributes, in the order of the labels.
        channels: 1 or 3.

    Raises:
        prepared.DataError: If there is no such data set, or it has another
            schema.
    """

    def __init__(
        self, name: str, labels: Sequence[str], data_dir: str | None = None
    ):
        self._set = prepared.open_set(name, data_dir)
        features = self._set.features
        if _IMAGE not in features or not isinstance(
            features[_IMAGE], tfds.features.Image
        ):
            raise prepared.DataError(
                f"{name}: expected a feature {_IMAGE!r} that is an image, got "
                f"{_describe(features)}."
            )
        self._size = features[_IMAGE].shape
        self.channels = self._size[-1]
        self._labels = tuple(labels)
        names = []
        for label in self._labels:
            if label not in features or label == _IMAGE:
                raise prepared.DataError(
                    f"{name}: there is no feature {label!r} to take "
                    f"attributes from, got {_describe(features)}."
                )
            names += _names_of(name, label, features[label])
        self.names = tuple(names)

    def num_examples(self, split: str) -> int:
        """Counts the images of a split."""
        return self._set.num_examples(split)

    def check(self, split: str) -> None:
        """Reads a split from end to end; see `prepared.PreparedSet.check`."""
        self._set.check(split)

    def check_shape(self, shape: Shape) -> None:
        """Raises a `prepared.DataError` if images are smaller than the crop."""
        sides = [side for side in self._size[:2] if side is not None]
        if sides and shape.crop > min(sides):
            raise prepared.DataError(
                f"{self._set.name}: a square of {shape.crop} cannot be cut "
                f"out of images of {self._size[0]} x {self._size[1]}."
            )

    def training_batches(
        self, split: str, shape: Shape, reading: streams.Reading
    ) -> tf.data.Dataset:
        """Returns the endless stream of training batches.

        Args:
            split: What to read, such as `train`.
            shape: The shape of the images.
            reading: Which batches.

        Returns:
            Batches of images `[batch, height, width, channels]`, float32 in
            [0, 1], and attributes `[batch, T]`, float32, 0 or 1.
        """
        records = self._set.endless_records(split, reading, _SHUFFLE_BUFFER)
        return self._batches(records, shape, reading.share, drop_remainder=True)

    def test_batches(
        self, split: str, shape: Shape, *, batch_size: int
    ) -> tf.data.Dataset:
        """Returns one pass over a split, in batches like those of training.

        The last batch may be smaller.
        """
        return self._batches(
            self._set.records(split), shape, batch_size, drop_remainder=False
        )

    def labels(self, split: str) -> np.ndarray:
        """Returns the attributes of a split, `[n, T]`, float32, 0 or 1."""
        skip = {_IMAGE: tfds.decode.SkipDecoding()}
        labels = self._set.records(split).map(
            lambda record: self._attributes(self._set.parse(record, skip)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return np.stack(list(labels.as_numpy_iterator()))

    def _batches(
        self,
        records: tf.data.Dataset,
        shape: Shape,
        batch_size: int,
        drop_remainder: bool,
    ) -> tf.data.Dataset:
        examples = records.map(
            lambda record: self._example(record, shape),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        batches = examples.batch(batch_size, drop_remainder=drop_remainder)
        return batches.prefetch(tf.data.AUTOTUNE)

    def _example(self, record: tf.Tensor, shape: Shape):
        features = self._set.parse(record)
        image = features[_IMAGE]
        if shape.crop:
            image = tf.image.resize_with_crop_or_pad(
                image, shape.crop, shape.crop
            )
        image = tf.image.convert_image_dtype(image, tf.float32)
        size = (shape.height, shape.width)
        if tuple(image.shape[:2]) != size:
            image = tf.image.resize(image, size, antialias=True)
        return image, self._attributes(features)

    def _attributes(self, features: Mapping[str, Any]) -> tf.Tensor:
        parts = []
        for label in self._labels:
            feature = self._set.features[label]
            value = features[label]
            if isinstance(feature, tfds.features.FeaturesDict):
                value = tf.stack([value[key] for key in sorted(feature)])
            elif isinstance(feature, tfds.features.ClassLabel):
                value = tf.one_hot(value, feature.num_classes)
                if feature.num_classes == 2:
                    value = value[1:]
            else:
                value = value[None]
            parts.append(tf.cast(value, tf.float32))
        return tf.concat(parts, axis=0)


def _names_of(name: str, label: str, feature: Any) -> list[str]:
    """Names the attributes that a feature holds."""
    if isinstance(feature, tfds.features.FeaturesDict):
        if all(part.np_dtype == np.bool_ for part in feature.values()):
            return sorted(feature)
    elif isinstance(feature, tfds.features.ClassLabel):
        if feature.num_classes and feature.num_classes > 1:
            classes = [f"{label}_{text}" for text in feature.names]
            return classes[1:] if len(classes) == 2 else classes
    elif feature.shape == () and feature.np_dtype == np.bool_:
        return [label]
    raise prepared.DataError(
        f"{name}: the feature {label!r} holds no attributes, got {feature}; "
        "expected booleans or a class label."
    )


def _describe(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({type(feature).__name__})"
        for name, feature in sorted(features.items())
    )
