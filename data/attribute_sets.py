"""Images with binary attributes, such as CelebA, from a prepared data set.

Attributes are read from any features that hold yes or no, or one of several
classes:

| feature | attributes |
| --- | --- |
| a boolean; an integer, of which 1 is yes, 0 and -1 are no | one |
| a vector of these | one for each value, named by its index |
| a label of two classes | one, named after the second |
| a label of more classes | one for each class, of which one is true |
| a dictionary of these (`attributes` of `celeb_a`) | those of each key |

A label of two classes in a dictionary is named after its key. A label is
missing where it is -1, as everywhere in TFDS.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared, streams

_IMAGE = "image"
_SHUFFLE_BUFFER = 16_384
_CHECKED = 1_000
_SHOWN = 5
# The label of an attribute that is not known.
MISSING = -1


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

    def check_labels(self, split: str) -> None:
        """Checks that a split is there, and the first of its integers.

        Raises:
            prepared.DataError: If it is not, or if there are other integers
                than two for yes and no.
        """
        self.num_examples(split)
        integers = [
            path
            for label in self._labels
            for path in _integers(self._set.features[label], (label,))
        ]
        if not integers:
            return
        skip = {_IMAGE: tfds.decode.SkipDecoding()}
        examples = (
            self._set.records(split)
            .take(_CHECKED)
            .map(lambda record: self._set.parse(record, skip))
        )
        found = {path: set() for path in integers}
        try:
            for features in examples.as_numpy_iterator():
                for (label, *keys), values in found.items():
                    value = features[label]
                    for key in keys:
                        value = value[key]
                    values.update(np.ravel(value).tolist())
        except tf.errors.OpError:
            self.check(split)
            raise
        for path, values in found.items():
            if not (values <= {0, 1} or values <= {-1, 1}):
                raise prepared.DataError(
                    f"{self._set.name}: the feature {'/'.join(path)!r} holds "
                    f"no attributes, got {sorted(values)[:_SHOWN]}; expected "
                    "0 and 1, or -1 and 1."
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
            [0, 1], and attributes `[batch, T]`, float32: 0, 1, or -1 where
            the label is missing.
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
        """Returns the attributes of a split, `[n, T]`, float32.

        They are 0, 1, or -1 where the label is missing.
        """
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
        parts = [
            value
            for label in self._labels
            for value in _values(self._set.features[label], features[label])
        ]
        return tf.concat([tf.cast(part, tf.float32) for part in parts], axis=0)


def _values(feature: Any, value: Any) -> list[tf.Tensor]:
    """Returns the attributes that a feature holds, as vectors."""
    if isinstance(feature, tfds.features.FeaturesDict):
        parts = [_values(feature[key], value[key]) for key in sorted(feature)]
        return [vector for part in parts for vector in part]
    if isinstance(feature, tfds.features.ClassLabel):
        if feature.num_classes == 2:
            return [value[None]]
        classes = tf.range(feature.num_classes, dtype=value.dtype)
        is_class = tf.cast(tf.equal(classes, value), tf.int32)
        return [tf.where(value < 0, MISSING, is_class)]
    if value.dtype == tf.bool:
        return [tf.reshape(value, [-1])]
    return [tf.reshape(value > 0, [-1])]


def _integers(feature: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Returns the paths of the integers in a feature, but for class labels."""
    if isinstance(feature, tfds.features.FeaturesDict):
        return [
            found
            for key, part in sorted(feature.items())
            for found in _integers(part, (*path, key))
        ]
    if isinstance(feature, tfds.features.ClassLabel):
        return []
    return [path] if np.dtype(feature.np_dtype).kind in "iu" else []


def _names_of(name: str, label: str, feature: Any) -> list[str]:
    """Names the attributes that a feature holds."""
    if isinstance(feature, tfds.features.FeaturesDict):
        names = []
        for key in sorted(feature):
            part = feature[key]
            found = _names_of(name, key, part)
            names += [key] if len(found) == 1 else found
        return names
    if isinstance(feature, tfds.features.ClassLabel):
        if feature.num_classes and feature.num_classes > 1:
            classes = [f"{label}_{text}" for text in feature.names]
            return classes[1:] if len(classes) == 2 else classes
    elif isinstance(feature, tfds.features.Tensor) and _may_hold_yes_or_no(
        feature
    ):
        if feature.shape == ():
            return [label]
        return [f"{label}_{i}" for i in range(math.prod(feature.shape))]
    raise prepared.DataError(
        f"{name}: the feature {label!r} holds no attributes, got {feature}; "
        "expected booleans, integers of 0 and 1 or of -1 and 1, or a class "
        "label."
    )


def _may_hold_yes_or_no(feature: Any) -> bool:
    dtype = np.dtype(feature.np_dtype)
    return None not in feature.shape and dtype.kind in "biu"


def _describe(features: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} ({type(feature).__name__})"
        for name, feature in sorted(features.items())
    )
