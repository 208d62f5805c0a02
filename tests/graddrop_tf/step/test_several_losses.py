"""Losses of several outputs, of which one or more may be vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf import models
from tests.graddrop_tf.models import squared_errors

L = keras.layers
# The labels of two tasks in one output, and of a third in another.
NAMES = ["hat", "smile"]


def _parts(names=("pair", "third"), as_dict=False):
    """Returns the same weights for the same names."""
    keras.utils.set_random_seed(2)
    inputs, shared = keras.Input([6]), keras.Input([8])
    trunk = keras.Model(inputs, L.Dense(8, activation="tanh")(inputs))
    outputs = {n: L.Dense(1 + (n == "pair"), name=n)(shared) for n in names}
    return trunk, keras.Model(
        shared, outputs if as_dict else list(outputs.values())
    )


def _labels(y, names=("pair", "third")):
    parts = {"pair": y[:, :2], "third": y[:, 2:]}
    return [parts[n] for n in names]


def _trained(model, x, y, steps=3, **options):
    for _ in range(steps):
        logs = model.train_on_batch(x, y, return_dict=True, **options)
    return models.trainable(model), logs


def _as_three_losses(recipe, loss_weights=None, **options):
    """Returns the right weights: one loss for each of three outputs."""
    trunk, heads = _parts()
    shared = heads.input
    pair, third = heads.output
    model = gd.MultiLossModel(
        trunk,
        keras.Model(shared, [pair[:, :1], pair[:, 1:], third]),
        recipe=recipe,
    )
    model.compile(_sgd(), ["mse"] * 3, loss_weights=loss_weights)
    x, y = models.batch()
    return _trained(model, x, [y[:, i : i + 1] for i in range(3)], **options)


def _sgd():
    return keras.optimizers.SGD(0.05)


VECTOR = gd.VectorLoss(squared_errors, names=NAMES)
FORMS = {
    "list": ([VECTOR, "mse"], {}),
    "dict": ({"third": "mse", "pair": VECTOR}, {}),
    "dict_of_outputs": ({"pair": VECTOR, "third": "mse"}, {"as_dict": True}),
    "two_vectors": ([VECTOR, gd.VectorLoss("mse", names=["third"])], {}),
}


@pytest.mark.parametrize("recipe", ["graddrop(seed=1)", "gradnorm", "pcgrad"])
@pytest.mark.parametrize("form", FORMS)
def test_a_vector_among_losses_counts_as_its_tasks(form, recipe):
    loss, outputs = FORMS[form]
    model = gd.MultiLossModel(*_parts(**outputs), recipe=recipe)
    model.compile(_sgd(), loss)
    assert model.recipe_state.loss_names == (*NAMES, "third")
    x, y = models.batch()
    given = _labels(y)
    if outputs:
        given = dict(zip(("pair", "third"), given, strict=True))
    weights, logs = _trained(model, x, given)
    expected, right = _as_three_losses(recipe)
    assert models.largest_difference(weights, expected) < 1e-6
    values = [logs[f"{name}_loss"] for name in (*NAMES, "third")]
    assert logs["loss"] == pytest.approx(sum(values), rel=1e-5)
    assert logs["loss"] == pytest.approx(right["loss"], rel=1e-5)
    evaluated = model.evaluate(x, given, verbose=0, return_dict=True)
    assert {"hat_loss", "smile_loss", "third_loss"} < {*evaluated}


@pytest.mark.parametrize("chunks", [None, 2])
def test_leaks_and_weights_by_name(chunks):
    """Each task has a leak, and a weight of the loss that holds it."""
    recipe = gd.GradDrop(leak={"smile": 1.0, "third": 0.5}, seed=1)
    model = gd.MultiLossModel(*_parts(), recipe, loss_chunk_size=chunks)
    model.compile(
        _sgd(),
        {"pair": VECTOR, "third": "mse"},
        loss_weights={"pair": {"hat": 3.0}, "third": 0.25},
    )
    x, y = models.batch()
    weights, _ = _trained(model, x, _labels(y))
    right = gd.GradDrop(leak=[0.0, 1.0, 0.5], seed=1)
    expected, _ = _as_three_losses(right, loss_weights=[3.0, 1.0, 0.25])
    assert models.largest_difference(weights, expected) < 1e-6


STRUCTURES = {
    "tuple": (lambda a, b: (a, b), {}),
    "dict": (lambda a, b: {"pair": a, "third": b}, {}),
    "nested": (lambda a, b: {"u": [a], "v": b}, {"nested": True}),
}


@pytest.mark.parametrize("form", STRUCTURES)
def test_weights_of_the_tasks_in_any_structure(form):
    pack, options = STRUCTURES[form]
    trunk, heads = _parts()
    if options:
        pair, third = heads.output
        heads = keras.Model(heads.input, pack(pair, third))
    model = gd.MultiLossModel(trunk, heads)
    model.compile(
        _sgd(), pack(VECTOR, "mse"), loss_weights=pack([3.0, 1.0], 0.25)
    )
    x, y = models.batch()
    given = pack(*_labels(y)) if form != "tuple" else _labels(y)
    weights, _ = _trained(model, x, given)
    expected, _ = _as_three_losses("baseline", loss_weights=[3.0, 1.0, 0.25])
    assert models.largest_difference(weights, expected) < 1e-6


@pytest.mark.parametrize(
    "weights",
    [[1.0], [1.0, 2.0, 3.0], {"third": 2.0}, [[1.0, 2.0], [1.0, 2.0]]],
)
def test_weights_that_do_not_fit_are_told_of(weights):
    model = gd.MultiLossModel(*_parts())
    with pytest.raises(ValueError, match="`loss_weights` must be one number"):
        model.compile(_sgd(), [VECTOR, "mse"], loss_weights=weights)


def test_tasks_of_one_name_are_told_apart_by_their_outputs():
    same = gd.VectorLoss("mse", names=["third", "smile"])
    model = gd.MultiLossModel(*_parts(), recipe="graddrop")
    model.compile(_sgd(), [same, "mse"])
    names = ("pair_third", "pair_smile", "third")
    assert model.recipe_state.loss_names == names
    x, y = models.batch()
    logs = model.train_on_batch(x, _labels(y), return_dict=True)
    assert {f"{name}_loss" for name in names} < {*logs}


def test_tasks_that_nothing_tells_apart_are_refused():
    shared = keras.Input([8])
    heads = keras.Model(shared, [L.Dense(2)(shared), L.Dense(2)(shared)])
    model = gd.MultiLossModel(keras.Sequential([L.Dense(8)]), heads)
    model.compile(_sgd(), [gd.VectorLoss("mse"), gd.VectorLoss("mse")])
    x, y = models.batch()
    with pytest.raises(ValueError, match="needs a name of its own"):
        model.train_on_batch(x, [y[:, :2], y[:, 1:]])
    losses = [gd.VectorLoss("mse", name=name) for name in ("a", "b")]
    model.compile(_sgd(), losses)
    model.train_on_batch(x, [y[:, :2], y[:, 1:]])
    assert model.recipe_state.loss_names == ("a_0", "a_1", "b_0", "b_1")


def test_a_number_weighs_the_whole_vector():
    weighted = VECTOR.with_loss_weights([3.0, 1.0])
    model = gd.MultiLossModel(*_parts())
    model.compile(_sgd(), [weighted, "mse"], loss_weights=[0.5, 2.0])
    x, y = models.batch()
    weights, _ = _trained(model, x, _labels(y))
    expected, _ = _as_three_losses("baseline", loss_weights=[1.5, 0.5, 2.0])
    assert models.largest_difference(weights, expected) < 1e-6
    model = gd.MultiLossModel(*_parts())
    model.compile(_sgd(), [VECTOR, "mse"], loss_weights=[[1.5, 0.5], 2.0])
    weights, _ = _trained(model, x, _labels(y))
    assert models.largest_difference(weights, expected) < 1e-6


def test_sample_weights_of_each_output():
    x, y = models.batch()
    first, second = np.linspace(0, 1, 16), np.linspace(2, 1, 16)
    model = gd.MultiLossModel(*_parts(), recipe="graddrop(seed=1)")
    model.compile(_sgd(), [VECTOR, "mse"])
    weights, _ = _trained(model, x, _labels(y), sample_weight=[first, second])
    expected, _ = _as_three_losses(
        "graddrop(seed=1)", sample_weight=[first, first, second]
    )
    assert models.largest_difference(weights, expected) < 1e-6


def test_tasks_without_names_are_numbered_behind_their_output():
    model = gd.MultiLossModel(*_parts())
    model.compile(_sgd(), [gd.VectorLoss(squared_errors), "mse"])
    assert model.recipe_state.loss_names == ("pair_0", "pair_1", "third")


def test_the_name_of_a_vector_is_that_of_an_output_without_one():
    _, heads = _parts()
    trunk = keras.Sequential([L.Dense(8)])
    model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
    model.compile(_sgd(), [gd.VectorLoss("mse", name="face"), "mae"])
    x, y = models.batch()
    logs = model.train_on_batch(x, _labels(y), return_dict=True)
    assert {"face_0_loss", "face_1_loss", "mae_loss"} < {*logs}


def test_an_output_without_a_loss_beside_a_vector():
    model = gd.MultiLossModel(*_parts(), recipe="graddrop")
    model.compile(_sgd(), [VECTOR, None])
    assert model.recipe_state.loss_names == ("hat", "smile")
    x, y = models.batch()
    before = models.trainable(model)
    weights, _ = _trained(model, x, _labels(y))
    moved = [np.any(a != b) for a, b in zip(weights, before, strict=True)]
    assert moved == [True] * 4 + [False] * 2


def test_a_vector_beside_others_needs_shared_activations():
    inputs = keras.Input([6])
    trunk = keras.Model(inputs, [L.Dense(8)(inputs), L.Dense(8)(inputs)])
    shared = [keras.Input([8]), keras.Input([8])]
    heads = keras.Model(shared, [L.Dense(2)(shared[0]), L.Dense(1)(shared[1])])
    model = gd.MultiLossModel(trunk, heads, separate=True)
    with pytest.raises(ValueError, match="one loss for each"):
        model.compile(_sgd(), [VECTOR, "mse"])


@pytest.mark.parametrize("reduction", ["none", None])
def test_losses_that_are_not_reduced_are_refused(reduction):
    loss = keras.losses.MeanSquaredError(reduction=reduction)
    model = gd.MultiLossModel(*_parts())
    for given in (loss, [loss, "mse"], {"pair": "mse", "third": loss}):
        with pytest.raises(
            ValueError, match=r"one value for the batch.*reduct"
        ):
            model.compile(_sgd(), given)

    class Own(keras.losses.Loss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return tf.reduce_sum(y_pred, axis=1)

    model.compile(_sgd(), ["mse", Own()])
    x, y = models.batch()
    with pytest.raises(
        ValueError, match=r"one value.*'third' of shape \(16,\)"
    ):
        model.train_on_batch(x, _labels(y))


def test_weights_without_losses_are_refused():
    model = gd.MultiLossModel(*_parts())
    with pytest.raises(ValueError, match="loss=None"):
        model.compile(_sgd(), loss_weights=[1.0, 2.0])


Y_TRUE = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
Y_PRED = np.array([[0.5, 0.25], [0.25, 0.5], [0.75, 0.5]], np.float32)
# Squares 1/4, 9/16, 1/16 and 9/16, 1/4, 1/4.
SQUARES = [14 / 48, 17 / 48]
BY_COLUMN = {
    "mse": SQUARES,
    "mean_squared_error": SQUARES,
    "mae": [1.5 / 3, 1.75 / 3],
    "binary_crossentropy": [
        -np.log([0.5, 0.25, 0.75]).mean(),
        -np.log([0.25, 0.5, 0.5]).mean(),
    ],
}


@pytest.mark.parametrize("name", BY_COLUMN)
def test_a_loss_by_name_is_taken_column_by_column(name):
    expected = BY_COLUMN[name]
    function = keras.losses.get(name)
    forms = [name, function]
    cls = {"mse": "MeanSquaredError", "mae": "MeanAbsoluteError"}.get(name)
    if cls:
        make = getattr(keras.losses, cls)
        forms += [make(), make(reduction="none"), make(reduction=None)]
    for form in forms:
        loss = gd.VectorLoss(form)
        values = loss.values(Y_TRUE, Y_PRED)
        np.testing.assert_allclose(values, expected, rtol=1e-5)
        again = gd.VectorLoss.from_config(loss.get_config())
        np.testing.assert_allclose(again.values(Y_TRUE, Y_PRED), values)


SINGLE_VALUES = [
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "hinge",
    "huber",
    "log_cosh",
    "mae",
    "mape",
    "mse",
    "msle",
    "poisson",
    "squared_hinge",
]


@pytest.mark.parametrize("name", SINGLE_VALUES)
def test_each_column_has_the_value_that_it_has_alone(name):
    values = gd.VectorLoss(name).values(Y_TRUE, Y_PRED)
    for i in range(2):
        column = slice(i, i + 1)
        alone = keras.losses.get(name)(Y_TRUE[:, column], Y_PRED[:, column])
        np.testing.assert_allclose(values[i], np.mean(alone), rtol=1e-5)


def test_arguments_of_a_loss_act():
    loss = gd.VectorLoss(
        keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    )
    smooth = 0.9 * Y_TRUE + 0.05
    right = np.log1p(np.exp(Y_PRED)) - smooth * Y_PRED
    np.testing.assert_allclose(
        loss.values(Y_TRUE, Y_PRED), right.mean(axis=0), rtol=1e-5
    )
    double = gd.VectorLoss(keras.losses.Huber(dtype="float64"))
    assert double.values(Y_TRUE, Y_PRED).dtype == tf.float64


def test_a_loss_of_the_users_own_class():
    class Own(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return tf.square(y_true - y_pred)

    values = gd.VectorLoss(Own()).values(Y_TRUE, Y_PRED)
    np.testing.assert_allclose(values, SQUARES, rtol=1e-6)


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        ("categorical_crossentropy", "compares the columns"),
        (keras.losses.CosineSimilarity(), "compares the columns"),
        (keras.losses.kl_divergence, "compares the columns"),
        (keras.losses.Loss(), "compares the columns"),
        (keras.metrics.MeanSquaredError(), "compares the columns"),
        ("msee", "or a Keras loss or its name.*'msee'"),
        (keras.losses.MeanSquaredError("sum"), "reduction='sum'"),
        (
            keras.losses.MeanSquaredError("mean_with_sample_weight"),
            "mean_with_sample_weight",
        ),
    ],
)
def test_other_losses_are_refused(fn, said):
    with pytest.raises(ValueError, match=said):
        gd.VectorLoss(fn)


def test_labels_of_another_rank_are_refused():
    with pytest.raises(ValueError, match="must have the shape of the output"):
        gd.VectorLoss("mse").values(Y_TRUE[:, 0], Y_PRED)


def test_a_model_with_a_loss_by_name_is_saved(tmp_path):
    model = gd.MultiLossModel(*_parts(("pair",)), recipe="graddrop(seed=1)")
    model.compile(_sgd(), gd.VectorLoss("mse", names=NAMES))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x, y = models.batch()
    ours, right = (_trained(m, x, y[:, :2])[0] for m in (loaded, model))
    for one, other in zip(ours, right, strict=True):
        np.testing.assert_array_equal(one, other)
