"""The network without the library trains as with it."""

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from trainers.benchmarks import methods, plain
from trainers.models import attribute_network


def trained(make_step):
    """Returns the weights of the trunk after a step."""
    keras.utils.set_random_seed(0)
    network = attribute_network.make_network((8, 8, 3), 5, channels=1)
    make_step(*network)()
    return network[0].get_weights()


def test_keras_takes_the_step_of_the_baseline(eager):
    ours = trained(lambda *n: methods.make_step(methods.BASELINE, *n))
    theirs = trained(plain.keras_step)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_tensorflow_takes_the_step_of_graddrop(eager, monkeypatch):
    """With a draw of 0.3 at all positions, in both."""
    drawn = 0.3

    def uniform(self, shape, per_example=False):
        return tf.fill(shape, drawn)

    monkeypatch.setattr(gd.GradDrop, "uniform", uniform)
    monkeypatch.setattr(tf.random, "uniform", lambda s: tf.fill(s, drawn))
    ours = trained(lambda *n: methods.make_step(methods.GRADDROP, *n))
    theirs = trained(plain.tensorflow_step)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_graddrop_of_a_jacobian(monkeypatch):
    rng = np.random.default_rng(0)
    jacobian = rng.normal(size=(3, 2, 50)).astype(np.float32)
    activations = rng.normal(size=(2, 50)).astype(np.float32)
    uniform = rng.uniform(size=50).astype(np.float32)
    monkeypatch.setattr(tf.random, "uniform", lambda _: tf.constant(uniform))
    masked = gd.graddrop(jacobian, activations, uniform=uniform)
    combined = plain.graddrop(tf.constant(jacobian), tf.constant(activations))
    np.testing.assert_allclose(combined, tf.add_n(masked), atol=1e-6)
