"""A trunk whose last layer starts at zero trains, as in plain Keras.

Its activations are 0 in the first step: no loss has a sign there, so all
gradients pass, and the step is that of the sum of the losses.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places

X = np.random.default_rng(0).normal(size=[24, 8]).astype("float32")
Y = np.random.default_rng(1).normal(size=[2, 24, 1]).astype("float32")
LAST = {
    "dense": lambda: keras.layers.Dense(6, kernel_initializer="zeros"),
    "batch_norm": lambda: keras.layers.BatchNormalization(
        gamma_initializer="zeros"
    ),
}


def make(form, last, **options):
    """Makes a model with two losses on the output of a layer that is zero."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input([8])
    hidden = keras.layers.Dense(6, activation="tanh")(inputs)
    features = LAST[last]()(hidden)
    heads = [keras.layers.Dense(1, name=name) for name in "ab"]
    if form == "plain":
        outputs = [head(features) for head in heads]
    elif form == "layer":
        branches = gd.GradDrop(num_losses=2, seed=1, **options)(features)
        outputs = [h(b) for h, b in zip(heads, branches, strict=True)]
    else:
        shared = keras.Input(features.shape[1:])
        return gd.MultiLossModel(
            keras.Model(inputs, features),
            keras.Model(shared, [head(shared) for head in heads]),
            gd.Recipe(combiners=[gd.GradDrop(seed=1, **options)]),
            loss_chunk_size=1 if form == "chunks" else None,
        )
    return keras.Model(inputs, outputs)


def weights_after_a_step(model):
    model.compile(keras.optimizers.SGD(0.1), ["mse", "mae"])
    model.fit(X, [*Y], batch_size=24, verbose=0)
    return [v.numpy() for v in model.trainable_variables]


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("form", ["layer", "model", "chunks"])
@pytest.mark.parametrize(
    "options",
    [{}, {"marginalize_batch": False}, {"renormalize": True}, {"leak": 0.1}],
)
def test_the_first_step_is_that_of_plain_keras(form, last, options):
    plain = weights_after_a_step(make("plain", last))
    masked = weights_after_a_step(make(form, last, **options))
    assert len(plain) == len(masked)
    for expected, actual in zip(plain, masked, strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["layer", "model"])
def test_over_replicas(form, mirrored):
    plain = weights_after_a_step(make("plain", "dense"))
    with mirrored(2).scope():
        model = make(form, "dense")
    for expected, actual in zip(
        plain, weights_after_a_step(model), strict=True
    ):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("form", ["layer", "model"])
def test_in_half_precision(form, policy):
    keras.config.set_dtype_policy(policy)
    plain = weights_after_a_step(make("plain", "dense"))
    masked = weights_after_a_step(make(form, "dense"))
    for expected, actual in zip(plain, masked, strict=True):
        np.testing.assert_allclose(actual, expected, atol=4e-3)
    assert np.abs(masked[2]).max() > 0.0


def test_a_missing_task_leaves_the_other_alone():
    """A loss of weight 0 has no gradient; the other is the only one."""
    weights = []
    for form in ("plain", "layer", "model"):
        model = make(form, "dense")
        model.compile(
            keras.optimizers.SGD(0.1), ["mse", "mse"], loss_weights=[1.0, 0.0]
        )
        model.fit(X, [*Y], batch_size=24, epochs=3, verbose=0)
        weights.append([v.numpy() for v in model.trainable_variables])
    for expected, actual in zip(weights[0], weights[1], strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    for expected, actual in zip(weights[0], weights[2], strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_streaming_passes_all_where_no_loss_has_a_sign():
    """The first feature has none; at the second the losses agree."""
    activations = tf.constant([[0.0, 1.0], [0.0, 1.0]])
    gradients = [
        tf.constant([[1.0, 2.0], [3.0, 4.0]]),
        tf.constant([[5.0, 1.0], [-2.0, 3.0]]),
    ]
    for leak in (0.0, 0.25):
        streaming = gd.GradDrop(num_losses=2, leak=leak, seed=1).streaming()
        streaming.start(2, places.of(activations))
        with gd.random.drawing(tf.constant(0, tf.int64)):
            for index, gradient in enumerate(gradients):
                streaming.add([index], [gradient])
            total = streaming.finish()
        np.testing.assert_allclose(total, [[6.0, 3.0], [1.0, 7.0]])
