"""Small data sets of images with one label, prepared on the spot."""

import numpy as np
import tensorflow_datasets as tfds


def draw(count, shape, num_classes, seed=0):
    """Draws random images `[count, *shape]` and labels `[count]`."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    return images, generator.integers(0, num_classes, count)


def prepare(
    data_dir, name, splits, shape, num_classes, num_shards=1, config=None
):
    """Prepares a data set.

    `splits` maps the name of a split to its (images, labels); `shape` is
    what the data set says of its images.
    """
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        config=config,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(
                    shape=shape, encoding_format="png"
                ),
                "label": tfds.features.ClassLabel(num_classes=num_classes),
            }
        ),
        split_datasets={
            split: [
                (index, {"image": image, "label": int(label)})
                for index, (image, label) in enumerate(
                    zip(images, labels, strict=True)
                )
            ]
            for split, (images, labels) in splits.items()
        },
        data_dir=data_dir,
        download_config=tfds.download.DownloadConfig(num_shards=num_shards),
        disable_shuffling=True,
    )
