import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import fitting
from tests.graddrop_tf.models import (
    FEW,
    LAYER,
    NUM_LOSSES,
    VECTOR,
    batch,
    largest_difference,
    trainable,
)

_BATCH, _FEATURES = 16, 8


def _optimizer():
    inner = keras.optimizers.Adam(
        0.01, weight_decay=0.1, gradient_accumulation_steps=2
    )
    return keras.optimizers.LossScaleOptimizer(inner)


def _fitted(strategy, **options):
    with strategy.scope():
        model = VECTOR.compiled(
            "clip(1.0)+gradnorm+graddrop(seed=1)", _optimizer(), **options
        )
    x, y = batch(5 * _BATCH)
    history = model.fit(
        x, y, batch_size=_BATCH, epochs=2, shuffle=False, verbose=0
    )
    # The last batch has one example: one replica has none.
    tested = model.evaluate(x[:23], y[:23], batch_size=11, verbose=0)
    return trainable(model), [*history.history["loss"], *tested]


def test_switches_on_two_replicas_equal_one(mirrored):
    """Accumulation, loss scaling; executions of two steps, then of one."""
    one, two = (
        _fitted(strategy, steps_per_execution=2)
        for strategy in (tf.distribute.get_strategy(), mirrored(2))
    )
    assert largest_difference(one[0], two[0]) < 1e-5
    np.testing.assert_allclose(one[1], two[1], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_bad_replica_skips_the_step_on_all(bad, mirrored):
    with mirrored(2).scope():
        model = VECTOR.compiled(
            "gradnorm+graddrop",
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)),
        )
    x, y = batch(_BATCH)
    poisoned = y.copy()
    # The second replica's half.
    poisoned[_BATCH // 2 :, 1] = bad
    scale = float(model.optimizer.initial_scale)
    before = trainable(model)
    model.fit(x, poisoned, batch_size=_BATCH, shuffle=False, verbose=0)
    assert largest_difference(before, trainable(model)) == 0
    assert float(model.optimizer.dynamic_scale.numpy()) == scale / 2
    weights = model.recipe_state.weighting.current_weights()
    np.testing.assert_array_equal(weights, np.ones(NUM_LOSSES))
    model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0)
    after = trainable(model)
    assert 0 < largest_difference(before, after) < np.inf


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [*((r, VECTOR) for r in FEW), ("mgda+graddrop", LAYER)],
)
def test_all_switches_on_two_replicas(recipe, kind, mirrored):
    """In half precision; then both micro-batches are bad on one replica."""
    keras.config.set_dtype_policy("mixed_float16")
    with mirrored(2).scope():
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.05, gradient_accumulation_steps=2),
            initial_scale=64.0,
        )
        model = fitting.train_on_replicas(
            kind.compiled(recipe, optimizer, steps_per_execution=2)
        )
    x, y = batch(8 * _BATCH)
    options = {"batch_size": _BATCH, "shuffle": False, "verbose": 0}
    first, last = model.fit(x, kind.labels(y), epochs=2, **options).history[
        "loss"
    ]
    assert last < first
    before = trainable(model)
    x, y = batch(2 * _BATCH)
    y[_BATCH // 2 : _BATCH] = np.nan
    y[-_BATCH // 2 :] = np.nan
    model.fit(x, kind.labels(y), **options)
    assert largest_difference(before, trainable(model)) == 0
    assert float(model.optimizer.dynamic_scale.numpy()) == 16.0


@pytest.mark.parametrize("recipe", FEW)
def test_lowers_the_loss_in_bfloat16_on_two_replicas(recipe, mirrored):
    keras.config.set_dtype_policy("mixed_bfloat16")
    with mirrored(2).scope():
        model = VECTOR.compiled(recipe, steps_per_execution=2)
    x, y = batch(8 * _BATCH)
    first, last = model.fit(
        x, y, batch_size=_BATCH, epochs=2, shuffle=False, verbose=0
    ).history["loss"]
    assert last < first


@pytest.mark.parametrize("recipe", FEW)
def test_three_steps_at_once_equal_one_after_the_other(recipe):
    x, y = batch(6 * _BATCH)
    results = []
    for options in {}, {"steps_per_execution": 3}:
        model = VECTOR.compiled(recipe, **options)
        model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0)
        results.append(trainable(model))
    assert largest_difference(*results) < 1e-6


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_two_half_batches_equal_a_whole_one(num_replicas, mirrored):
    strategy = tf.distribute.get_strategy()
    if num_replicas > 1:
        strategy = mirrored(num_replicas)
    x, y = batch(4 * _BATCH)
    results = []
    for size, steps in (2 * _BATCH, None), (_BATCH, 2):
        with strategy.scope():
            model = VECTOR.compiled(
                "baseline",
                keras.optimizers.SGD(0.05, gradient_accumulation_steps=steps),
            )
        model.fit(x, y, batch_size=size, shuffle=False, verbose=0)
        results.append(trainable(model))
    assert largest_difference(*results) < 1e-6


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("graddrop", NUM_LOSSES * _FEATURES),
        ("graddrop(sync_replicas=False)", 0),
        ("pcgrad", NUM_LOSSES**2),
        ("mgda", NUM_LOSSES**2),
        ("gradnorm", 2 * NUM_LOSSES),
        ("clip(1.0)", 0),
    ],
)
def test_floats_that_replicas_exchange_in_a_step(
    recipe, expected, mirrored, monkeypatch
):
    with mirrored(2).scope():
        model = VECTOR.compiled(recipe)
    sizes = []
    original = tf.distribute.ReplicaContext.all_reduce

    def counting(self, op, value, *arguments, **options):
        sizes.extend(
            tensor.shape.num_elements() for tensor in tf.nest.flatten(value)
        )
        return original(self, op, value, *arguments, **options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", counting)
    x, y = batch(_BATCH)
    model.fit(x, y, batch_size=_BATCH, verbose=0)
    gradients = sum(w.size for w in trainable(model))
    # Each of the two replicas traces the step.
    assert sum(sizes) == 2 * (expected + gradients)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_fit_traces_a_step_once(num_replicas, mirrored, monkeypatch):
    """A step that creates the optimizer's variables would be traced twice."""
    traced = []
    train_step = gd.MultiLossModel.train_step

    def counted(model, data):
        traced.append(model)
        return train_step(model, data)

    monkeypatch.setattr(gd.MultiLossModel, "train_step", counted)
    strategy = tf.distribute.get_strategy()
    with (strategy if num_replicas == 1 else mirrored(2)).scope():
        model = VECTOR.compiled("graddrop", keras.optimizers.Adam(0.01))
    model.fit(*batch(2 * _BATCH), batch_size=_BATCH, verbose=0)
    assert len(traced) == num_replicas


def test_xla_is_refused_on_several_replicas(mirrored):
    with mirrored(2).scope():
        model = fitting.train_on_replicas(LAYER.build("graddrop"))
        LAYER.compile(model, jit_compile=True)
    x, y = batch(4)
    with pytest.raises(ValueError, match="one replica only.* 2 replicas"):
        model.fit(x, LAYER.labels(y), verbose=0)


def test_averages_of_accumulated_steps_are_refused(mirrored):
    optimizer = keras.optimizers.Adam(
        use_ema=True, gradient_accumulation_steps=2
    )
    with pytest.raises(ValueError, match="use_ema=True"):
        fitting.synchronize_optimizer(optimizer)


def test_one_replica_keeps_what_keras_has():
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    before = set(vars(model))
    assert gd.MultiLossModel.fit is keras.Model.fit
    assert fitting.train_on_replicas(model) is model
    assert set(vars(model)) == before


def test_logs_of_a_batch_are_those_of_all_replicas(mirrored):
    """A callback that looks at a loss sees the same on every worker."""
    seen = []
    with mirrored(2).scope():
        inputs = keras.Input([1])
        outputs = keras.layers.Dense(1, kernel_initializer="ones")(inputs)
        model = gd.train_on_replicas(keras.Model(inputs, outputs))
        model.compile(keras.optimizers.SGD(0.0), loss="mse")
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["loss"])
    )
    # One replica has errors of 0 and 2, the other of 2 and 4.
    x = np.array([[0.0], [2.0], [2.0], [4.0]], np.float32)
    model.fit(x, 0 * x, batch_size=4, callbacks=[note], verbose=0)
    np.testing.assert_allclose(seen, [(0 + 4 + 4 + 16) / 4], rtol=1e-6)
