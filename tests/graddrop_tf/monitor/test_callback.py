import contextlib
import csv
import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

import graddrop_tf as gd
from graddrop_tf.monitor import callback as monitor_lib
from tests.graddrop_tf.models import HEADS, LAYER, batch

QUANTITIES = [
    "kept_share",
    "hypothetical_kept_share",
    "mean_purity",
    "mean_cosine",
    "conflict_rate",
    "norm_before",
    "norm_after",
]

# Two losses, two examples, four features; the last is a dead unit.
A = np.float32([[1, -1, 2, 0], [3, 1, 0, 0]])
G = np.float32(
    [
        [[3, 1, 0, 0], [0, 1, 2, 0]],
        [[-1, 2, 4, 0], [0, 0, -5, 0]],
    ]
)


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items()} for row in rows]


def tensors(arrays):
    return [tf.constant(a, tf.float32) for a in arrays]


@pytest.mark.parametrize(
    ("options", "kept", "purity"),
    [
        # Summed over the batch, sgn(A) G is (3, 0, 0) and (-1, -2, 4): P is
        # 3/4, 0 and 1. Of 4 + 4 values 3/4 and 1/4 + 1 + 2 are kept.
        ({}, 4 / 8, (3 / 4 + 0 + 1) / 3),
        # The first loss has 1/2 + 3/4 / 2 + 2 (1/2) + 1/2 of its four.
        ({"leak": [0.5, 0.0]}, (2.375 + 3.25) / 8, 1.75 / 3),
        # A fair coin wherever there is a sum: 1/2 and 1/2 + 1/2 + 2 (1/2).
        ({"k": 0.0}, 2.5 / 8, 1.75 / 3),
        # P is 3/4, 0, 1 and, for the second example, 1 at the second unit;
        # where A is 0, nothing is kept: 3/4 + 1 + 1 and 1/4 + 1 + 1.
        ({"marginalize_batch": False}, 5 / 8, (3 / 4 + 0 + 1 + 1) / 4),
    ],
)
def test_kept_share_and_purity_by_hand(options, kept, purity):
    layer = gd.GradDrop(**options)
    g, a = tensors(G), tf.constant(A)
    assert float(monitor_lib.kept_share(g, a, layer)) == kept
    measured = float(monitor_lib.mean_purity(g, a, layer))
    assert measured == pytest.approx(purity, rel=1e-6)


def test_batch_separated_by_hand():
    """The sums are (3, 0, 0, 0) and (-1, 2, 4, 0), of batches of 2 and 1."""
    g = [tf.constant(G[0]), tf.constant([[1.0, 2.0, 4.0, 0.0]])]
    a = [tf.constant(A), tf.constant([[-2.0, 1.0, 1.0, 1.0]])]
    layer = gd.GradDrop(marginalize_batch=False)
    kept = float(monitor_lib.kept_share(g, a, layer))
    assert kept == pytest.approx((3 / 4 + 1 / 4 + 1 + 1) / 7)
    purity = float(monitor_lib.mean_purity(g, a, layer))
    assert purity == pytest.approx((3 / 4 + 1 + 1) / 3)
    cosine, rate = monitor_lib.mean_cosine_and_conflict_rate(g, a)
    assert float(cosine) == pytest.approx(-1 / math.sqrt(21))
    assert float(rate) == 1.0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_cosines_and_conflicts_by_hand(scale):
    """Of the pairs two have cosine -1 / sqrt(2), the third 0."""
    g = np.float32([[1, 0], [0, 2], [-3, -3]]) * np.float32(scale)
    a = tf.ones([2])
    cosine, rate = monitor_lib.mean_cosine_and_conflict_rate(tensors(g), a)
    assert float(cosine) == pytest.approx(-math.sqrt(2) / 3)
    assert float(rate) == pytest.approx(2 / 3)
    with_zeros = tensors([*g, [0, 0]])
    cosine, rate = monitor_lib.mean_cosine_and_conflict_rate(with_zeros, a)
    assert float(cosine) == pytest.approx(-math.sqrt(2) / 6)
    assert float(rate) == pytest.approx(2 / 6)


