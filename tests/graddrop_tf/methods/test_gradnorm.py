"""GradNorm's update on plain numbers, worked out by hand and by autodiff."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import bounded

ALPHA, RATE = 1.5, 0.025
positive = st.floats(0.05, 20.0)


def step(method, state, losses, norms):
    return method.next_state(
        state,
        tf.constant(losses, tf.float32),
        tf.constant(norms, tf.float32),
    )


def weights(method, state):
    return np.asarray(method.weights_of(state, None), np.float64)


@pytest.mark.parametrize("T", [1, 2, 40])
def test_weights_begin_at_one(T):
    method = gd.GradNorm()
    np.testing.assert_array_equal(
        weights(method, method.initial_state(T)), np.ones(T)
    )


def test_alpha_bends_the_targets():
    # Ratios 1/4 and 1, mean 5/8: rates 0.4 and 1.6. Norms 1 and 2, mean
    # 1.5: with alpha 0 the targets are 1.5 and 1.5, with alpha 1 they are
    # 0.6 and 2.4, and both signs turn.
    moves = {}
    for alpha in (0.0, 1.0):
        method = gd.GradNorm(alpha=alpha, learning_rate=0.01)
        state = step(method, method.initial_state(2), [4.0, 1.0], [0.0, 0.0])
        np.testing.assert_allclose(weights(method, state), 1.0)
        state = step(method, state, [1.0, 1.0], [1.0, 2.0])
        moves[alpha] = weights(method, state)
    np.testing.assert_allclose(
        moves[0.0], np.array([1.01, 0.98]) * 2 / 1.99, rtol=1e-6
    )
    np.testing.assert_allclose(
        moves[1.0], np.array([0.99, 1.02]) * 2 / 2.01, rtol=1e-6
    )


@bounded
@given(st.data(), st.integers(1, 8))
def test_reference(data, T):
    def draw():
        return data.draw(st.lists(positive, min_size=T, max_size=T))

    # A rate at which no weight comes near the floor.
    rate = 1e-3
    method = gd.GradNorm(alpha=ALPHA, learning_rate=rate)
    state, w, first = method.initial_state(T), [1.0] * T, None
    for _ in range(3):
        losses, norms = draw(), draw()
        first = first or losses
        r = np.array(losses) / first
        N = np.array(w) * norms
        off = N - N.mean() * (r / r.mean()) ** ALPHA
        if np.any(np.abs(off) < 1e-4 * N):
            # The sign of the slope would be that of a rounding error.
            return
        w = reference.gradnorm_step(w, losses, first, norms, ALPHA, rate)
        state = step(method, state, losses, norms)
        np.testing.assert_allclose(weights(method, state), w, rtol=1e-5)


def test_autodiff():
    """The slope is that of sum |N_i - target_i| with the targets held."""
    T, rng = 6, np.random.default_rng(0)
    losses, norms = rng.uniform(0.5, 2.0, (2, T))
    first = rng.uniform(0.5, 2.0, T)
    method = gd.GradNorm(alpha=ALPHA, learning_rate=RATE)
    state = step(method, method.initial_state(T), first, np.zeros(T))
    w = tf.constant(weights(method, state))
    with tf.GradientTape() as tape:
        tape.watch(w)
        N = w * norms
        r = losses / first
        target = tf.stop_gradient(tf.reduce_mean(N) * (r / r.mean()) ** ALPHA)
        distance = tf.reduce_sum(tf.abs(N - target))
    moved = (w - RATE * tape.gradient(distance, w)).numpy()
    state = step(method, state, losses, norms)
    np.testing.assert_allclose(
        weights(method, state), T * moved / moved.sum(), rtol=1e-5
    )


@bounded
@given(st.data(), st.integers(1, 6), st.sampled_from([0.025, 1.0, 1e3]))
def test_weights_stay_positive_and_sum_to_the_number(data, T, rate):
    method = gd.GradNorm(alpha=ALPHA, learning_rate=rate)
    state = method.initial_state(T)
    for _ in range(4):
        losses, norms = (
            data.draw(st.lists(positive, min_size=T, max_size=T))
            for _ in range(2)
        )
        state = step(method, state, losses, norms)
        w = weights(method, state)
        assert np.all(w > 0.0)
        np.testing.assert_allclose(w.sum(), T, rtol=1e-5)


def test_balanced_losses_keep_their_weights():
    method = gd.GradNorm()
    state = method.initial_state(3)
    for scale in (1.0, 0.5, 0.25):
        losses = np.array([1.0, 10.0, 100.0]) * scale
        state = step(method, state, losses, [2.0, 2.0, 2.0])
        np.testing.assert_allclose(weights(method, state), 1.0, rtol=1e-6)


def test_norms_are_brought_together():
    """Constant norms 4 : 1, losses at one pace: weights tend to 1 : 4."""
    method = gd.GradNorm(learning_rate=0.004)
    state = method.initial_state(2)
    for _ in range(200):
        state = step(method, state, [1.0, 1.0], [4.0, 1.0])
    np.testing.assert_allclose(weights(method, state), [0.4, 1.6], atol=0.04)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_reference_at_extreme_norms(scale):
    """The smallest weight before the renormalisation is 1e-3."""
    norms = [4.0 * scale, 1.0 * scale, 0.5 * scale]
    method = gd.GradNorm(alpha=ALPHA, learning_rate=RATE)
    state = step(method, method.initial_state(3), norms, norms)
    want = reference.gradnorm_step(
        [1.0] * 3, norms, norms, norms, ALPHA, RATE, floor=1e-3
    )
    np.testing.assert_allclose(weights(method, state), want, rtol=1e-5)
