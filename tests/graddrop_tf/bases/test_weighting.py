"""What weightings see, in a model and in a custom loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf import models
from tests.graddrop_tf.models import HEADS, VECTOR


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Lottery(gd.RandomDraws, gd.Weighting):
    """Random weights of mean 1."""

    def initial_state(self, num_losses):
        return {"last": tf.zeros([num_losses])}

    def weights_of(self, state, losses):
        return 2.0 * self.uniform(losses.shape)

    def next_state(self, state, losses, norms):
        assert norms is None
        return {"last": losses}


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Pace(gd.Weighting):
    """Weights each loss by the mean of the window before."""

    needs_means = True

    def __init__(self, window=None, **kwargs):
        super().__init__(**kwargs)
        self.window = window

    def initial_state(self, num_losses):
        return {"mean": tf.ones([num_losses])}

    def weights_of(self, state, losses):
        return state["mean"]

    def next_window(self, state, means):
        return {"mean": means}


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Watch(gd.Weighting):
    """Remembers the losses before and after the update."""

    needs_losses_after = True

    def initial_state(self, num_losses):
        return {
            "before": tf.zeros([num_losses]),
            "after": tf.zeros([num_losses]),
        }

    def weights_of(self, state, losses):
        return tf.ones_like(losses)

    def next_state_after(self, state, losses, losses_after):
        return {"before": losses, "after": losses_after}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for method in (Lottery, Pace, Watch):
        monkeypatch.setitem(gd.METHODS, method.__name__.lower(), method)


def state_of(model):
    state = model.recipe_state.weighting.state
    return {name: value.numpy() for name, value in state.items()}


def test_windows_of_steps_by_hand():
    weighting = Pace(window=2)
    state = weighting.start(2)
    weights = []
    for losses in ([1.0, 2.0], [3.0, 4.0], [5.0, 0.0], [7.0, 2.0]):
        weights.append(weighting.weights_of(state, None).numpy().tolist())
        state = weighting.advance(state, tf.constant(losses))
        state = weighting.end_epoch(state)
    assert weights == [[1.0, 1.0], [1.0, 1.0], [2.0, 3.0], [2.0, 3.0]]
    np.testing.assert_array_equal(state["mean"], [6.0, 1.0])


def test_epochs_by_hand():
    weighting = Pace()
    state = weighting.end_epoch(weighting.start(2))
    np.testing.assert_array_equal(state["mean"], [1.0, 1.0])
    for losses in ([1.0, 2.0], [3.0, 4.0], [5.0, 0.0]):
        state = weighting.advance(state, tf.constant(losses))
    np.testing.assert_array_equal(state["mean"], [1.0, 1.0])
    state = weighting.end_epoch(state)
    np.testing.assert_array_equal(state["mean"], [3.0, 2.0])
    state = weighting.advance(state, tf.constant([9.0, 8.0]))
    np.testing.assert_array_equal(
        weighting.end_epoch(state)["mean"], [9.0, 8.0]
    )


class Unusual(keras.callbacks.Callback):
    """Evaluates within an epoch, which ends none."""

    def __init__(self, x, y):
        super().__init__()
        self.data = x, y

    def on_train_batch_end(self, batch, logs=None):
        self.model.evaluate(*self.data, verbose=0)


@pytest.mark.parametrize("positional", [False, True])
def test_fit_ends_epochs(positional):
    model = HEADS.compiled("pace", keras.optimizers.SGD(0.0))
    x, y = models.batch(32)
    y = HEADS.labels(y)
    losses = model.evaluate(x, y, verbose=0, return_dict=True)
    expected = [losses[f"{name}_loss"] for name in models.NAMES]
    rest = [16, 1, 0, [Unusual(x, y)]] if positional else []
    more = {} if positional else dict(batch_size=16, verbose=0)
    model.fit(x, y, *rest, **more)
    np.testing.assert_allclose(state_of(model)["mean"], expected, rtol=1e-5)
    assert state_of(model)["window_count"] == 0
    model.train_on_batch(x, y)
    np.testing.assert_allclose(state_of(model)["mean"], expected, rtol=1e-5)


def test_losses_alone_in_each_kind_and_on_replicas(mirrored):
    """They are those of the global batch, whoever computes them."""
    last = []
    for kind in (HEADS, VECTOR):
        model = kind.compiled("lottery(seed=2)")
        logs = kind.train(model)
        last.append(state_of(model)["last"])
        names = [f"{name}_loss" for name in models.NAMES]
        np.testing.assert_allclose(
            last[-1], [logs[n] for n in names], rtol=1e-5
        )
    with mirrored(2).scope():
        model = HEADS.compiled("lottery(seed=2)")
    x, y = models.batch(16)
    model.fit(x, HEADS.labels(y), batch_size=16, verbose=0)
    np.testing.assert_allclose(state_of(model)["last"], last[0], rtol=1e-5)


def test_weights_are_drawn_anew_and_scale_the_gradients():
    """By the drawn weights, the sum of weighted plain gradients."""
    model, plain = (VECTOR.compiled(r) for r in ("lottery(seed=2)", "baseline"))
    seen = []
    for step in range(2):
        with gd.random.drawing(step):
            weights = 2.0 * gd.random.uniform([3], seed=2)
        plain.set_weights(model.get_weights())
        VECTOR.compile(plain, loss_weights=[float(w) for w in weights])
        for m in (model, plain):
            VECTOR.train(m)
        difference = models.largest_difference(
            models.trainable(model), models.trainable(plain)
        )
        assert difference < 1e-6
        seen.append(weights)
    assert not np.allclose(*seen)


def test_the_weighting_draws_before_the_combiners(monkeypatch):
    """Draws of one step are apart, also where seeds are equal."""
    drawn = []
    uniform = gd.random.uniform

    def recorded(*arguments):
        drawn.append(uniform(*arguments))
        return drawn[-1]

    monkeypatch.setattr(gd.random, "uniform", recorded)
    state = gd.Recipe.of("lottery(seed=2)+graddrop(seed=2)").build(2)
    x = tf.constant([[1.0, 2.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        losses = [tf.reduce_sum(x), -tf.reduce_sum(x)]
    gd.compute_gradients(tape, losses, x, [], state)
    assert len(drawn) == 2
    assert not np.allclose(*drawn)


def counted_tanh(calls, name):
    """Returns a function that counts how often its gradient is built."""

    @tf.custom_gradient
    def counted(x):
        def grad(upstream):
            calls.append(name)
            return upstream * (1.0 - tf.tanh(x) ** 2)

        return tf.tanh(x), grad

    return keras.layers.Lambda(counted, output_shape=lambda shape: shape)


def counted_model(recipe, vector):
    calls = []
    inputs, shared = keras.Input([6]), keras.Input([8])
    hidden = counted_tanh(calls, "trunk")(keras.layers.Dense(8)(inputs))
    trunk = keras.Model(inputs, hidden)
    heads = counted_tanh(calls, "heads")(shared)
    if vector:
        outputs = keras.layers.Dense(3)(heads)
    else:
        outputs = HEADS.heads_on([heads] * 3)
    model = gd.MultiLossModel(
        trunk, keras.Model(shared, outputs), recipe=recipe
    )
    kind = VECTOR if vector else HEADS
    return kind.compile(model), kind, calls


def operations(model, kind, calls):
    """Returns the operations of a step's graph, after a first step."""
    kind.train(model)
    calls.clear()
    x, y = models.batch()
    y = keras.tree.map_structure(tf.constant, kind.labels(y))
    function = tf.function(model.train_step, autograph=False)
    graph = function.get_concrete_function((tf.constant(x), y)).graph
    return sorted(op.type for op in graph.get_operations())


