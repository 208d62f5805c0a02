import contextlib
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import HEADS, LAYER, batch
from tests.graddrop_tf.monitor.linear import (
    BY_HAND,
    QUANTITIES,
    W,
    X,
    Y,
    fit,
    linear,
    measure,
    product,
    read,
)


@pytest.mark.parametrize(
    "form", ["layer", "heads", "vector", "tensors", "tensors in a layer"]
)
def test_baseline_by_hand(form, tmp_path):
    row = measure(*linear(form, "baseline"), tmp_path)
    assert row == pytest.approx(BY_HAND, rel=1e-6)


@pytest.mark.parametrize("form", ["layer", "vector", "tensors"])
def test_pcgrad_by_hand(form, tmp_path):
    """The products are 50, 25 and -9: 1.18 g_1 + 1.36 g_2 is left."""
    square = 1.18**2 * 50 + 1.36**2 * 25 - 2 * 1.18 * 1.36 * 9
    row = measure(*linear(form, "pcgrad"), tmp_path)
    expected = {**BY_HAND, "norm_after": math.sqrt(square)}
    assert row == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "form", ["layer", "nested", "heads", "tensors", "tensors in a layer"]
)
def test_graddrop_by_hand(form, tmp_path):
    """A leak of 1/2 for the second loss adds half of what it lacks.

    The draw at the first feature keeps (3, 3) or (-1, -2); the second loss
    is alone at the second, and at the third the signs cancel: all passes.
    """
    model, y = linear(form, "graddrop(leak=[0, 0.5])")
    row = measure(model, y, tmp_path, graddrop=gd.GradDrop(k=0.0))
    after = row.pop("norm_after")
    assert after == pytest.approx(
        math.sqrt(2.5**2 + 2**2 + 2**2 + 4**2 + 4**2 + 4**2)
    ) or after == pytest.approx(math.sqrt(1 + 4 + 4 + 16 + 16 + 16))
    expected = {
        **BY_HAND,
        "kept_share": (4 / 3 + 2 + 2 * (1 / 2 + 1 / 6) + 2) / 8,
        "hypothetical_kept_share": (2 * 0.5 + 2 + 2 * 0.5 + 2 * 0.5) / 8,
    }
    del expected["norm_after"]
    assert row == pytest.approx(expected, rel=1e-6)


def test_random_graddrop_is_measured_by_its_own_f(tmp_path):
    """A fair coin keeps half of six values; two have no sign."""
    row = measure(*linear("heads", "random_graddrop"), tmp_path)
    assert row["kept_share"] == pytest.approx((6 / 2 + 2) / 8)
    assert row["hypothetical_kept_share"] == BY_HAND["hypothetical_kept_share"]


def test_leak_1_changes_nothing(tmp_path):
    row = measure(*linear("heads", "graddrop(leak=1.0)"), tmp_path)
    assert row == pytest.approx({**BY_HAND, "kept_share": 1.0}, rel=1e-6)


def test_what_comes_before_graddrop_counts(tmp_path):
    """MGDA weighs orthogonal (2, 2) and (-1, 1) by 1/5 and 4/5."""
    W = np.float32([[2, 2], [-1, 1]])
    x = np.float32([[1, 1]])
    model, y = linear("layer", "mgda+graddrop", W)
    path = tmp_path / "gradients.csv"
    y = [np.float32([[1]])] * 2
    callback = gd.GradientMonitor((x, y), path=path)
    fit(model, y, x=x, callbacks=[callback])
    (row,) = read(path)
    # (0.4, 0.4) and (-0.8, 0.8) reach it; P is 1/3 and 1.
    assert row["kept_share"] == pytest.approx((1 / 3 + 2 / 3 + 2) / 4)
    assert row["mean_purity"] == pytest.approx((1 / 3 + 1) / 2)
    assert row["hypothetical_kept_share"] == pytest.approx(
        (2 / 3 + 1 / 3 + 2) / 4
    )
    assert row["norm_before"] == pytest.approx(math.hypot(1, 3))


def test_one_loss_is_measured():
    x = np.float32([[1, -1], [3, 1]])
    inputs = keras.Input([2])
    branch = gd.GradDrop(num_losses=1)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(branch))
    model.compile("sgd", "mse", run_eagerly=True)
    y = np.ones([2, 1], np.float32)
    history = fit(model, y, x=x, callbacks=[gd.GradientMonitor((x, y))])
    assert history["gradients/norm_after"] == history["gradients/norm_before"]


