"""The preprocessing in a model equals that of the pipelines."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.models import raw_images


def resized(images, height, width, crop=0):
    inputs = keras.Input((None, None, images.shape[-1]))
    outputs = raw_images.resize(inputs, height, width, crop)
    assert outputs.shape == (None, height, width, images.shape[-1])
    return keras.Model(inputs, outputs)(images).numpy()


def drawn(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize(
    "size", [(8, 6), (9, 13), (64, 48), (65, 7), (3, 2), (1, 1), (8, 200)]
)
def test_it_equals_an_antialiased_resizing(size):
    images = drawn(2, *size, 3)
    expected = tf.image.resize(images, (8, 6), antialias=True)
    np.testing.assert_allclose(resized(images, 8, 6), expected, atol=1e-6)
    if size == (8, 6):
        np.testing.assert_array_equal(expected, images)


@pytest.mark.parametrize("size", [(12, 12), (13, 14), (20, 9), (9, 20), (5, 6)])
@pytest.mark.parametrize("target", [(12, 12), (5, 7), (20, 16)])
def test_a_square_is_cut_out_or_padded_before(size, target):
    """Where the square sticks out by an odd number, and by an even one."""
    images = drawn(2, *size, 1)
    cut = tf.image.resize_with_crop_or_pad(images, 12, 12)
    expected = tf.image.resize(cut, target, antialias=True)
    found = resized(images, *target, crop=12)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_outputs_are_named_and_values_are_scaled():
    inputs = keras.Input((2, 2, 1))
    flat = keras.layers.Flatten()(inputs)
    network = keras.Model(inputs, flat[:, :2])
    model = raw_images.of_attributes(network, (2, 2, 1), ["first", "second"], 0)
    image = np.array([[[51.0], [102.0]], [[0.0], [255.0]]], np.float32)
    found = model.predict(image[None], verbose=0)
    assert list(found) == ["first", "second"]
    for name, value in (("first", 0.2), ("second", 0.4)):
        expected = 1.0 / (1.0 + np.exp(-value))
        np.testing.assert_allclose(found[name], [expected], rtol=1e-6)
    assert [tuple(x.shape) for x in model.inputs] == [(None, None, None, 1)]