ALONE = [
    name
    for name, method in gd.METHODS.items()
    if issubclass(method, gd.Weighting) and not method.needs_norms
]


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("recipe", ["baseline", *ALONE, "famo(lagged=True)"])
def test_losses_alone_cost_one_backward_pass(recipe, vector):
    model, kind, calls = counted_model(recipe, vector)
    state = model.recipe_state
    assert not state.needs_per_loss_gradients
    products = operations(model, kind, calls).count("MatMul")
    assert sorted(calls) == ["heads", "trunk"]
    num_heads = 1 if vector else 3
    # Forward, kernels and inputs; the trunk's input needs no gradient.
    backward = 2 * num_heads + 1
    forward = (num_heads + 1) * (1 + state.needs_losses_after)
    assert products == backward + forward


@pytest.mark.parametrize("kind", [HEADS, VECTOR])
def test_logs_show_losses_without_the_weights(kind):
    """`loss_weights` trains in the same way, and shows weighted losses."""
    ours = kind.compiled("constant({'a': 2, 'c': 0.5})")
    theirs = kind.compiled(
        "baseline", loss_weights={"a": 2.0, "b": 1.0, "c": 0.5}
    )
    logs = kind.train(ours)
    plain = [logs[f"{name}_loss"] for name in models.NAMES]
    assert logs["loss"] == pytest.approx(sum(plain), rel=1e-6)
    weighted = kind.train(theirs)["loss"]
    assert weighted == pytest.approx(np.dot(plain, [2, 1, 0.5]), rel=1e-6)
    difference = models.largest_difference(
        models.trainable(ours), models.trainable(theirs)
    )
    assert difference < 1e-6


