"""The training example of lidar detection, common to all data sets.

| field | shape | dtype | meaning |
| --- | --- | --- | --- |
| `points` | [N, 5] | float32 | x, y, z in metres, intensity, elongation |
| `returns` | [N] | uint8 | 1 for the first return of a ray, 2 for the second |
| `in_no_label_zone` | [N] | bool | lies where objects have no labels |
| `boxes` | [M, 7] | float32 | centre x, y, z, length, width, height, heading |
| `types` | [M] | int32 | `VEHICLE`, `VEHICLE_NEIGHBOUR`, ... of `labels` |
| `difficulties` | [M] | int32 | 1 or 2, as the Waymo metric takes them |
| `num_points` | [M] | int32 | points in the box, as the labels say |
| `segment` | [] | text | which drive |
| `frame` | [] | text | which frame of it |

Everything is in the vehicle frame: x forward, y to the left, z up; length lies
along x at heading 0, headings turn from x to y and are in radians.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import prepared
from data.lidar import labels

FIRST_RETURN, SECOND_RETURN = 1, 2
POINT_FEATURES = ("x", "y", "z", "intensity", "elongation")


class LidarDataError(prepared.DataError):
    """A lidar data set cannot be read; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of an example.

    Attributes:
        shape: Its shape; None where it differs from frame to frame.
        dtype: Its dtype, as TensorFlow names it.
    """

    shape: tuple[int | None, ...]
    dtype: tf.DType


FIELDS = {
    "points": Field((None, len(POINT_FEATURES)), tf.float32),
    "returns": Field((None,), tf.uint8),
    "in_no_label_zone": Field((None,), tf.bool),
    "boxes": Field((None, len(labels.BOX_FIELDS)), tf.float32),
    "types": Field((None,), tf.int32),
    "difficulties": Field((None,), tf.int32),
    "num_points": Field((None,), tf.int32),
    "segment": Field((), tf.string),
    "frame": Field((), tf.string),
}
Example = dict[str, np.ndarray | str]


@functools.cache
def features() -> tfds.features.FeaturesDict:
    """Returns the schema of prepared examples: `FIELDS`.

    Points are stored as raw bytes, which are read fastest; what is known of
    each of them is compressed, as it hardly changes from one to the next.
    """
    encodings = {
        "points": tfds.features.Encoding.BYTES,
        "returns": tfds.features.Encoding.ZLIB,
        "in_no_label_zone": tfds.features.Encoding.ZLIB,
    }
    return tfds.features.FeaturesDict(
        {
            name: tfds.features.Text()
            if field.dtype == tf.string
            else tfds.features.Tensor(
                shape=field.shape,
                dtype=field.dtype.as_numpy_dtype,
                encoding=encodings.get(name, tfds.features.Encoding.NONE),
            )
            for name, field in FIELDS.items()
        }
    )


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Prefixes the message of a `LidarDataError` with a place.

    Args:
        place: What is being read, such as a file and a record.

    Yields:
        Nothing.

    Raises:
        LidarDataError: Where one is raised inside.
    """
    try:
        yield
    except LidarDataError as error:
        raise LidarDataError(f"{place}: {error}") from error.__cause__


def check(example: Example) -> Example:
    """Checks that an example can be trained on.

    Args:
        example: All fields.

    Returns:
        The same example.

    Raises:
        LidarDataError: If a point or a box is not finite, if a side of a box
            is negative, or if there are no points.
    """
    points, boxes = example["points"], example["boxes"]
    if not len(points):
        raise LidarDataError("got no lidar points, expected some.")
    if not np.isfinite(points).all():
        index = int(np.argmin(np.isfinite(points).all(axis=1)))
        raise LidarDataError(
            f"point {index}: got {_listed(POINT_FEATURES, points[index])}, "
            "expected finite numbers."
        )
    usable = np.isfinite(boxes).all(axis=1) & (boxes[:, 3:6] >= 0.0).all(axis=1)
    if not usable.all():
        index = int(np.argmin(usable))
        raise LidarDataError(
            f"box {index}: got {_listed(labels.BOX_FIELDS, boxes[index])}, "
            "expected finite numbers and sides of at least 0."
        )
    return example


def _listed(names: tuple[str, ...], values: np.ndarray) -> str:
    return ", ".join(
        f"{name} {value:.6g}" for name, value in zip(names, values, strict=True)
    )
