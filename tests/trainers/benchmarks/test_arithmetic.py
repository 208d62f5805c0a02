"""Counts by hand."""

import keras

from trainers.benchmarks import arithmetic


def test_forward_counts_by_hand():
    inputs = keras.Input((6, 4, 3))
    hidden = keras.layers.Conv2D(5, 3, padding="same")(inputs)
    hidden = keras.layers.MaxPooling2D()(hidden)
    inner_input = keras.Input((3, 2, 5))
    inner = keras.layers.Dense(7)(keras.layers.Flatten()(inner_input))
    outputs = keras.Model(inner_input, inner)(hidden)
    model = keras.Model(inputs, outputs)
    convolution = (6 * 4) * (3 * 3 * 3 * 5)
    dense = (3 * 2 * 5) * 7
    assert arithmetic.forward_multiply_adds(model) == convolution + dense


def test_step_counts_by_hand():
    assert arithmetic.step_multiply_adds(100, 10) == 330
    assert arithmetic.step_multiply_adds(100, 10, 4) == 360
    assert arithmetic.step_multiply_adds(100, 10, 4, combining=5) == 365