def test_one_loss_has_no_pairs():
    g, a = tensors([[[3.0, -4.0]]]), tf.ones([1, 2])
    values = monitor_lib.mean_cosine_and_conflict_rate(g, a)
    assert [float(v) for v in values] == [0.0, 0.0]
    inputs = keras.Input([2])
    (branch,) = gd.GradDrop(num_losses=1)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1)(branch))
    model.compile("sgd", "mse", run_eagerly=True)
    y = np.ones([2, 1], np.float32)
    history = fit(
        model, y, x=A[:, :2], callbacks=[gd.GradientMonitor((A[:, :2], y))]
    )
    assert history["gradients/norm_after"] == history["gradients/norm_before"]


def test_nothing_arrives():
    g, a = tensors(np.zeros([2, 3, 2])), tf.ones([3, 2])
    assert float(monitor_lib.kept_share(g, a, gd.GradDrop())) == 0.0
    assert float(monitor_lib.mean_purity(g, a, gd.GradDrop())) == 0.5
    values = monitor_lib.mean_cosine_and_conflict_rate(g, a)
    assert [float(v) for v in values] == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_non_finite_stays_visible(bad):
    g = G.copy()
    g[1, 0, 0] = bad
    g, a = tensors(g), tf.constant(A)
    assert math.isnan(monitor_lib.kept_share(g, a, gd.GradDrop()))
    assert math.isnan(monitor_lib.mean_purity(g, a, gd.GradDrop()))
    for value in monitor_lib.mean_cosine_and_conflict_rate(g, a):
        assert math.isnan(value)


def test_kept_share_is_the_mean_over_all_draws():
    """With P in quarters, four draws stand for the whole interval."""
    g = np.random.RandomState(0).choice([-3.0, -1.0, 1.0, 3.0], [2, 1, 30])
    a, layer = tf.ones([1, 30]), gd.GradDrop(leak=[0.0, 0.25], k=1.0)
    purities = set(np.asarray(gd.sign_purity(tensors(g))).ravel())
    assert purities == {0.0, 0.25, 0.5, 0.75, 1.0}
    shares = [
        np.mean(
            gd.graddrop(
                tensors(g), a, uniform=tf.fill([30], u), leak=[0.0, 0.25]
            )
            / g
        )
        for u in (0.125, 0.375, 0.625, 0.875)
    ]
    kept = float(monitor_lib.kept_share(tensors(g), a, layer))
    assert kept == pytest.approx(np.mean(shares), rel=1e-6)


# A linear model on x = A. Loss i is the mean of y_i w_i . A_b, so that
# dL_i/dA_b is y_i w_i / 2: (3, 0, -4) twice, and (-1, 2, 0), (-2, 4, 0).
X = np.float32([[1, 1, 1], [2, 2, -2]])
W = np.float32([[6, 0, -8], [-2, 4, 0]])
Y = np.float32([[1, 1], [1, 2]])
BY_HAND = {
    # The sums of sgn(A) G are (6, 0, 0) and (-3, 6, 0). P is 2/3 and 1; kept
    # are 2 (2/3) of four values and 2 (1/3) + 2 of four.
    "kept_share": 4 / 8,
    "hypothetical_kept_share": 4 / 8,
    "mean_purity": (2 / 3 + 1) / 2,
    "mean_cosine": -9 / math.sqrt(50 * 25),
    "conflict_rate": 1.0,
    # (2, 2, -4) and (1, 4, -4).
    "norm_before": math.sqrt(57),
    "norm_after": math.sqrt(57),
}


def product(y_true, y_pred):
    return y_true * y_pred


def linear(form, recipe, W=W, **options):
    """A model whose weights stay as they are; it gives the labels too."""
    inputs = keras.Input([W.shape[1]])
    trunk = keras.layers.Dense(
        W.shape[1], use_bias=False, kernel_initializer="identity"
    )
    heads = [
        keras.layers.Dense(1, use_bias=False, name=f"head_{i}")
        for i in range(len(W))
    ]
    y = [Y[:, i : i + 1] for i in range(len(W))]
    loss = [product] * len(W)
    if form == "layer":
        chain = gd.Chain(
            [c.build() for c in gd.Recipe.parse(recipe).combiners],
            num_losses=len(W),
        )
        branches = chain(trunk(inputs))
        outputs = [h(b) for h, b in zip(heads, branches)]
        model = keras.Model(inputs, outputs)
    elif form == "nested":
        features = keras.Input([W.shape[1]])
        (mask,) = [
            c.build(num_losses=2) for c in gd.Recipe.parse(recipe).combiners
        ]
        branches = keras.Model(features, mask(features))(trunk(inputs))
        outputs = [h(b) for h, b in zip(heads, branches)]
        model = keras.Model(inputs, outputs)
    else:
        shared = keras.Input([W.shape[1]])
        outputs = [h(shared) for h in heads]
        if form == "vector":
            outputs = keras.layers.Concatenate()(outputs)
            y, loss = Y, gd.VectorLoss(product, names=["a", "b"])
        model = gd.MultiLossModel(
            keras.Model(inputs, trunk(inputs)),
            keras.Model(shared, outputs),
            gd.Recipe.parse(recipe),
        )
    for head, w in zip(heads, W):
        head.kernel.assign(w[:, None])
    options = {
        "optimizer": keras.optimizers.SGD(0.0),
        "run_eagerly": True,
        **options,
    }
    model.compile(loss=loss, **options)
    return model, y