@pytest.mark.parametrize(
    ("form", "recipe"),
    [("layer", "baseline"), ("heads", "gradnorm(learning_rate=0.5)")],
)
def test_weights_are_part_of_the_gradients(form, recipe, tmp_path):
    """Those of the samples, of the losses, and of the weighting."""
    model, y = linear(form, recipe, loss_weights=[5.0, 10.0])
    weights = [np.float32([3, 3]), np.float32([2, 2])]
    path = tmp_path / "gradients.csv"
    callback = gd.GradientMonitor((X, y, weights), path=path)
    fit(model, y, callbacks=[callback])
    (row,) = read(path)
    w = np.float32([15, 20])
    if form == "heads":
        learned = model.recipe_state.weighting.current_weights().numpy()
        assert abs(learned[0] - learned[1]) > 0.1
        w *= learned
        logged = [row["weight_head_0"], row["weight_head_1"]]
        assert logged == pytest.approx(list(learned), rel=1e-6)
        logged = model.history.history["gradients/weight_head_1"]
        assert logged == pytest.approx([learned[1]], rel=1e-6)
    else:
        assert not [name for name in row if name.startswith("weight")]
    g = [[[3, 0, -4], [3, 0, -4]], [[-1, 2, 0], [-2, 4, 0]]]
    total = np.tensordot(w, g, axes=1)
    for name in ("norm_before", "norm_after"):
        assert row[name] == pytest.approx(np.linalg.norm(total), rel=1e-6)


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Shares(gd.RandomDraws, gd.Weighting):
    """Random numbers times the losses."""

    def weights_of(self, state, losses):
        return tf.abs(losses) * self.uniform(losses.shape)


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Count(gd.Combiner):
    """Multiplies by the number of the step, from 1."""

    def initial_state(self, num_losses):
        return {"steps": tf.zeros([])}

    def combine(self, gradients, activations):
        steps = self.state["steps"] + 1.0
        self.keep(steps=steps)
        return [steps * g for g in gradients]


G = np.float32([[[3, 0, -4], [3, 0, -4]], [[-1, 2, 0], [-2, 4, 0]]])


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_those_of_the_next_step(seed, monkeypatch, tmp_path):
    """Those of the weighting come first."""
    monkeypatch.setitem(gd.METHODS, "shares", Shares)
    recipe = f"shares(seed=2)+graddrop(seed={seed})"
    row = measure(*linear("heads", recipe), tmp_path)
    with gd.random.drawing(1):
        # The losses are the means of (-2, 28) and of (2, 8).
        weights = [13.0, 5.0] * gd.random.uniform([2], seed=2)
        uniform = gd.random.uniform([3], seed=seed)
    weighted = [w * g for w, g in zip(weights, G)]
    masked = gd.graddrop(weighted, X, uniform=uniform)
    for name, gradients in (("norm_before", weighted), ("norm_after", masked)):
        expected = np.linalg.norm(np.sum(gradients, axis=0))
        assert row[name] == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("form", ["layer", "heads"])
def test_state_is_that_of_the_next_step(form, monkeypatch, tmp_path):
    """And stays what it is."""
    monkeypatch.setitem(gd.METHODS, "count", Count)
    model, y = linear(form, "count")
    row = measure(model, y, tmp_path)
    norm = BY_HAND["norm_before"]
    assert row["norm_after"] == pytest.approx(2.0 * norm, rel=1e-6)
    (steps,) = [v for v in model.variables if v.name == "steps"]
    assert float(steps) == 1.0


def test_a_place_above_another_keeps_its_state(tmp_path):
    """The gradient of the lower one passes through the upper one."""
    inputs = keras.Input([3])
    dense = keras.layers.Dense(4)
    features = keras.layers.Dense(3)(inputs)
    lower = Count(num_losses=2, name="lower")(features)
    both = keras.layers.add([dense(branch) for branch in lower])
    upper = Count(num_losses=2, name="upper")(both)
    model = keras.Model(inputs, [keras.layers.Dense(1)(x) for x in upper])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    row = measure(model, [np.ones([2, 1], np.float32)] * 2, tmp_path)
    for name in ("lower", "upper"):
        ratio = row[f"{name}/norm_after"] / row[f"{name}/norm_before"]
        assert ratio == pytest.approx(2.0, rel=1e-5), name


