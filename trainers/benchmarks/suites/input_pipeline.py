"""Compares the pipelines of three experiments with the steps that they feed."""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from data import attribute_sets, mixed_batches, prepared, records, streams
from data.drawn_faces import builder as drawn_faces
from data.lidar import examples as lidar_examples
from data.lidar import sets
from trainers.benchmarks import measuring, methods
from trainers.benchmarks.suites import detector, lidar, mixed
from trainers.models import attribute_network
from trainers.models.pointpillars import augmentation, encoding, presets

NUM_IMAGES = 256
SHAPE = attribute_sets.Shape(218, 178)
# Of ImageNet's images.
SOURCE_SHAPE = (375, 500, 3)
# Of the baseline's rate.
TARGET = 4.0
_NUM_FRAMES = 4
# Many more than wait in the pipeline while a step is measured.
_FRAMES_READ = 32
# Of a frame of Waymo.
_NUM_POINTS = 180_000
_FRAMES_AT_ONCE = 2


@dataclasses.dataclass(frozen=True)
class Feed:
    """A pipeline and the training step that it feeds.

    Attributes:
        batches: Endless batches, as in training.
        num_batches: How many are read at once.
        unit: What an example is.
        step: Trains the baseline on one batch.
        batch_size: Examples in a batch.
    """

    batches: tf.data.Dataset
    num_batches: int
    unit: str
    step: measuring.Step
    batch_size: int

    def time_reading(self) -> float:
        """Returns the seconds that an example takes, in a steady state.

        A pipeline that has just started fills its shuffle buffer, and one that
        has waited holds batches that it has read.
        """
        iterator = iter(self.batches)
        for _ in range(self.num_batches):
            next(iterator)
        started = time.perf_counter()
        for _ in range(self.num_batches):
            next(iterator)
        seconds = time.perf_counter() - started
        return seconds / (self.num_batches * self.batch_size)

    def time_training(self) -> float:
        """Returns the seconds that an example takes."""
        started = time.perf_counter()
        self.step()
        return (time.perf_counter() - started) / self.batch_size


def celeba(folder: pathlib.Path, progress: measuring.Progress) -> Feed:
    """Makes the pipeline of CelebA, over drawn faces."""
    batch_size = methods.BATCH_SIZE
    progress.say(f"drawing {NUM_IMAGES} faces")
    drawn_faces.prepare(
        str(folder), drawn_faces.Contents(NUM_IMAGES, validation=1, test=1)
    )
    faces = attribute_sets.AttributeSet(
        "drawn_faces", ["attributes"], str(folder)
    )
    batches = faces.training_batches(
        "train", SHAPE, streams.Reading(batch_size, seed=0)
    )
    network = attribute_network.make_network(
        (SHAPE.height, SHAPE.width, faces.channels), len(faces.names)
    )
    return Feed(
        batches,
        NUM_IMAGES // batch_size,
        "images",
        methods.make_step(methods.BASELINE, *network),
        batch_size,
    )


def mixed_images(folder: pathlib.Path, progress: measuring.Progress) -> Feed:
    """Makes the pipeline of mixed batches, over random images."""
    progress.say(f"drawing 2 x {NUM_IMAGES} images")
    for name, shape, fixed in (
        (mixed_batches.SOURCE, SOURCE_SHAPE, (None, None, 3)),
        (mixed_batches.TARGET, mixed.IMAGE_SHAPE, mixed.IMAGE_SHAPE),
    ):
        _prepare_images(folder, name, shape, fixed)
    opened = mixed_batches.open_sets(
        target=mixed_batches.TARGET,
        training_split="train",
        evaluation_split="test",
        source=mixed_batches.SOURCE,
        data_dir=str(folder),
    )
    of_each = mixed.BATCH_SIZE
    batches = mixed_batches.training_batches(
        opened,
        dict.fromkeys(opened, of_each),
        streams.Reading(of_each, seed=0),
    )
    return Feed(
        batches,
        NUM_IMAGES // of_each,
        "images",
        mixed.make_step(mixed.BASELINE, *mixed.make_network()),
        2 * of_each,
    )


