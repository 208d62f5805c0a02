"""Gradient Dropout's mean and variance, and what shares a mask."""

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd


def combined(rate, gradients, step=0):
    parts = gd.combine(
        f"gradient_dropout({rate}, seed=3)", gradients, step=step
    )
    return np.stack([part.numpy() for part in parts])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_mean_and_variance(rate):
    values = np.array([[1.0, -2.0, 0.5]])
    gradients = [np.tile(values, [20_000, 1]), np.tile(3 * values, [20_000, 1])]
    total = combined(rate, gradients).sum(0)
    g = 4 * values[0]
    # Four standard errors; the sign of a value makes no difference.
    error = np.abs(g) * (rate / (1 - rate) / 20_000) ** 0.5
    assert (np.abs(total.mean(0) - g) <= 4 * error).all()
    np.testing.assert_allclose(
        total.var(0), g**2 * rate / (1 - rate), rtol=0.05
    )
    factors = np.unique(np.round(total / g, 9))
    np.testing.assert_allclose(factors, [0.0, 1 / (1 - rate)])


def test_a_rate_of_zero_is_the_identity():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 5))
    np.testing.assert_array_equal(combined(0.0, gradients), gradients)


def test_losses_share_a_mask_and_values_do_not():
    parts = combined(0.5, np.ones([2, 64, 8]))
    np.testing.assert_array_equal(parts[0], parts[1])
    # Columns of 64 examples: no two alike.
    assert len(np.unique(parts[0], axis=1).T) == 8
    assert len(np.unique(parts[0], axis=0)) > 32


def test_steps_draw_independently():
    first, second = (combined(0.5, np.ones([1, 64, 8]), i) for i in (0, 1))
    assert 0.4 < (first == second).mean() < 0.6


def test_batch_separated_losses_have_masks_of_their_own():
    method = gd.GradientDropout(rate=0.5, seed=1)
    gradients = [tf.ones([64, 8]), tf.ones([32, 8])]
    first, second = gd.combine(method, gradients, gradients)
    assert 0.3 < np.mean(first[:32] == second) < 0.7


@pytest.mark.parametrize("rate", [-0.1, 1.0, "a", None])
def test_rates(rate):
    with pytest.raises(ValueError, match="`rate`"):
        gd.GradientDropout(rate=rate)