def test_norms_cost_a_pass_for_each_loss():
    model, kind, calls = counted_model("gradnorm", False)
    operations(model, kind, calls)
    assert calls.count("trunk") == 1
    assert calls.count("heads") == 3


def watched(jit_compile=False):
    """A model with batch norm and Dropout in both parts."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    inputs, shared = keras.Input([6]), keras.Input([8])
    hidden = layers.BatchNormalization()(layers.Dense(8)(inputs))
    trunk = keras.Model(inputs, layers.Dropout(0.5, seed=1)(hidden))
    heads = layers.Dropout(0.5, seed=2)(shared)
    heads = keras.Model(shared, HEADS.heads_on([heads] * 3))
    model = gd.MultiLossModel(trunk, heads, recipe="watch")
    return HEADS.compile(model, jit_compile=jit_compile)


@pytest.mark.parametrize("jit", [False, True])
def test_losses_after_the_update_have_the_same_masks(jit):
    """The losses of the next step, had it the same masks of Dropout."""
    model, frozen = watched(jit), watched(jit)
    HEADS.train(model)
    HEADS.train(frozen)
    seeds = [v for v in frozen.variables if v.name == "seed_generator_state"]
    assert len(seeds) == 2
    for seed in seeds:
        assert int(seed[1]) == 1
        seed.assign(seed * [1, 0])
    frozen.reset_metrics()
    logs = HEADS.train(frozen)
    expected = [logs[f"{name}_loss"] for name in models.NAMES]
    state = state_of(model)
    np.testing.assert_allclose(state["after"], expected, rtol=1e-4)
    assert np.all(np.abs(state["after"] - state["before"]) > 1e-3)


def test_losses_after_the_update_leave_no_trace():
    """Moving averages, seeds and logs are those of one pass."""
    model, plain = watched(), watched()
    plain.recipe = None
    logs, expected = HEADS.train(model, 3), HEADS.train(plain, 3)
    assert logs.keys() == expected.keys()
    for name, value in logs.items():
        assert value == pytest.approx(expected[name], rel=1e-5), name
    for part in ("trunk", "heads"):
        a, b = (getattr(m, part).variables for m in (model, plain))
        assert len(a) == len(b)
        for v, w in zip(a, b):
            np.testing.assert_allclose(v.numpy(), w.numpy(), rtol=1e-5)


def test_losses_after_the_update_are_those_of_the_global_batch(mirrored):
    one = HEADS.compiled("watch")
    with mirrored(2).scope():
        two = HEADS.compiled("watch")
    x, y = models.batch(16)
    for model in (one, two):
        model.fit(x, HEADS.labels(y), batch_size=16, verbose=0)
    for name in ("before", "after"):
        a, b = state_of(one)[name], state_of(two)[name]
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_losses_after_the_update_in_a_custom_loop():
    state = gd.Recipe.of("watch").build(2)
    x = tf.constant([[1.0, 2.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        losses = [tf.reduce_sum(x), -tf.reduce_sum(x)]
    gd.compute_gradients(tape, losses, x, [], state)
    state.update_after(losses, [tf.ones([]), tf.zeros([])])
    np.testing.assert_array_equal(state.weighting.state["before"], [3.0, -3.0])
    np.testing.assert_array_equal(state.weighting.state["after"], [1.0, 0.0])


@pytest.mark.parametrize("recipe", ["lottery+graddrop", "pace(window=2)"])
def test_a_saved_model_goes_on(recipe, tmp_path):
    model = VECTOR.compiled(recipe)
    VECTOR.train(model, steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        VECTOR.train(m, steps=3)
    assert not models.largest_difference(
        [v.numpy() for v in model.variables],
        [v.numpy() for v in loaded.variables],
    )


def test_without_an_update_there_are_no_losses_after_it():
    """In an accumulated micro-batch, and where the loss scale overflows."""
    model = HEADS.compiled(
        "watch", keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    )
    HEADS.train(model)
    assert not state_of(model)["after"].any()
    HEADS.train(model)
    state = state_of(model)
    assert np.all(np.abs(state["after"] - state["before"]) > 1e-3)

    scaled = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**127
    )
    model = HEADS.compiled("watch", scaled)
    HEADS.train(model)
    assert not state_of(model)["after"].any()
    scaled.dynamic_scale.assign(2.0)
    HEADS.train(model)
    assert state_of(model)["after"].all()
