"""Lidar frames as the detector is trained and evaluated on them."""

import functools

import tensorflow as tf

from data import streams
from data.lidar import sets
from trainers import errors
from trainers.experiments.waymo.config import WaymoConfig
from trainers.models.pointpillars import augmentation, encoding, pasting
from trainers.models.pointpillars.presets import Preset
from trainers.runs.experiment import Run

_LABELS = ("boxes", "types", "difficulties", "num_points", "segment", "frame")
SEED = (0, 0)


@functools.cache
def _open(dataset: str, data_dir: str | None) -> sets.LidarSet:
    return sets.LidarSet(dataset, data_dir)


def open_set(run: Run) -> sets.LidarSet:
    """Opens the data set of a run.

    Raises:
        prepared.DataError: If it is not there.
    """
    return _open(run.config.dataset, run.data_dir)


def training_batches(run: Run, reading: streams.Reading) -> tf.data.Dataset:
    """Returns endless batches of augmented frames.

    Args:
        run: The run.
        reading: Which batches to read.

    Returns:
        Batches of the network's inputs and of the targets of its losses.

    Raises:
        UserError: If the training split has no object to paste.
    """
    config, preset = run.config, run.config.detector_preset
    store = _collect_objects(run) if config.pasted_objects else None

    def encode(example, seed):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        frame = augmentation.augment(
            sets.vehicles(example), preset.augmentation, seeds[0], store
        )
        return encoding.encode_frame(frame, preset, seeds[1])

    examples = open_set(run).training_frames(config.training_split, reading)
    return (
        examples.map(
            encode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        .batch(reading.share, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def _collect_objects(run: Run) -> pasting.ObjectStore:
    config: WaymoConfig = run.config
    split = config.training_split
    data = open_set(run)
    examples = data.training_frames(split, streams.Reading(1, run.seed))
    once = examples.take(data.num_frames(split))
    try:
        return pasting.collect_objects(
            once.map(lambda example, _: sets.vehicles(example)),
            config.detector_preset.min_num_points,
            config.stored_objects,
        )
    except ValueError as error:
        raise errors.UserError(
            f"--config.pasted_objects: {split}: {error}"
        ) from None


def evaluation_batches(
    examples: tf.data.Dataset, preset: Preset, batch_size: int
) -> tf.data.Dataset:
    """Returns one pass over unchanged frames, with all their labels.

    Args:
        examples: See `data.lidar.examples`.
        preset: Values of the detector.
        batch_size: Frames in a batch.

    Returns:
        Batches `((inputs, targets), labels)`: the network's inputs and the
        targets of its losses, as in training; and `boxes`, `types`,
        `difficulties`, `num_points`, `segment` and `frame` of the frames,
        their `number`, and `unlabelled`, the points in no-label zones.
    """

    def encode(number, example):
        unlabelled = tf.boolean_mask(
            example["points"][:, :3], example["in_no_label_zone"]
        )
        return (
            encoding.encode_frame(sets.vehicles(example), preset, SEED),
            {name: example[name] for name in _LABELS}
            | {"number": number, "unlabelled": unlabelled},
        )

    return (
        examples.enumerate()
        .map(encode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ragged_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )
