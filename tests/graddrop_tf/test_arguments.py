"""Every argument of Keras' methods acts, as it does in a plain Keras model."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf import models

KIND = models.Kind("shared")
SIZE = 16


class Counts(keras.callbacks.Callback):
    """Counts batches of training, evaluation and prediction."""

    def __init__(self):
        super().__init__()
        self.counts = {"train": 0, "test": 0, "predict": 0}

    def on_train_batch_end(self, batch, logs=None):
        self.counts["train"] += 1

    def on_test_batch_end(self, batch, logs=None):
        self.counts["test"] += 1

    def on_predict_batch_end(self, batch, logs=None):
        self.counts["predict"] += 1


def _data(labels="numbers"):
    x, y = models.batch(SIZE)
    if labels == "classes":
        return x, (y[:, 0] > 0).astype("int32")
    return x, KIND.labels(y)


def _pair(labels="numbers"):
    """Returns a plain model and ours, of the same weights and names."""
    ours = KIND.build("baseline")
    if labels == "classes":
        shared = keras.Input([8])
        head = keras.layers.Dense(2, activation="softmax", name="a")
        ours = gd.MultiLossModel(ours.trunk, keras.Model(shared, head(shared)))
    plain = keras.models.clone_model(gd.inference_model(ours))
    plain.set_weights(ours.get_weights())
    plain.output_names = list(ours.output_names)
    return plain, ours


def _compile(model, labels="numbers", **options):
    loss = "sparse_categorical_crossentropy"
    if labels == "numbers":
        loss = dict.fromkeys(models.NAMES, "mse")
    given = {"optimizer": keras.optimizers.SGD(0.05), "loss": loss, **options}
    model.compile(**given)


def _trace(model, counts, result):
    """Returns all that a call left: results, weights and counts."""
    keep = {} if result is None else {"result": result}
    flat = keras.tree.flatten(
        [dict(sorted(keep.items())), model.get_weights(), counts.counts]
    )
    return [np.asarray(value, np.float64) for value in flat]


def _fit(model, labels="numbers", **options):
    keras.utils.set_random_seed(3)
    counts = Counts()
    options["callbacks"] = [counts, *options.get("callbacks", [])]
    x, y = _data(labels)
    given = {"shuffle": False, "verbose": 0, "batch_size": 8, **options}
    history = model.fit(x, y, **given).history
    return _trace(model, counts, [history[k] for k in sorted(history)])


def _evaluate(model, x=None, y=None, **options):
    counts = Counts()
    options["callbacks"] = [counts, *options.get("callbacks", [])]
    known = _data()
    given = {"verbose": 0, "batch_size": 8, "return_dict": True, **options}
    x, y = (known[0] if x is None else x), (known[1] if y is None else y)
    result = model.evaluate(x, y, **given)
    if isinstance(result, dict):
        result = [result[k] for k in sorted(result)]
    return _trace(model, counts, result)


def _predict(model, x=None, **options):
    counts = Counts()
    options["callbacks"] = [counts, *options.get("callbacks", [])]
    given = {"verbose": 0, "batch_size": 8, **options}
    x = _data()[0] if x is None else x
    return _trace(model, counts, model.predict(x, **given))


def _same(first, second, tolerance=1e-5):
    return len(first) == len(second) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=1e-6)
        for a, b in zip(first, second, strict=True)
    )


def _parameters(method):
    _, *names = inspect.signature(method).parameters
    return {n for n in names if n != "kwargs"}


class Halves(keras.callbacks.Callback):
    """Halves the learning rate after an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        rate.assign(0.5 * rate)


_X, _Y = _data()
_WEIGHTS = [np.linspace(0, i + 1, SIZE) for i in range(3)]
VALIDATION = {"validation_data": (-_X, _Y)}
# What is compared with the second: the same call without the argument.
FIT = {
    "batch_size": ({"batch_size": 4}, {}),
    "epochs": ({"epochs": 2}, {}),
    "callbacks": ({"callbacks": [Halves()], "epochs": 2}, {"epochs": 2}),
    "validation_split": ({"validation_split": 0.5}, {}),
    "validation_data": (VALIDATION, {}),
    "shuffle": ({"shuffle": True, "batch_size": 4}, {"batch_size": 4}),
    "sample_weight": ({"sample_weight": _WEIGHTS}, {}),
    "initial_epoch": ({"epochs": 2, "initial_epoch": 1}, {"epochs": 2}),
    "steps_per_epoch": ({"steps_per_epoch": 1}, {}),
    "validation_steps": ({**VALIDATION, "validation_steps": 1}, VALIDATION),
    "validation_batch_size": (
        {**VALIDATION, "validation_batch_size": 4},
        VALIDATION,
    ),
    "validation_freq": (
        {**VALIDATION, "validation_freq": 2, "epochs": 2},
        {**VALIDATION, "epochs": 2},
    ),
}
EVALUATE = {
    "x": {"x": -_X},
    "y": {"y": [-y for y in _Y]},
    "batch_size": {"batch_size": 4},
    "sample_weight": {"sample_weight": _WEIGHTS},
    "steps": {"steps": 1},
}
PREDICT = {
    "x": {"x": -_X},
    "batch_size": {"batch_size": 4},
    "steps": {"steps": 1},
}


@pytest.mark.parametrize("name", FIT)
def test_arguments_of_fit(name):
    options, without = FIT[name]
    traces = []
    for given in (options, without):
        plain, ours = _pair()
        for model in (plain, ours):
            _compile(model)
        expected, found = _fit(plain, **given), _fit(ours, **given)
        assert _same(found, expected)
        traces.append(found)
    assert not _same(*traces)


