"""Models of images in their own size and range, for any format.

They hold their preprocessing. It is made of sums and products, as not every
format knows an antialiased resizing.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np


def of_raw_images(
    network: keras.Model,
    image_shape: tuple[int, int, int],
    scale: float,
    outputs_of: Callable[..., dict[str, keras.KerasTensor]],
    crop: int = 0,
) -> keras.Model:
    """Puts the preprocessing in front of a network, and names its outputs.

    Args:
        network: The network.
        image_shape: Height, width and channels of the images that it takes.
        scale: What the values of an image, 0 to 255, are multiplied by.
        outputs_of: Maps what the network returns to outputs by name.
        crop: As in `resize`.

    Returns:
        A model from images `[batch, any height, any width, channels]`.
    """
    height, width, channels = image_shape
    images = keras.Input((None, None, channels), name="image")
    scaled = keras.layers.Rescaling(scale, dtype="float32")(images)
    resized = resize(scaled, height, width, crop)
    return keras.Model(images, outputs_of(network(resized)))


def of_attributes(
    network: keras.Model,
    image_shape: tuple[int, int, int],
    names: Sequence[str],
    crop: int,
) -> keras.Model:
    """Is `of_raw_images` for a logit per attribute, of values in [0, 1].

    Args:
        network: The network.
        image_shape: As in `of_raw_images`.
        names: The names of the attributes, in the order of the logits.
        crop: As in `resize`.

    Returns:
        A model from images to the probability `[batch]` of each attribute.
    """

    def outputs_of(logits):
        values = keras.ops.sigmoid(keras.ops.cast(logits, "float32"))
        return {name: values[:, i] for i, name in enumerate(names)}

    return of_raw_images(network, image_shape, 1.0 / 255.0, outputs_of, crop)


def class_probabilities(logits: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the probability of each class, `[batch, classes]`."""
    return keras.ops.softmax(keras.ops.cast(logits, "float32"))


def resize(
    images: keras.KerasTensor, height: int, width: int, crop: int = 0
) -> keras.KerasTensor:
    """Resizes images as `tf.image.resize(..., antialias=True)` does.

    Args:
        images: `[batch, any height, any width, channels]`.
        height: Rows of the result.
        width: Columns of the result.
        crop: Side of the square that is cut out of the middle before, or
            padded to, as by `tf.image.resize_with_crop_or_pad`; 0 for none.

    Returns:
        `[batch, height, width, channels]`.
    """
    rows = _weights(images[:, :, 0, 0], height, crop)
    columns = _weights(images[:, 0, :, 0], width, crop)
    ops = keras.ops
    return ops.einsum(
        "bow,bhwc->bhoc", columns, ops.einsum("boh,bhwc->bowc", rows, images)
    )


def _weights(
    line: keras.KerasTensor, size: int, crop: int
) -> keras.KerasTensor:
    """Computes how much each pixel adds to each of `size` pixels.

    Args:
        line: A line of pixels, `[batch, n]`.
        size: Number of pixels of the result.
        crop: As in `resize`.

    Returns:
        `[batch, size, n]`, the values of a triangle as wide as a pixel of the
        coarser of the two images.
    """
    ops = keras.ops
    ones = ops.ones_like(line)
    position = ops.cumsum(ones, axis=1) - 1.0
    length = ops.sum(ones, axis=1, keepdims=True)
    if crop:
        extra = length - float(crop)
        start = ops.sign(extra) * ops.floor(ops.abs(extra) / 2.0)
        position = position - start
        length = ops.zeros_like(length) + float(crop)
    scale = length / float(size)
    centre = scale * (np.arange(size, dtype=np.float32) + 0.5)[None] - 0.5
    distance = ops.abs(
        ops.expand_dims(position, 1) - ops.expand_dims(centre, 2)
    )
    reach = ops.expand_dims(ops.maximum(scale, 1.0), 2)
    weights = ops.relu(1.0 - distance / reach)
    if not crop:
        return weights / ops.sum(weights, axis=2, keepdims=True)
    # Black pixels of the padding count too.
    inside = ops.cast((position >= 0.0) & (position < float(crop)), "float32")
    reach = max(crop / size, 1.0)
    pixels = np.arange(crop)
    centres = crop / size * (np.arange(size) + 0.5) - 0.5
    triangle = 1.0 - np.abs(pixels[None] - centres[:, None]) / reach
    sums = np.maximum(triangle, 0.0).sum(axis=1).astype(np.float32)
    return weights * ops.expand_dims(inside, 1) / sums[None, :, None]
