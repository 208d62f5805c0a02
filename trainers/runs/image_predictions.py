"""Predictions for a folder of images."""

import csv
import io
import pathlib
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from data import prepared
from data.photos import pixels
from trainers import errors, files

_SECONDS_BETWEEN_LINES = 10.0


def predict(
    model: keras.Model,
    images: pathlib.Path,
    path: pathlib.Path,
    report: Callable[[str], None] = print,
) -> tuple[int, int]:
    """Writes a CSV file with a row for each image.

    Args:
        model: From images of any size, with values from 0 to 255, to named
            outputs.
        images: The folder of the images.
        path: The file to write.
        report: Called with lines about progress and what cannot be read.

    Returns:
        The numbers of images that were predicted and that were left out.

    Raises:
        UserError: If there are no images, or the file cannot be written.
    """
    try:
        found = sorted(
            file
            for file in images.rglob("*")
            if file.suffix.lower() in pixels.SUFFIXES and file.is_file()
        )
    except OSError as error:
        raise errors.UserError(
            f"{images} cannot be read ({error.strerror})."
        ) from None
    if not found:
        raise errors.UserError(f"{images}: holds no images, expected some.")
    (channels,) = (x.shape[-1] for x in model.inputs)

    # One trace for all sizes.
    @tf.function(
        input_signature=[tf.TensorSpec([1, None, None, channels], tf.float32)]
    )
    def apply(image):
        return model(image, training=False)

    rows, bad, printed = [], 0, time.monotonic()
    for done, file in enumerate(found):
        try:
            image = pixels.decoded(file).astype(np.float32)
        except prepared.DataError as error:
            report(f"bad file: {error}")
            bad += 1
            continue
        if channels == 1:
            image = tf.image.rgb_to_grayscale(image)
        rows.append((file.relative_to(images), _columns(apply(image[None]))))
        if time.monotonic() - printed >= _SECONDS_BETWEEN_LINES:
            report(f"{done + 1:,}/{len(found):,} images")
            printed = time.monotonic()
    if not rows:
        raise errors.UserError(f"{images}: no image can be read.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", *rows[0][1]])
    for name, values in rows:
        writer.writerow([name, *(f"{v:.6g}" for v in values.values())])
    files.write_text(path, text.getvalue())
    return len(rows), bad


def _columns(outputs: dict[str, tf.Tensor]) -> dict[str, float]:
    """Returns the values of a batch of one; a vector has a column for each."""
    columns = {}
    for name, output in outputs.items():
        values = np.ravel(output)
        if len(values) == 1:
            columns[name] = float(values[0])
        else:
            columns |= {f"{name}_{i}": float(v) for i, v in enumerate(values)}
    return columns
