"""GradNorm's update on plain numbers, worked out by hand and by autodiff."""

import keras
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


def test_a_loss_that_is_absent_at_first_by_hand():
    """It has no say before it starts, and then starts at its first value."""
    method = gd.GradNorm(alpha=1.0, learning_rate=0.1)
    state = step(method, method.initial_state(2), [2.0, 0.0], [3.0, 0.0])
    np.testing.assert_array_equal(weights(method, state), [1.0, 1.0])
    # Ratios 1/2 and 1, rates 2/3 and 4/3; norms 3 and 1, targets 4/3 and 8/3.
    state = step(method, state, [1.0, 4.0], [3.0, 1.0])
    expected = np.array([0.7, 1.1]) * 2 / 1.8
    np.testing.assert_allclose(weights(method, state), expected, rtol=1e-6)
    # The same of three, of which the third is still absent: the mean norm of
    # the two is 2.
    state = step(method, method.initial_state(3), [2.0, 5.0, 0.0], [3, 1, 0])
    expected = np.array([0.7, 1.1, 1.0]) * 3 / 2.8
    np.testing.assert_allclose(weights(method, state), expected, rtol=1e-6)
    # The ratios of the two are 1/2 and 1, whatever the third is.
    pair = step(method, method.initial_state(2), [2.0, 5.0], [0.0, 0.0])
    three = step(method, method.initial_state(3), [2.0, 5.0, 0.0], [0, 0, 0])
    pair = weights(method, step(method, pair, [1.0, 5.0], [3.0, 1.0]))
    three = weights(method, step(method, three, [1.0, 5.0, 0.0], [3, 1, 0]))
    assert three[0] / three[1] == pytest.approx(pair[0] / pair[1])
    assert three[2] / three[1] == pytest.approx(1.0 / 1.1)


def test_losses_below_0_by_hand():
    """Below 0 at first: at the mean rate. Below 0 later: as 0."""
    method = gd.GradNorm(alpha=1.0, learning_rate=0.1)
    # Rates 1 and 1, norms 3 and 1, targets 2 and 2.
    state = step(method, method.initial_state(2), [-2.0, 4.0], [3.0, 1.0])
    expected = np.array([0.7, 1.1]) * 2 / 1.8
    np.testing.assert_allclose(weights(method, state), expected, rtol=1e-6)
    # Ratios 1 and 0, rates 2 and 0: targets 4 and 0 for norms 3 and 1.
    state = step(method, method.initial_state(2), [2.0, 4.0], [0.0, 0.0])
    state = step(method, state, [2.0, -4.0], [3.0, 1.0])
    expected = np.array([1.3, 0.9]) * 2 / 2.2
    np.testing.assert_allclose(weights(method, state), expected, rtol=1e-6)


def equal_tasks(vector):
    """A model of two tasks that are the same."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    inputs, shared = keras.Input([4]), keras.Input([3])
    trunk = keras.Model(inputs, dense(3, activation="tanh")(inputs))
    first, second = dense(1), dense(1)
    outputs = [first(shared), second(shared)]
    second.set_weights(first.get_weights())
    if vector:
        outputs = keras.layers.Concatenate()(outputs)
    loss = gd.VectorLoss(squared_errors) if vector else ["mse", "mse"]
    heads = keras.Model(shared, outputs)
    model = gd.MultiLossModel(trunk, heads, recipe="gradnorm")
    model.compile(keras.optimizers.SGD(0.01), loss)
    return model


def squared_errors(y_true, y_pred):
    return tf.square(y_true - y_pred)


@pytest.mark.parametrize("absent_steps", [1, 30])
@pytest.mark.parametrize("use", ["list", "vector", "loop"])
def test_equal_tasks_keep_equal_weights(use, absent_steps):
    """Whichever of them is absent at first."""
    r = np.random.default_rng(0)
    x = r.normal(size=[24, 4]).astype("float32")
    y = r.normal(size=[24, 1]).astype("float32")
    model = equal_tasks(use == "vector")
    variables = model.trainable_variables

    @tf.function
    def custom_step(present):
        with tf.GradientTape(persistent=True) as tape:
            activations = model.trunk(x, training=True)
            outputs = model.heads(activations, training=True)
            losses = [tf.reduce_mean(squared_errors(y, o)) for o in outputs]
            losses[1] *= present
        grads = gd.compute_gradients(
            tape, losses, activations, variables, model.recipe_state
        )
        model.optimizer.apply_gradients(zip(grads, variables))

    for index in range(90):
        present = np.float32(index >= absent_steps)
        weight = np.stack([np.ones(24), np.full(24, present)], axis=1)
        weight = weight.astype("float32")
        if use == "list":
            columns = [weight[:, 0], weight[:, 1]]
            model.train_on_batch(x, [y, y], sample_weight=columns)
        elif use == "vector":
            model.train_on_batch(x, np.repeat(y, 2, 1), sample_weight=weight)
        else:
            custom_step(tf.constant(present))
    learned = model.recipe_state.weighting.current_weights()
    np.testing.assert_allclose(learned, [1.0, 1.0], atol=0.15)