def fit(model, y, steps=1, x=X, **options):
    """Trains on the same batch; returns the history."""
    dataset = tf.data.Dataset.from_tensors(
        (x, tuple(y) if type(y) is list else y)
    )
    return model.fit(
        dataset.repeat(steps), verbose=0, shuffle=False, **options
    ).history


def measure(model, y, tmp_path, **options):
    """Returns the one sample of a fit."""
    path = tmp_path / "gradients.csv"
    fit(model, y, callbacks=[gd.GradientMonitor((X, y), path=path, **options)])
    (row,) = read(path)
    assert row.pop("step") == 1
    return row


@pytest.mark.parametrize("form", ["layer", "heads", "vector"])
def test_baseline_by_hand(form, tmp_path):
    row = measure(*linear(form, "baseline"), tmp_path)
    assert row == pytest.approx(BY_HAND, rel=1e-6)


@pytest.mark.parametrize("form", ["layer", "vector"])
def test_pcgrad_by_hand(form, tmp_path):
    """The products are 50, 25 and -9: 1.18 g_1 + 1.36 g_2 is left."""
    square = 1.18**2 * 50 + 1.36**2 * 25 - 2 * 1.18 * 1.36 * 9
    row = measure(*linear(form, "pcgrad"), tmp_path)
    expected = {**BY_HAND, "norm_after": math.sqrt(square)}
    assert row == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["layer", "nested", "heads"])
def test_graddrop_by_hand(form, tmp_path):
    """A leak of 1/2 for the second loss adds half of what it lacks.

    The draw at the first feature keeps (3, 3) or (-1, -2); there is no draw
    at the second, and at the third the mask drops both losses.
    """
    model, y = linear(form, "graddrop(leak=[0, 0.5])")
    row = measure(model, y, tmp_path, graddrop=gd.GradDrop(k=0.0))
    after = row.pop("norm_after")
    assert after == pytest.approx(
        math.sqrt(2.5**2 + 2**2 + 2**2 + 4**2)
    ) or after == pytest.approx(math.sqrt(1 + 4 + 4 + 16))
    expected = {
        **BY_HAND,
        "kept_share": (4 / 3 + 2 * (1 / 2 + 1 / 6) + 2) / 8,
        "hypothetical_kept_share": (2 * 0.5 + 2 * 0.5 + 2 * 0.5) / 8,
    }
    del expected["norm_after"]
    assert row == pytest.approx(expected, rel=1e-6)


def test_random_graddrop_is_measured_by_its_own_f(tmp_path):
    """A fair coin keeps half of every sum; there is none at two values."""
    row = measure(*linear("heads", "random_graddrop"), tmp_path)
    assert row["kept_share"] == pytest.approx(3 / 8)
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
    g = [[[3, 0, -4], [3, 0, -4]], [[-1, 2, 0], [-2, 4, 0]]]
    total = np.tensordot(w, g, axes=1)
    for name in ("norm_before", "norm_after"):
        assert row[name] == pytest.approx(np.linalg.norm(total), rel=1e-6)


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
        head = next(x for x in model._flatten_layers() if x.name == "head_0")
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


def everything(form, eager):
    """A model with much that has a state: masks, moving averages, seeds."""
    inputs = keras.Input([6])
    hidden = keras.layers.Dense(5)(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.2)(hidden)

    def head(name, branch):
        return keras.layers.Dense(
            1, activity_regularizer=keras.regularizers.L2(0.01), name=name
        )(branch)

    if form == "layer":
        branches = gd.GradDrop(num_losses=2)(hidden)
        model = keras.Model(
            inputs, [head(n, b) for n, b in zip("ab", branches)]
        )
    else:
        shared = keras.Input([5])
        model = gd.MultiLossModel(
            keras.Model(inputs, hidden),
            keras.Model(shared, [head(n, shared) for n in "ab"]),
            gd.Recipe.parse("gradnorm+graddrop"),
        )
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        "mse",
        run_eagerly=eager,
        jit_compile=False,
    )
    return model


