"""The nine losses by hand, at extremes, and without positives."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.models.pointpillars import losses

NAN = math.nan


def anchors(*values):
    """A map of one row and as many columns as needed, `[1, 1, n, 2]`."""
    return tf.reshape(tf.constant(values, tf.float32), [1, 1, -1, 2])


def test_there_are_nine():
    made = losses.make_losses()
    assert list(made) == list(losses.LOSS_NAMES)
    assert len(made) == 9 and made.keys() == losses.LOSS_WEIGHTS.keys()
    weights = losses.LOSS_WEIGHTS
    assert (weights["z"], weights["rotation"]) == (2.0, 2.0)
    assert (weights["class"], weights["direction"]) == (1.0, 0.2)
    for name, loss in made.items():
        again = type(loss).from_config(loss.get_config())
        assert again.name == loss.name == name


def test_huber():
    """A parabola up to 1/9, and slope 1 beyond."""
    values = losses.huber(tf.constant([0.0, 1 / 18, -1 / 9, 1.0, -2.0]))
    np.testing.assert_allclose(
        values, [0, 9 / 2 / 18**2, 1 / 18, 1 - 1 / 18, 2 - 1 / 18], rtol=1e-6
    )


@pytest.mark.parametrize("name", losses.LOSS_NAMES[:6])
def test_residuals(name):
    loss = losses.make_losses()[name]
    target = anchors(0.5, NAN, NAN, -1.0)
    value = loss(target, anchors(1.5, 100.0, 7.0, -1.0))
    # Two positive anchors, one of which is right.
    np.testing.assert_allclose(value, (1 - 1 / 18) / 2, rtol=1e-6)


def test_rotation():
    loss = losses.make_losses()["rotation"]
    target = anchors(0.2, 0.2, 0.2, NAN)
    value = loss(target, anchors(0.2 + math.pi / 2, 0.2 + math.pi, 0.7, 9))
    want = (1 - 1 / 18) + 0.0 + (math.sin(0.5) - 1 / 18)
    np.testing.assert_allclose(value, want / 3, rtol=1e-5)


def test_class():
    loss = losses.make_losses()["class"]
    target = anchors(1, 1, 0, NAN)
    value = loss(target, anchors(0.0, math.log(3), math.log(3), 50.0))
    want = (
        0.25 * 0.5**2 * math.log(2)
        + 0.25 * 0.25**2 * math.log(4 / 3)
        + 0.75 * 0.75**2 * math.log(4)
    )
    np.testing.assert_allclose(value, want / 2, rtol=1e-6)


def test_direction():
    loss = losses.make_losses()["direction"]
    target = anchors(0, 1, NAN, NAN)
    logits = tf.constant([[0.0, math.log(3)]] * 2 + [[5.0, -5.0]] * 2)
    value = loss(target, tf.reshape(logits, [1, 1, 2, 2, 2]))
    want = -(math.log(1 / 4) + math.log(3 / 4)) / 2
    np.testing.assert_allclose(value, want, rtol=1e-6)


def test_focal_against_the_formula():
    logits = np.linspace(-12, 12, 49)
    for label, alpha in ((1.0, 0.25), (0.0, 0.75)):
        p = 1 / (1 + np.exp(-logits))
        p = p if label else 1 - p
        for gamma in (0.0, 0.5, 2.0):
            values = losses.focal_cross_entropy(
                tf.fill([49], tf.constant(label, tf.float64)),
                logits,
                gamma=gamma,
            )
            want = -alpha * (1 - p) ** gamma * np.log(p)
            np.testing.assert_allclose(values, want, rtol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_at_extremes(gamma):
    """Linear where it is wrong, nothing where it is right, never NaN."""
    logits = tf.constant([1e4, 1e30, -1e4, -1e30])
    for label, alpha in ((1.0, 0.25), (0.0, 0.75)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values = losses.focal_cross_entropy(label, logits, gamma=gamma)
        slopes = tape.gradient(values, logits)
        right = [0, 0, alpha * 1e4, alpha * 1e30]
        slope = [0, 0, -alpha, -alpha]
        if not label:
            right, slope = right[2:] + right[:2], [0.75, 0.75, 0, 0]
        np.testing.assert_allclose(values, right, rtol=1e-6)
        np.testing.assert_allclose(slopes, slope, rtol=1e-6)


def test_each_example_has_its_own_divisor():
    loss = losses.make_losses()["x"]
    targets = tf.concat([anchors(0, 0, 0, 0), anchors(0, NAN, NAN, NAN)], 0)
    predictions = tf.ones([2, 1, 2, 2])
    np.testing.assert_allclose(
        loss.call(targets, predictions), [1 - 1 / 18] * 2, rtol=1e-6
    )
    weighted = loss(targets, predictions, sample_weight=[3.0, 1.0])
    np.testing.assert_allclose(weighted, 2 * (1 - 1 / 18), rtol=1e-6)
    focal = losses.make_losses()["class"]
    labels = tf.concat([anchors(1, 1, 1, 0), anchors(0, 0, 0, 0)], 0)
    value = focal.call(labels, tf.zeros([2, 1, 2, 2])).numpy()
    one = 0.5**2 * math.log(2)
    np.testing.assert_allclose(
        value, [(3 * 0.25 + 0.75) * one / 3, 4 * 0.75 * one], rtol=1e-6
    )


def value_and_slopes(name, target):
    """The loss of random predictions, and its gradient."""
    loss = losses.make_losses()[name]
    shape = [*target.shape] + [2] * (name == "direction")
    predictions = tf.random.stateless_normal(shape, (1, 0))
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        value = loss(target, predictions)
    return value, tape.gradient(value, predictions).numpy()


@pytest.mark.parametrize("name", losses.LOSS_NAMES)
def test_no_targets(name):
    value, slopes = value_and_slopes(name, tf.fill([2, 3, 4, 2], NAN))
    assert value == 0 and not slopes.any()


def test_background_alone():
    value, slopes = value_and_slopes("class", tf.zeros([2, 3, 4, 2]))
    assert value > 0 and (slopes > 0).all() and np.isfinite(slopes).all()


@pytest.mark.parametrize("name", losses.LOSS_NAMES)
def test_gradients_stay_at_their_anchors(name):
    _, slopes = value_and_slopes(name, anchors(1.0, NAN, NAN, NAN))
    slopes = slopes.reshape(4, -1)
    assert slopes[0].any() and not slopes[1:].any()


def test_losses_are_saved_by_name():
    for loss in losses.make_losses().values():
        config = keras.saving.serialize_keras_object(loss)
        again = keras.saving.deserialize_keras_object(config)
        assert type(again) is type(loss)