def _prepare_images(
    folder: pathlib.Path, name: str, shape, declared_shape
) -> None:
    """Prepares random smooth images, which compress as photos do."""
    generator = np.random.default_rng(0)
    coarse = generator.random((NUM_IMAGES, 16, 16, 3), np.float32)
    examples = []
    for index, values in enumerate(coarse):
        image = tf.image.resize(255.0 * values, shape[:2], "bicubic")
        image = tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)
        label = index % mixed.NUM_CLASSES[name]
        examples.append((index, {"image": image.numpy(), "label": label}))
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=declared_shape, encoding_format="jpeg"
            ),
            "label": tfds.features.ClassLabel(
                num_classes=mixed.NUM_CLASSES[name]
            ),
        }
    )
    # TFDS prints of a download where there is none.
    with contextlib.redirect_stdout(None):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            features=features,
            split_datasets={"train": examples, "test": examples[:1]},
            data_dir=str(folder),
            disable_shuffling=True,
        )


def frames(folder: pathlib.Path, progress: measuring.Progress) -> Feed:
    """Makes the pipeline of lidar frames, over simulated ones."""
    preset = presets.PRESETS[detector.PRESET]
    data_dir = lidar.prepare_frames(folder, _NUM_FRAMES, progress)
    _thin(data_dir)
    examples = sets.LidarSet("waymo_lidar", data_dir).training_frames(
        "train", streams.Reading(_FRAMES_AT_ONCE, seed=0)
    )

    def encode(example, seed):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        frame = augmentation.augment(
            sets.vehicles(example), preset.augmentation, seeds[0]
        )
        return encoding.encode_frame(frame, preset, seeds[1])

    encoded = examples.map(
        encode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    example = next(iter(encoded))
    return Feed(
        encoded.batch(_FRAMES_AT_ONCE).prefetch(tf.data.AUTOTUNE),
        _FRAMES_READ // _FRAMES_AT_ONCE,
        "frames",
        detector.training_step(preset, example, _FRAMES_AT_ONCE),
        _FRAMES_AT_ONCE,
    )


def _thin(data_dir: str) -> None:
    """Leaves simulated frames the points of real ones: every ray returns."""
    frames = prepared.open_set("waymo_lidar", data_dir)
    (path,) = frames.builder.data_path.glob("*.tfrecord*")
    thinned = []
    for example in frames.records("train").map(frames.parse):
        count = len(example["points"])
        kept = np.linspace(0, count - 1, min(count, _NUM_POINTS), dtype=int)
        fields = {
            field: example[field].numpy()[kept]
            for field in ("points", "in_no_label_zone")
        }
        values = {name: value.numpy() for name, value in example.items()}
        thinned.append(frames.features.serialize_example({**values, **fields}))
    with records.writing(pathlib.Path(path)) as writer:
        for record in thinned:
            writer.write(record)


FEEDS: dict[str, Callable[[pathlib.Path, measuring.Progress], Feed]] = {
    "celeba": celeba,
    "transfer": mixed_images,
    "waymo": frames,
}


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    rows = []
    for name, make in FEEDS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                feed = make(pathlib.Path(folder), progress)
            except lidar_examples.LidarDataError as error:
                progress.say(f"skipped {name}: {error}")
                continue
            rows += _rows(name, feed, rounds, progress)
    return rows


def _rows(
    name: str, feed: Feed, rounds: int, progress: measuring.Progress
) -> list[measuring.Row]:
    reading, training = f"{name}, reading", f"{name}, training"
    feed.step()
    show = progress.start(rounds)
    each = {reading: [], training: []}
    for number in range(rounds):
        each[reading].append(feed.time_reading())
        each[training].append(feed.time_training())
        show(number + 1)
    return [
        *(measuring.rate_row(each, case, 1, feed.unit) for case in each),
        measuring.speed_row(each, reading, training, target=TARGET),
    ]


SUITE = measuring.Suite(
    "examples per second through the pipelines of the experiments alone, and "
    "through the baseline's training; faces of "
    f"{SHAPE.height} x {SHAPE.width}, mixed batches of images of "
    f"{SOURCE_SHAPE[0]} x {SOURCE_SHAPE[1]} and 32 x 32, lidar frames for the "
    f"preset {detector.PRESET}",
    _measure,
)