def three_batches():
    x, y = batch(12)
    data = tf.data.Dataset.from_tensor_slices((x, (y[:, :1], y[:, 1:2])))
    return data.batch(4)


@pytest.mark.parametrize(("form", "eager"), [("layer", False), ("model", True)])
def test_measuring_changes_nothing(form, eager, tmp_path):
    """Weights, moving averages, seeds, steps, Python's random numbers."""
    states = []
    for path in (None, tmp_path / "gradients.csv"):
        keras.utils.set_random_seed(5)
        callbacks = []
        if path is not None:
            held = next(iter(three_batches()))
            callbacks = [gd.GradientMonitor(held, every_steps=1, path=path)]
        model = everything(form, eager)
        data = three_batches().shuffle(2, seed=3)
        model.fit(data, verbose=0, shuffle=False, callbacks=callbacks)
        variables = [*model.variables, *model.optimizer.variables]
        states.append([np.asarray(v) for v in variables] + [random.random()])
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(read(tmp_path / "gradients.csv")) == 3


def test_making_a_monitor_shifts_no_layer_names():
    first = int(gd.GradDrop().name.rpartition("_")[2])
    gd.GradientMonitor((X, Y))
    assert gd.GradDrop().name == f"grad_drop_{first + 1}"


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
        measure = monitor_lib.GradientMonitor((X, y))
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


def in_turn(num_batches):
    """Batches of `linear` whose gradients are 1, 2, ... times as long."""
    y = np.stack([Y * (i + 1) for i in range(num_batches)])
    x = np.stack([X] * num_batches)
    return tf.data.Dataset.from_tensor_slices((x, (y[..., :1], y[..., 1:])))


def norms(path):
    """Returns the steps and the lengths of `BY_HAND` in a file."""
    return [
        (row["step"], round(row["norm_before"] / math.sqrt(57), 4))
        for row in read(path)
    ]


def test_batches_are_taken_in_turn_and_the_end_of_an_epoch_is_sampled(
    tmp_path,
):
    model, _ = linear("heads", "baseline")
    path = tmp_path / "new" / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(3), every_steps=2, path=path)
    options = {"callbacks": [callback], "verbose": 0, "shuffle": False}
    history = model.fit(in_turn(5), epochs=2, **options).history
    model.fit(in_turn(1), **options)
    expected = [(2, 1), (4, 2), (6, 3), (8, 1), (10, 2), (11, 3)]
    assert norms(path) == expected
    for name in QUANTITIES:
        rows = [row[name] for row in read(path)]
        assert history[f"gradients/{name}"] == pytest.approx(
            [np.mean(rows[:2]), np.mean(rows[2:5])]
        )


def test_several_steps_in_one_execution(tmp_path):
    """A sample is due after each; the batch's number follows the step."""
    model, _ = linear(
        "heads", "baseline", steps_per_execution=3, run_eagerly=False
    )
    path = tmp_path / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(8), every_steps=1, path=path)
    model.fit(in_turn(8), callbacks=[callback], verbose=0, shuffle=False)
    assert norms(path) == [(3, 3), (6, 6), (8, 8)]


def test_accumulation_counts_every_batch(tmp_path):
    model, _ = linear(
        "heads",
        "baseline",
        optimizer=keras.optimizers.SGD(0.0, gradient_accumulation_steps=2),
    )
    path = tmp_path / "gradients.csv"
    callback = gd.GradientMonitor(in_turn(4), every_steps=2, path=path)
    model.fit(in_turn(8), callbacks=[callback], verbose=0, shuffle=False)
    assert norms(path) == [(2, 1), (4, 2), (6, 3), (8, 4)]


