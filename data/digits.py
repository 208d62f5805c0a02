"""Pairs of handwritten digits overlapped into one image.

The scans are the 1,797 8 x 8 images that scikit-learn carries (the test part
of "Optical Recognition of Handwritten Digits", UCI, 1998). They are split into
training and test scans first and paired afterwards, so that no test image
holds a scan that was trained on. One scan lies in the upper left corner of the
canvas and one in the lower right; where they overlap, the brighter pixel wins.
"""

import functools

import numpy as np
import tensorflow as tf
from sklearn import datasets, model_selection

from data import streams

SCAN_SIZE = 8
NUM_CLASSES = 10
_LARGEST_VALUE = 16.0
_TEST_SHARE = 0.25


@functools.cache
def load_scans() -> tuple[np.ndarray, np.ndarray]:
    """Loads all scans.

    Returns:
        The images `[1797, 8, 8]`, float32 in [0, 1], and the labels `[1797]`,
        int32.
    """
    scans = datasets.load_digits()
    images = scans.images.astype(np.float32) / _LARGEST_VALUE
    return images, scans.target.astype(np.int32)


def split_scans(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits the scans, each class in the same proportion.

    Args:
        seed: Decides which scan goes where.

    Returns:
        The row numbers of the training scans and of the test scans.
    """
    _, labels = load_scans()
    train, test = model_selection.train_test_split(
        np.arange(labels.size),
        test_size=_TEST_SHARE,
        random_state=seed,
        stratify=labels,
    )
    return np.sort(train), np.sort(test)


def overlap(
    upper_left: np.ndarray, lower_right: np.ndarray, canvas: int
) -> np.ndarray:
    """Overlaps two batches of scans.

    Args:
        upper_left: The scans for the upper left corner, `[n, 8, 8]`.
        lower_right: The scans for the lower right corner, `[n, 8, 8]`.
        canvas: Height and width of the result, in [8, 16]. The scans share a
            square of `16 - canvas` pixels.

    Returns:
        The images `[n, canvas, canvas, 1]`, float32.

    Raises:
        ValueError: For a canvas on which two scans do not fit or do not touch.
    """
    if not SCAN_SIZE <= canvas <= 2 * SCAN_SIZE:
        raise ValueError(
            f"canvas: got {canvas}, expected a size from {SCAN_SIZE} to "
            f"{2 * SCAN_SIZE}."
        )
    images = np.zeros((len(upper_left), canvas, canvas, 1), np.float32)
    images[:, :SCAN_SIZE, :SCAN_SIZE, 0] = upper_left
    corner = images[:, -SCAN_SIZE:, -SCAN_SIZE:, 0]
    np.maximum(corner, lower_right, out=corner)
    return images


def draw_pairs(
    rows: np.ndarray, num_pairs: int, canvas: int, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draws random pairs from the given scans.

    Args:
        rows: Row numbers of the scans to draw from.
        num_pairs: How many pairs to draw.
        canvas: Size of the images, see `overlap`.
        seed: Decides the pairs.

    Returns:
        The images `[num_pairs, canvas, canvas, 1]` and the labels
        `[num_pairs]` under `upper_left` and `lower_right`.
    """
    scans, labels = load_scans()
    generator = np.random.default_rng(seed)
    upper_left = generator.choice(rows, num_pairs)
    lower_right = generator.choice(rows, num_pairs)
    return overlap(scans[upper_left], scans[lower_right], canvas), {
        "upper_left": labels[upper_left],
        "lower_right": labels[lower_right],
    }


def training_batches(
    reading: streams.Reading, *, num_pairs: int, canvas: int, split_seed: int
) -> tf.data.Dataset:
    """Returns the endless stream of training batches, a function of the seed.

    Args:
        reading: Which batches; all are full.
        num_pairs: Size of the training set.
        canvas: Size of the images, see `overlap`.
        split_seed: Decides which scans are for training.

    Returns:
        Batches of (images, labels), as `draw_pairs` returns them.
    """
    train, _ = split_scans(split_seed)
    pairs = tf.nest.map_structure(
        tf.constant, draw_pairs(train, num_pairs, canvas, reading.seed)
    )
    order = tf.data.Dataset.range(num_pairs)
    order = order.shuffle(num_pairs, seed=reading.seed).repeat()
    batches = order.batch(reading.batch_size, drop_remainder=True)

    def gather(numbers):
        share = reading.take_share(numbers)
        return tf.nest.map_structure(
            lambda tensor: tf.gather(tensor, share), pairs
        )

    return batches.skip(reading.start).map(gather).prefetch(tf.data.AUTOTUNE)


def test_batches(
    *, batch_size: int, num_pairs: int, canvas: int, split_seed: int
) -> tf.data.Dataset:
    """Returns one pass over the test pairs.

    Args:
        batch_size: Examples in a batch; the last batch may be smaller.
        num_pairs: Size of the test set.
        canvas: Size of the images, see `overlap`.
        split_seed: Decides which scans are for testing, and the pairs.

    Returns:
        Batches of (images, labels), as `draw_pairs` returns them.
    """
    _, test = split_scans(split_seed)
    pairs = draw_pairs(test, num_pairs, canvas, split_seed)
    dataset = tf.data.Dataset.from_tensor_slices(pairs)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
