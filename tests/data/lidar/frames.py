"""Small prepared data sets of lidar frames."""

import numpy as np
import tensorflow_datasets as tfds

from data.lidar import examples as lidar_examples


class TinyLidar(tfds.core.GeneratorBasedBuilder):
    """Examples that are handed in, by split."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, examples=None, features=None, **kwargs):
        self._examples = examples or {}
        self._features = features or lidar_examples.features()
        super().__init__(**kwargs)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=self._features, disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {
            split: self._generate_examples(split) for split in self._examples
        }

    def _generate_examples(self, split):
        yield from enumerate(self._examples[split])


NAME = TinyLidar.name


def prepare(data_dir, features=None, **examples):
    """Writes a data set `NAME` with these splits."""
    TinyLidar(
        examples=examples, features=features, data_dir=data_dir
    ).download_and_prepare(download_dir=data_dir / "downloads")
    return data_dir


def example(number, boxes=(), num_points=8, unlabelled=(), types=1):
    """An example with points in its boxes and at the given places.

    Args:
        number: Goes into the frame's name and the first point's intensity.
        boxes: Boxes; all of one type.
        num_points: Of each box.
        unlabelled: Points `[n, 3]` in no-label zones.
        types: The type of the boxes, or of each.
    """
    generator = np.random.default_rng(number)
    boxes = np.reshape(np.asarray(boxes, np.float32), (-1, 7))
    inside = np.repeat(boxes[:, :3], num_points, axis=0)
    inside += generator.uniform(-0.3, 0.3, inside.shape)
    ground = generator.uniform([0, -8, -1], [16, 8, -0.9], (20, 3))
    places = np.concatenate(
        [ground, inside, np.reshape(unlabelled, (-1, 3))]
    ).astype(np.float32)
    points = np.pad(places, ((0, 0), (0, 2)))
    points[0, 3] = number
    count = len(boxes)
    zone = np.arange(len(points)) >= len(points) - len(unlabelled)
    return {
        "points": points,
        "returns": np.ones(len(points), np.uint8),
        "in_no_label_zone": zone,
        "boxes": boxes,
        "types": np.broadcast_to(types, [count]).astype(np.int32),
        "difficulties": np.full(count, 1 if num_points > 5 else 2, np.int32),
        "num_points": np.full(count, num_points, np.int32),
        "segment": "tiny",
        "frame": str(1000 + number),
    }
