"""Small data sets with attributes, prepared on the spot."""

import numpy as np
import tensorflow_datasets as tfds

HEIGHT, WIDTH = 12, 16


def examples(count, names, seed=0):
    """Draws random images with an attribute for each name."""
    generator = np.random.default_rng(seed)
    return [
        {
            "image": generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
            "attributes": {name: bool(generator.integers(2)) for name in names},
            "smiling": bool(generator.integers(2)),
            "pose": int(generator.integers(3)),
            "eyes": int(generator.integers(2)),
            "weight": np.float32(generator.random()),
        }
        for _ in range(count)
    ]


def prepare(data_dir, name, names, splits, num_shards=1):
    """Prepares a data set; returns its folder.

    `splits` maps the name of a split to its examples.
    """
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(
                    shape=(HEIGHT, WIDTH, 3), encoding_format="png"
                ),
                "attributes": dict.fromkeys(names, np.bool_),
                "smiling": np.bool_,
                "pose": tfds.features.ClassLabel(names=["left", "right", "up"]),
                "eyes": tfds.features.ClassLabel(names=["open", "shut"]),
                "weight": np.float32,
            }
        ),
        split_datasets={
            split: list(enumerate(part)) for split, part in splits.items()
        },
        data_dir=data_dir,
        download_config=tfds.download.DownloadConfig(num_shards=num_shards),
        disable_shuffling=True,
    )
    return builder.data_path