def test_a_killed_and_resumed_run_ends_with_the_same_file(tmp_path):
    """Rows after the restored step and the start of a row are dropped."""
    x, y = batch(12)
    data = tf.data.Dataset.from_tensor_slices((x, (y[:, :1], y[:, 1:2])))

    def train(model, path, epochs, first=0):
        monitor = gd.GradientMonitor(data.batch(3), every_steps=1, path=path)
        model.fit(
            data.batch(6),
            initial_epoch=first,
            epochs=epochs,
            verbose=0,
            shuffle=False,
            callbacks=[monitor],
        )

    def build():
        keras.utils.set_random_seed(7)
        inputs = keras.Input([6])
        features = keras.layers.Dense(4)(inputs)
        outputs = [keras.layers.Dense(1)(f) for f in gd.GradDrop(2)(features)]
        model = keras.Model(inputs, outputs)
        model.compile(
            keras.optimizers.SGD(0.1), ["mse", "mse"], run_eagerly=True
        )
        return model

    straight, killed = tmp_path / "straight.csv", tmp_path / "killed.csv"
    train(build(), straight, epochs=3)
    model = build()
    train(model, killed, epochs=1)
    model.save(tmp_path / "model.keras")
    train(model, killed, epochs=2, first=1)
    with open(killed, "a") as file:
        file.write("1")
    resumed = keras.saving.load_model(tmp_path / "model.keras")
    resumed.run_eagerly = True
    train(resumed, killed, epochs=3, first=1)
    assert [row["step"] for row in read(straight)] == [1, 2, 3, 4, 5, 6]
    assert killed.read_text() == straight.read_text()
    assert not list(tmp_path.glob("*.tmp"))


def test_later_callbacks_and_tensorboard_see_the_samples(tmp_path):
    model, y = linear("vector", "baseline")
    monitor = gd.GradientMonitor((X, y), every_steps=2, log_dir=tmp_path)
    later = keras.callbacks.CSVLogger(tmp_path / "metrics.csv")
    fit(model, y, steps=4, callbacks=[monitor, later])
    with open(tmp_path / "metrics.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    for name in QUANTITIES:
        value = float(row[f"gradients/{name}"])
        assert value == pytest.approx(BY_HAND[name])
    (path,) = tmp_path.glob("events*")
    written = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = event_pb2.Event.FromString(record.numpy())
        for value in event.summary.value:
            number = float(tf.make_ndarray(value.tensor))
            written.setdefault(value.tag, {})[event.step] = number
    assert written == {
        f"gradients/{name}": {
            step: pytest.approx(BY_HAND[name]) for step in (2, 4)
        }
        for name in QUANTITIES
    }


def test_a_model_that_is_compiled_again_starts_again():
    model, y = linear("heads", "baseline", run_eagerly=False)
    monitor = gd.GradientMonitor(in_turn(3), every_steps=1)
    norm = BY_HAND["norm_before"]
    first = fit(model, y, steps=2, callbacks=[monitor])
    assert first["gradients/norm_before"] == pytest.approx([norm * (1 + 2) / 2])
    model.compile(
        keras.optimizers.SGD(0.0),
        [product] * 2,
        loss_weights=[5.0, 5.0],
        run_eagerly=True,
    )
    second = fit(model, y, callbacks=[monitor])
    assert second["gradients/norm_before"] == pytest.approx([5 * norm])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"data": X}, "`data` takes a batch"),
        ({"data": (X,)}, "`data` takes a batch"),
        ({"data": tf.data.Dataset.from_tensors(X)}, "`data` takes a batch"),
        ({"every_steps": 0}, "`every_steps` must be a positive integer"),
        ({"graddrop": "graddrop"}, "`graddrop` takes a gd.GradDrop"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        gd.GradientMonitor(**{"data": (X, Y), **arguments})


def test_what_does_not_fit_is_told(tmp_path):
    plain = keras.Sequential([keras.Input([3]), keras.layers.Dense(2)])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="which is neither"):
        fit(plain, Y, callbacks=[gd.GradientMonitor((X, Y))])
    for form in ("layer", "heads"):
        model, y = linear(form, "baseline")
        three = gd.GradientMonitor((X, y), graddrop=gd.GradDrop(leak=[0, 1, 0]))
        with pytest.raises(ValueError, match="3 leaks for 2 losses"):
            fit(model, y, callbacks=[three])
        assert int(model.optimizer.iterations) == 0
    empty = in_turn(1).take(0)
    with pytest.raises(ValueError, match="at least one batch"):
        fit(model, y, callbacks=[gd.GradientMonitor(empty)])
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,0.5\n")
    with pytest.raises(ValueError, match="has other columns"):
        fit(model, y, callbacks=[gd.GradientMonitor((X, y), path=path)])
    assert path.read_text() == "step,loss\n1,0.5\n"