def test_class_weights():
    traces = []
    for options in ({"class_weight": {0: 0.25, 1: 4.0}}, {}):
        plain, ours = _pair("classes")
        for model in (plain, ours):
            _compile(model, "classes")
        traces.append(_fit(ours, "classes", **options))
        assert _same(traces[-1], _fit(plain, "classes", **options))
    assert not _same(*traces)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_verbose(method, capsys):
    _, model = _pair()
    _compile(model)
    x, y = _data()
    labels = [] if method == "predict" else [y]
    for verbose in (0, 2):
        getattr(model, method)(x, *labels, verbose=verbose)
        assert bool(capsys.readouterr().out) == bool(verbose)


@pytest.mark.parametrize("name", EVALUATE)
def test_arguments_of_evaluate(name):
    plain, ours = _pair()
    for model in (plain, ours):
        _compile(model)
    found = _evaluate(ours, **EVALUATE[name])
    assert _same(found, _evaluate(plain, **EVALUATE[name]))
    assert not _same(found, _evaluate(ours))


def test_evaluate_returns_a_list_or_a_dict():
    plain, ours = _pair()
    x, y = _data()
    for model in (plain, ours):
        _compile(model)
    as_list = ours.evaluate(x, y, verbose=0)
    assert as_list == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-5)
    expected = plain.evaluate(x, y, verbose=0, return_dict=True)
    as_dict = ours.evaluate(x, y, verbose=0, return_dict=True)
    assert as_dict == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", PREDICT)
def test_arguments_of_predict(name):
    plain, ours = _pair()
    found = _predict(ours, **PREDICT[name])
    assert _same(found, _predict(plain, **PREDICT[name]))
    assert not _same(found, _predict(ours))


class Twice(keras.optimizers.SGD):
    """An optimizer of the user's own."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(2.0 * gradient, variable, learning_rate)


def _by_name(value):
    return dict.fromkeys(models.NAMES, value)


# With what each argument of `compile` is compared.
COMPILE = {
    "optimizer": ({"optimizer": Twice(0.05)}, {}),
    "loss": ({"loss": _by_name("mae")}, {}),
    "loss_weights": (
        {"loss_weights": dict(zip(models.NAMES, [2.0, 0.5, 0.0], strict=True))},
        {},
    ),
    "metrics": ({"metrics": _by_name(["mae"])}, {}),
    "weighted_metrics": (
        {"weighted_metrics": _by_name(["mae"])},
        {"metrics": _by_name(["mae"])},
    ),
    "steps_per_execution": ({"steps_per_execution": 2}, {}),
}


@pytest.mark.parametrize("name", COMPILE)
def test_arguments_of_compile(name):
    traces = []
    for given in COMPILE[name]:
        plain, ours = _pair()
        for model in (plain, ours):
            if "optimizer" in given:
                given = {"optimizer": Twice(0.05)}
            _compile(model, **given)
        weights = {"sample_weight": _WEIGHTS} if "metrics" in name else {}
        traces.append(_fit(ours, **weights))
        assert _same(traces[-1], _fit(plain, **weights))
    assert not _same(*traces)


@pytest.mark.parametrize("eagerly", [False, True])
def test_run_eagerly(eagerly):
    seen = []

    class Notes(keras.layers.Layer):
        def call(self, inputs):
            seen.append(tf.executing_eagerly())
            return inputs

    inputs, shared = keras.Input([6]), keras.Input([6])
    trunk = keras.Model(inputs, Notes()(inputs))
    heads = keras.Model(shared, keras.layers.Dense(1)(shared))
    model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
    model.compile("sgd", "mse", run_eagerly=eagerly)
    seen.clear()
    x, y = _data()
    model.fit(x, y[0], verbose=0)
    assert any(seen) == eagerly


@pytest.mark.parametrize("jit", [False, True])
def test_jit_compile(jit):
    """XLA cannot compile a call of Python."""

    class CallsPython(keras.layers.Layer):
        def call(self, inputs):
            values = tf.numpy_function(lambda x: x, [inputs], tf.float32)
            return inputs + tf.stop_gradient(tf.ensure_shape(values, [None, 6]))

    inputs, shared = keras.Input([6]), keras.Input([6])
    trunk = keras.Model(inputs, CallsPython()(inputs))
    heads = keras.Model(shared, keras.layers.Dense(1)(shared))
    model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
    model.compile("sgd", "mse", jit_compile=jit)
    x, y = _data()
    if not jit:
        model.train_on_batch(x, y[0])
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match="XLA|JIT"):
        model.train_on_batch(x, y[0])


@pytest.mark.parametrize("scales", [False, True])
def test_auto_scale_loss(scales):
    keras.config.set_dtype_policy("mixed_float16")
    model = KIND.build("graddrop")
    model.compile("sgd", "mse", auto_scale_loss=scales)
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == scales


def test_all_arguments_are_here():
    model = keras.Model
    elsewhere = {"verbose", "callbacks", "x", "y"}
    assert _parameters(model.fit) == {*FIT, "class_weight", *elsewhere}
    assert _parameters(model.evaluate) == {*EVALUATE, "return_dict", *elsewhere}
    assert _parameters(model.predict) == {*PREDICT, *elsewhere - {"y"}}
    assert _parameters(model.compile) == {
        *COMPILE,
        "run_eagerly",
        "jit_compile",
        "auto_scale_loss",
    }
