"""Small data sets of images, prepared on the spot.

Images have one label, or an attribute for each of some names.
"""

import numpy as np
import tensorflow_datasets as tfds

HEIGHT, WIDTH = 12, 16


def with_attributes(count, names, seed=0):
    """Draws examples of images with an attribute for each name."""
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


def prepare_with_attributes(data_dir, name, names, splits, num_shards=1):
    """Prepares a data set; returns its folder.

    `splits` maps the name of a split to its examples.
    """
    features = {
        "attributes": dict.fromkeys(names, np.bool_),
        "smiling": np.bool_,
        "pose": tfds.features.ClassLabel(names=["left", "right", "up"]),
        "eyes": tfds.features.ClassLabel(names=["open", "shut"]),
        "weight": np.float32,
    }
    shape = (HEIGHT, WIDTH, 3)
    return _prepare(data_dir, name, shape, features, splits, num_shards)


def with_labels(count, shape, num_classes, seed=0):
    """Draws random images `[count, *shape]` and labels `[count]`."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    return images, generator.integers(0, num_classes, count)


def prepare_with_labels(
    data_dir, name, splits, shape, num_classes, num_shards=1, config=None
):
    """Prepares a data set; returns its folder.

    `splits` maps the name of a split to its (images, labels); `shape` is
    what the data set says of its images.
    """
    features = {"label": tfds.features.ClassLabel(num_classes=num_classes)}
    examples = {
        split: [
            {"image": image, "label": int(label)}
            for image, label in zip(*drawn, strict=True)
        ]
        for split, drawn in splits.items()
    }
    return _prepare(
        data_dir, name, shape, features, examples, num_shards, config
    )


def _prepare(data_dir, name, shape, features, splits, num_shards, config=None):
    image = tfds.features.Image(shape=shape, encoding_format="png")
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        config=config,
        features=tfds.features.FeaturesDict({"image": image, **features}),
        split_datasets={
            split: list(enumerate(part)) for split, part in splits.items()
        },
        data_dir=data_dir,
        download_config=tfds.download.DownloadConfig(num_shards=num_shards),
        disable_shuffling=True,
    )
    return builder.data_path