@pytest.mark.parametrize("form", ["heads", "vector"])
def test_losses_are_those_of_the_batch(form, monkeypatch, mirrored):
    """Also in the scope of a strategy, where Keras divides them."""
    monkeypatch.setitem(gd.METHODS, "shares", Shares)
    norms = []
    for scope in (contextlib.nullcontext(), mirrored(2).scope()):
        with scope:
            model, y = linear(form, "shares(seed=2)")
            monitor = gd.GradientMonitor((X, y))
            monitor.set_model(model)
            monitor.on_train_begin()
            monitor.on_epoch_begin(0)
            logs = {}
            monitor.on_epoch_end(0, logs)
        norms.append(logs["gradients/norm_before"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


class InTraining(keras.layers.Layer):
    """Multiplies by a number in training."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs, training=False):
        return self.factor * inputs if training else inputs


@pytest.mark.parametrize("form", ["layer", "model"])
def test_the_model_runs_as_in_training(form, tmp_path):
    """Activations change their sign, and gradients are twice as long."""
    inputs = keras.Input([3])
    features = InTraining(-1.0)(inputs)
    heads = [
        keras.layers.Dense(1, use_bias=False, name=f"head_{i}")
        for i in range(2)
    ]
    for head, w in zip(heads, W):
        head.build([None, 3])
        head.kernel.assign(w[:, None])
    if form == "layer":
        branches = gd.Chain([], num_losses=2)(features)
        outputs = [InTraining(2.0)(h(b)) for h, b in zip(heads, branches)]
        model = keras.Model(inputs, outputs)
    else:
        shared = keras.Input([3])
        model = gd.MultiLossModel(
            keras.Model(inputs, features),
            keras.Model(shared, [InTraining(2.0)(h(shared)) for h in heads]),
        )
    model.compile(keras.optimizers.SGD(0.0), [product] * 2, run_eagerly=True)
    row = measure(model, [Y[:, :1], Y[:, 1:]], tmp_path)
    expected = {
        **BY_HAND,
        "mean_purity": (1 / 3 + 0) / 2,
        "norm_before": 2 * BY_HAND["norm_before"],
        "norm_after": 2 * BY_HAND["norm_after"],
    }
    assert row == pytest.approx(expected, rel=1e-6)


def test_terms_after_a_branch_are_part_of_its_gradient(tmp_path):
    """As in training with the layer; in a MultiLossModel they are no task."""
    rows = []
    for form in ("layer", "heads"):
        model, y = linear(form, "baseline")
        heads = model if form == "layer" else model.heads
        head = heads.get_layer("head_0")
        head.activity_regularizer = lambda outputs: tf.reduce_sum(outputs)
        head.kernel.regularizer = keras.regularizers.L2(1.0)
        rows.append(measure(model, y, tmp_path))
    # Keras divides by the batch: g_1 is (6, 0, -8) for both examples.
    total = np.float32([[5, 2, -8], [4, 4, -8]])
    assert rows[0]["norm_before"] == pytest.approx(np.linalg.norm(total))
    assert rows[1] == pytest.approx(BY_HAND, rel=1e-6)


def test_several_places_have_names(tmp_path):
    inputs = keras.Input([3])
    lower = gd.GradDrop(num_losses=2, name="lower")
    upper = gd.PCGrad(num_losses=2, name="upper")
    dense = keras.layers.Dense(4)
    both = keras.layers.add([dense(x) for x in lower(inputs)])
    outputs = [keras.layers.Dense(1)(x) for x in upper(both)]
    outputs += [keras.layers.Dense(1)(x) for x in upper(2.0 * both)]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", run_eagerly=True)
    y = [np.ones([2, 1], np.float32)] * 4
    row = measure(model, y, tmp_path)
    names = ["lower", "upper", "upper_2"]
    assert sorted(row) == sorted(
        f"{name}/{quantity}" for name in names for quantity in QUANTITIES
    )
    # Both branches of the lower layer go the same way.
    assert row["lower/mean_cosine"] == pytest.approx(1.0, abs=1e-6)
    assert row["lower/kept_share"] == pytest.approx(1.0)
    assert row["upper/norm_before"] != row["upper_2/norm_before"]


def test_a_tensor_given_twice_is_measured_once_each(tmp_path):
    """The first loss takes one copy, the second the other: no conflict."""
    inputs = keras.Input([3])
    features = keras.layers.Dense(4)(inputs)
    shared = [keras.Input([4]), keras.Input([4])]
    model = gd.MultiLossModel(
        keras.Model(inputs, [features, features]),
        keras.Model(shared, [keras.layers.Dense(1)(s) for s in shared]),
    )
    model.compile("sgd", "mse", run_eagerly=True)
    row = measure(model, [np.ones([2, 1], np.float32)] * 2, tmp_path)
    assert row["mean_cosine"] == row["conflict_rate"] == 0.0
    assert row["norm_before"] > 0.0


def test_batch_separated_model_and_layer_agree(tmp_path):
    def build(form):
        keras.utils.set_random_seed(1)
        inputs = [keras.Input([3]), keras.Input([3])]
        dense = keras.layers.Dense(32, activation="tanh")
        features = [dense(x) for x in inputs]
        heads = [keras.layers.Dense(1) for _ in range(2)]
        if form == "layer":
            branches = gd.GradDrop(seed=1)(features)
            outputs = [h(b) for h, b in zip(heads, branches)]
            model = keras.Model(inputs, outputs)
        else:
            shared = [keras.Input([32]), keras.Input([32])]
            outputs = [h(s) for h, s in zip(heads, shared)]
            model = gd.MultiLossModel(
                keras.Model(inputs, features),
                keras.Model(shared, outputs),
                gd.Recipe(combiners=[gd.GradDrop(seed=1)]),
                separate=True,
            )
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
        return model

    r = np.random.RandomState(0)
    x = [r.randn(4, 3).astype("float32"), r.randn(2, 3).astype("float32")]
    y = [r.randn(4, 1).astype("float32"), r.randn(2, 1).astype("float32")]
    rows = []
    for form in ("layer", "model"):
        path = tmp_path / f"{form}.csv"
        data = (tuple(x), tuple(y))
        build(form).fit(
            tf.data.Dataset.from_tensors(data).repeat(3),
            callbacks=[gd.GradientMonitor(data, every_steps=1, path=path)],
            verbose=0,
            shuffle=False,
        )
        rows.append(read(path))
    assert len(rows[0]) == 3
    for layer, model in zip(*rows):
        assert layer == pytest.approx(model, rel=1e-5)
        assert 0 < layer["norm_after"] < layer["norm_before"]


@pytest.mark.parametrize(("kind", "eager"), [(LAYER, True), (HEADS, False)])
def test_two_replicas_equal_one(kind, eager, mirrored, tmp_path):
    """The numbers are those of the batch as a whole."""
    x, y = batch(8)
    y = tuple(kind.labels(y))
    rows = []
    for scope in (contextlib.nullcontext(), mirrored(2).scope()):
        path = tmp_path / f"{len(rows)}.csv"
        callback = gd.GradientMonitor((x, y), every_steps=1, path=path)
        with scope:
            model = kind.compiled(
                "graddrop(leak=0.1, seed=4)", run_eagerly=eager or not rows
            )
        dataset = tf.data.Dataset.from_tensors((x, y)).repeat(2)
        model.fit(dataset, verbose=0, shuffle=False, callbacks=[callback])
        rows.append(read(path))
    assert len(rows[0]) == 2
    for one, two in zip(*rows):
        assert two == pytest.approx(one, rel=1e-5)


def test_inside_the_scope_of_a_strategy(mirrored, tmp_path):
    """Keras divides losses by the replicas there."""
    with mirrored(2).scope():
        model, y = linear("heads", "baseline")
        measure = gd.GradientMonitor((X, y))
        measure.set_model(model)
        measure.on_train_begin()
        measure.on_epoch_begin(0)
        logs = {}
        measure.on_epoch_end(0, logs)
    for name in QUANTITIES:
        assert logs[f"gradients/{name}"] == pytest.approx(BY_HAND[name])


@pytest.mark.parametrize(
    ("policy", "scale"),
    [("mixed_bfloat16", None), ("mixed_float16", 256.0)],
)
@pytest.mark.parametrize("form", ["layer", "vector"])
def test_half_precision(form, policy, scale, tmp_path):
    """The numbers are exact in half precision, and free of the loss scale."""
    keras.config.set_dtype_policy(policy)
    optimizer = keras.optimizers.SGD(0.0)
    if scale is not None:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, scale)
    model, y = linear(form, "graddrop(leak=1.0)", optimizer=optimizer)
    row = measure(model, y, tmp_path)
    assert row == pytest.approx({**BY_HAND, "kept_share": 1.0}, rel=1e-6)


def test_a_model_without_a_place_is_refused():
    plain = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="which is neither"):
        fit(plain, Y, callbacks=[gd.GradientMonitor((X, Y))])


@pytest.mark.parametrize("form", ["layer", "heads"])
def test_a_graddrop_that_does_not_fit_is_refused(form):
    model, y = linear(form, "baseline")
    three = gd.GradientMonitor((X, y), graddrop=gd.GradDrop(leak=[0, 1, 0]))
    with pytest.raises(ValueError, match="3 values for 2 losses"):
        fit(model, y, callbacks=[three])
    assert int(model.optimizer.iterations) == 0
