"""Frames of lidar detection from a prepared data set, such as Waymo's.

The examples are those of `data.lidar.examples`, whatever they were made from.
"""

from collections.abc import Mapping

import tensorflow as tf

from data import prepared, streams
from data.lidar import examples, labels

# A frame of Waymo takes about four megabytes.
_SHUFFLE_BUFFER = 64
_PREPARED_BY = (
    "launch.prepare_waymo (from segments of Waymo or simulated ones) or "
    "launch.prepare_kitti"
)


class LidarSet:
    """A data set of lidar frames.

    Args:
        name: Name of a prepared data set: `waymo_lidar` or `kitti_lidar`.
        data_dir: Where prepared data sets lie.

    Raises:
        prepared.DataError: If there is no such data set, or it has another
            schema.
    """

    def __init__(self, name: str, data_dir: str | None = None):
        self._set = prepared.open_set(name, data_dir, _PREPARED_BY)
        found = self._set.features
        for field, spec in examples.FIELDS.items():
            if field not in found or tf.as_dtype(found[field].tf_dtype) != (
                spec.dtype
            ):
                raise prepared.DataError(
                    f"{name}: there is no feature {field!r} of "
                    f"{spec.dtype.name}, got {', '.join(sorted(found))}; "
                    f"prepare it with {_PREPARED_BY}."
                )

    def num_frames(self, split: str) -> int:
        """Counts the frames of a split; see `PreparedSet.num_examples`."""
        return self._set.num_examples(split)

    def check(self, split: str) -> None:
        """Reads a split from end to end; see `PreparedSet.check`."""
        self._set.check(split)

    def training_frames(
        self, split: str, reading: streams.Reading
    ) -> tf.data.Dataset:
        """Returns the endless stream of training frames.

        Args:
            split: What to read, such as `train`.
            reading: Which batches.

        Returns:
            Pairs of an example and a seed `[2]`, int64, unique in the stream,
            for the draws that belong to it.
        """
        records = self._set.endless_records(split, reading, _SHUFFLE_BUFFER)
        batch_size, share = reading.batch_size, reading.share
        first = reading.start * batch_size + reading.shard.index * share

        def parse(count, record):
            place = first + count // share * batch_size + count % share
            return self._set.parse(record), tf.stack(
                [tf.constant(reading.seed, tf.int64), place]
            )

        return records.enumerate().map(
            parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def frames(self, split: str) -> tf.data.Dataset:
        """Returns one pass over the examples of a split, in their order."""
        return self._set.records(split).map(
            self._set.parse,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )


def vehicles(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns the points and the vehicles of an example.

    Args:
        example: See `data.lidar.examples`.

    Returns:
        `points` `[N, 5]` outside of no-label zones; `boxes` `[M, 7]` and
        `num_points` `[M]` of the vehicles.
    """
    is_vehicle = tf.equal(example["types"], labels.VEHICLE)
    return {
        "points": tf.boolean_mask(
            example["points"], ~example["in_no_label_zone"]
        ),
        "boxes": tf.boolean_mask(example["boxes"], is_vehicle),
        "num_points": tf.boolean_mask(example["num_points"], is_vehicle),
    }
