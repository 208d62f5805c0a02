import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import (
    HEADS,
    LAYER,
    NAMES,
    VECTOR,
    batch,
    keras_version,
    largest_difference,
    trainable,
)


def dense(units, **options):
    return keras.layers.Dense(units, **options)


def parts(num_heads=2, features=4, trunk_layers=()):
    inputs = keras.Input([3])
    hidden = dense(features, activation="tanh")(inputs)
    for layer in trunk_layers:
        hidden = layer(hidden)
    trunk = keras.Model(inputs, hidden)
    shared = keras.Input([features])
    outputs = [dense(1, name=f"head_{i}")(shared) for i in range(num_heads)]
    return trunk, keras.Model(shared, outputs)


def data(size=8, num_heads=2):
    random = np.random.RandomState(3)
    x = random.randn(size, 3).astype("float32")
    y = [random.randn(size, 1).astype("float32") for _ in range(num_heads)]
    return x, y


@pytest.mark.parametrize("kind", [HEADS, VECTOR])
@pytest.mark.parametrize("weights", [None, dict(zip(NAMES, (1.0, 0.5, 3.0)))])
def test_baseline_trains_as_a_plain_keras_model(kind, weights):
    model = kind.build("baseline")
    kind.compile(model, keras.optimizers.Adam(0.01), loss_weights=weights)
    plain = gd.inference_model(kind.build("baseline"))
    plain.compile(
        keras.optimizers.Adam(0.01),
        loss=model.loss,
        loss_weights=weights if kind is HEADS else None,
    )
    for _ in range(3):
        ours = kind.train(model)
        theirs = kind.train(plain)
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert largest_difference(trainable(model), trainable(plain)) < 1e-6


def test_heads_receive_the_gradient_of_their_own_losses():
    """The methods act on the trunk alone."""
    for recipe in ("mgda", "graddrop", "pcgrad"):
        model = HEADS.compiled(recipe)
        plain = HEADS.compiled("baseline")
        HEADS.train(model)
        HEADS.train(plain)
        difference = [
            np.abs(a - b).max()
            for a, b in zip(
                model.get_weights()[:8], plain.get_weights()[:8], strict=True
            )
        ]
        assert max(difference[2:]) < 1e-7, recipe
        assert difference[0] > 1e-4, recipe


def test_layer_and_model_give_the_same_weights():
    recipe = "graddrop(leak=[0.2, 0, 0], seed=4)"
    layer, model = LAYER.build(recipe), HEADS.build(recipe)
    layer.set_weights(model.get_weights())
    LAYER.compile(layer)
    HEADS.compile(model)
    LAYER.train(layer, steps=5)
    HEADS.train(model, steps=5)
    assert largest_difference(trainable(layer), trainable(model)) < 1e-6


@pytest.mark.parametrize("recipe", ["baseline", "graddrop(leak=1.0)"])
def test_regularisers_and_added_losses_train_both_halves(recipe):
    """As in plain Keras, whose gradient these recipes give."""

    def layer(units, **options):
        return dense(
            units,
            kernel_regularizer=keras.regularizers.L2(0.1),
            activity_regularizer=keras.regularizers.L2(0.2),
            **options,
        )

    keras.utils.set_random_seed(0)
    inputs, shared = keras.Input([3]), keras.Input([4])
    trunk = keras.Model(inputs, layer(4)(inputs))
    hidden = layer(4)(shared)
    outputs = [dense(1, name="a")(hidden), layer(1, name="b")(hidden)]
    heads = keras.Model(shared, outputs)
    model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    plain = keras.models.clone_model(keras.Model(inputs, heads(trunk(inputs))))
    plain.set_weights(model.get_weights())
    x, y = data()
    for m in (model, plain):
        m.compile(keras.optimizers.SGD(0.1), loss=["mse", "mae"])
        for _ in range(3):
            m.train_on_batch(x, y)
    assert largest_difference(trainable(model), trainable(plain)) < 1e-6


def test_trunk_and_heads_may_name_layers_alike():
    inputs, shared = keras.Input([3]), keras.Input([3])
    trunk = keras.Model(inputs, dense(3, name="same")(inputs))
    heads = keras.Model(shared, dense(1, name="same")(shared))
    model = gd.MultiLossModel(trunk, heads)
    plain = keras.models.clone_model(keras.Model(inputs, heads(trunk(inputs))))
    plain.set_weights(model.get_weights())
    x, (y,) = data(num_heads=1)
    for m in (model, plain):
        m.compile(keras.optimizers.SGD(0.1), loss="mse")
        m.train_on_batch(x, y)
    assert largest_difference(trainable(model), trainable(plain)) < 1e-6


def test_regularisers_and_added_losses_are_not_masked():
    """A method that drops everything leaves exactly the added terms."""

    class DropAll(gd.Combiner):
        def combine(self, gradients, activations):
            return [tf.zeros_like(g) for g in gradients]

    inputs = keras.Input([3])
    hidden = dense(
        4,
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L2(0.2),
    )(inputs)
    trunk = keras.Model(inputs, hidden)
    shared = keras.Input([4])
    head = dense(1, name="y", activity_regularizer=keras.regularizers.L2(0.3))
    heads = keras.Model(shared, head(shared))
    model = gd.MultiLossModel(
        trunk, heads, recipe=gd.Recipe(combiners=[DropAll()])
    )
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    x, y = data(num_heads=1)
    kernel, bias, head_kernel, head_bias = model.get_weights()[:4]
    # Keras' activity regularizers are sums over the batch before 3.14.
    size = len(x) if keras_version() >= (3, 14) else 1
    with tf.GradientTape() as tape:
        k, b = tf.Variable(kernel), tf.Variable(bias)
        a = x @ k + b
        out = a @ head_kernel + head_bias
        added = 0.1 * tf.reduce_sum(k**2)
        added += 0.2 * tf.reduce_sum(a**2) / size
        added += 0.3 * tf.reduce_sum(out**2) / size
    expected = tape.gradient(added, [k, b])
    logs = model.train_on_batch(x, y, return_dict=True)
    np.testing.assert_allclose(
        model.get_weights()[0], kernel - expected[0], atol=1e-6
    )
    np.testing.assert_allclose(
        model.get_weights()[1], bias - expected[1], atol=1e-6
    )
    mse = np.mean((out - y[0]) ** 2)
    assert logs["loss"] == pytest.approx(float(added + mse), rel=1e-5)


@pytest.mark.parametrize(("kind", "size"), [(HEADS, 1), (VECTOR, 2)])
@pytest.mark.parametrize(
    "recipe",
    [
        "graddrop(leak=[0, 0.3, 1], seed=1)",
        "graddrop(marginalize_batch=False, seed=1)",
        "graddrop(renormalize=True, k=0.5, seed=1)",
        "gradnorm+random_graddrop(seed=1)",
        "gradnorm",
    ],
)
def test_chunks_give_the_same_weights(recipe, size, kind):
    whole, chunked = (
        kind.build(recipe),
        kind.build(recipe, loss_chunk_size=size),
    )
    for model in (whole, chunked):
        kind.compile(model)
        kind.train(model, steps=3)
    assert largest_difference(trainable(whole), trainable(chunked)) < 1e-6


def test_a_nan_is_seen_in_chunks():
    model = HEADS.build("graddrop", loss_chunk_size=1)
    model.compile("sgd", loss=["mse", lambda t, p: p[:, 0] * np.nan, "mse"])
    HEADS.train(model)
    assert np.all(np.isnan(model.trunk.get_weights()[0]))


@pytest.mark.parametrize("recipe", ["pcgrad", "mgda", "mgda+graddrop"])
def test_methods_that_need_all_gradients_refuse_chunks(recipe):
    with pytest.raises(ValueError, match="needs all gradients at once"):
        HEADS.build(recipe, loss_chunk_size=2)


def separated(recipe, **options):
    """A trunk applied to two inputs, a head and a loss for each."""
    keras.utils.set_random_seed(2)
    shared = dense(4, activation="tanh")
    inputs = [keras.Input([3], name=n) for n in ("source", "target")]
    trunk = keras.Model(inputs, [shared(x) for x in inputs])
    features = [keras.Input([4]) for _ in inputs]
    outputs = [
        dense(2, name="to_source")(features[0]),
        dense(1, name="to_target")(features[1]),
    ]
    heads = keras.Model(features, outputs)
    recipe = gd.Recipe.parse(recipe)
    model = gd.MultiLossModel(
        trunk, heads, recipe=recipe, separate=True, **options
    )
    model.compile(keras.optimizers.SGD(0.1), loss=["mse", "mse"])
    return model


def separated_data():
    random = np.random.RandomState(0)
    x = [random.randn(n, 3).astype("float32") for n in (8, 4)]
    y = [random.randn(n, m).astype("float32") for n, m in ((8, 2), (4, 1))]
    return [tf.constant(a) for a in x], [tf.constant(b) for b in y]


@pytest.mark.parametrize(
    "recipe",
    [
        "baseline",
        "graddrop(leak=[1, 0], k=0.25, renormalize=True)",
        "pcgrad",
        "mgda",
        "gradnorm+graddrop",
        "penalty(0.1)+clip(1.0)+random_graddrop",
    ],
)
def test_batch_separated_losses_of_different_batch_sizes(recipe):
    model = separated(recipe)
    x, y = separated_data()
    step = tf.function(lambda: model.train_step((x, y)))
    first = float(step()["loss"])
    for _ in range(50):
        last = float(step()["loss"])
    assert np.isfinite(last) and last < first


def test_batch_separated_pcgrad_is_the_identity():
    models = [separated(r) for r in ("baseline", "pcgrad")]
    x, y = separated_data()
    for model in models:
        model.train_step((x, y))
    assert largest_difference(*map(trainable, models)) < 1e-7


def test_batch_separated_mgda_has_the_closed_form():
    """Orthogonal gradients: weights inverse to their squared norms."""
    model = separated("mgda")
    (xs, xt), (ys, yt) = separated_data()
    with tf.GradientTape(persistent=True) as tape:
        activations = model.trunk([xs, xt])
        tape.watch(activations)
        out = model.heads(activations)
        losses = [tf.reduce_mean((o - t) ** 2) for o, t in zip(out, (ys, yt))]
    g = [tape.gradient(loss, a) for loss, a in zip(losses, activations)]
    inverse = np.array([1 / np.sum(np.square(x)) for x in g])
    weights = inverse / inverse.sum()
    with tf.GradientTape() as trunk_tape:
        activations = model.trunk([xs, xt])
    kernel = model.trunk.trainable_variables[0]
    before = kernel.numpy()
    expected = trunk_tape.gradient(
        activations,
        kernel.value,
        output_gradients=[w * x for w, x in zip(weights, g)],
    )
    model.train_step(([xs, xt], [ys, yt]))
    np.testing.assert_allclose(
        kernel.numpy(), before - 0.1 * expected, atol=1e-6
    )


def test_a_loss_of_another_batch_is_refused():
    inputs = [keras.Input([3]), keras.Input([3])]
    shared = dense(4)
    trunk = keras.Model(inputs, [shared(x) for x in inputs])
    features = [keras.Input([4]), keras.Input([4])]
    mixed = keras.layers.Add()(features)
    heads = keras.Model(features, [dense(1)(mixed), dense(1)(features[1])])
    model = gd.MultiLossModel(trunk, heads, recipe="graddrop", separate=True)
    model.compile("sgd", loss="mse")
    x, y = data()
    with pytest.raises(ValueError, match="depends on those of"):
        model.train_on_batch([x, x], y)


def test_losses_shown_are_means_over_all_examples():
    """Batches of 4, 4 and 3; one weight of each sample for all losses."""
    model = HEADS.compiled("graddrop")
    x, y = batch(11)
    labels = HEADS.labels(y)
    weight = np.linspace(0.0, 2.0, 11, dtype=np.float32)
    outputs = model.predict(x, verbose=0)
    squares = [
        ((o - t) ** 2)[:, 0] for o, t in zip(outputs, labels, strict=True)
    ]
    for sample_weight in (None, weight):
        tensors = (x, tuple(labels), sample_weight)
        dataset = tf.data.Dataset.from_tensor_slices(
            tensors if sample_weight is not None else tensors[:2]
        )
        logs = model.evaluate(dataset.batch(4), verbose=0, return_dict=True)
        factors = 1.0 if sample_weight is None else sample_weight
        means = [np.mean(factors * s) for s in squares]
        for name, mean in zip(NAMES, means, strict=True):
            assert logs[f"{name}_loss"] == pytest.approx(mean, rel=1e-5)
        assert logs["loss"] == pytest.approx(sum(means), rel=1e-5)


def test_frozen_trunk_and_frozen_heads():
    for frozen in ("trunk", "heads"):
        model = HEADS.build("graddrop")
        getattr(model, frozen).trainable = False
        HEADS.compile(model)
        before = [w.numpy() for w in getattr(model, frozen).weights]
        others = trainable(model)
        HEADS.train(model)
        after = [w.numpy() for w in getattr(model, frozen).weights]
        assert largest_difference(before, after) == 0
        assert largest_difference(others, trainable(model)) > 0


def test_dict_of_outputs_in_any_order():
    inputs = keras.Input([3])
    trunk = keras.Model(inputs, dense(4)(inputs))
    shared = keras.Input([4])
    heads = keras.Model(shared, {"b": dense(1)(shared), "a": dense(1)(shared)})
    leak = {"a": 1.0, "b": 0.0}
    model = gd.MultiLossModel(
        trunk, heads, recipe=gd.Recipe(combiners=[gd.GradDrop(leak=leak)])
    )
    model.compile("sgd", loss={"b": "mae", "a": "mse"})
    x, y = data()
    logs = model.train_on_batch(x, {"a": y[0], "b": y[1]}, return_dict=True)
    out = model.predict(x, verbose=0)
    assert set(out) == {"a", "b"}
    assert {"a_loss", "b_loss"} <= set(logs)
    (drop,) = model.recipe_state.combiner.combiners
    names = drop.loss_names
    values = model.per_loss_values({"a": y[0], "b": y[1]}, out)
    expected = {
        "a": np.mean((out["a"] - y[0]) ** 2),
        "b": np.mean(np.abs(out["b"] - y[1])),
    }
    for name, value in zip(names, values, strict=True):
        assert float(value) == pytest.approx(expected[name], rel=1e-5)
    assert drop.leaks(2) == [leak[name] for name in names]


def test_leak_by_name_is_the_leak_by_position():
    models = []
    for leak in ({"c": 1.0, "a": 0.5}, [0.5, 0.0, 1.0]):
        recipe = gd.Recipe(combiners=[gd.GradDrop(leak=leak, seed=0)])
        model = VECTOR.build("baseline")
        model = gd.MultiLossModel(model.trunk, model.heads, recipe=recipe)
        VECTOR.compile(model)
        VECTOR.train(model, steps=2)
        models.append(trainable(model))
    assert largest_difference(*models) == 0


def test_outputs_without_a_loss_take_no_part():
    trunk, heads = parts(3)
    model = gd.MultiLossModel(trunk, heads, recipe=gd.Recipe.parse("gradnorm"))
    model.compile("sgd", loss=["mse", None, "mse"])
    assert model.recipe_state.weighting.num_losses == 2
    x, y = data(num_heads=3)
    before = model.heads.get_layer("head_1").get_weights()[0]
    model.train_step((tf.constant(x), [tf.constant(t) for t in y]))
    after = model.heads.get_layer("head_1").get_weights()[0]
    np.testing.assert_array_equal(before, after)


def test_recurrent_trunk_and_heads_train():
    inputs = keras.Input([5, 3])
    trunk = keras.Model(
        inputs, keras.layers.LSTM(4, return_sequences=True)(inputs)
    )
    shared = keras.Input([5, 4])
    heads = keras.Model(
        shared, [dense(1)(keras.layers.GRU(3)(shared)) for _ in range(2)]
    )
    model = gd.MultiLossModel(trunk, heads, recipe=gd.Recipe.parse("graddrop"))
    model.compile(keras.optimizers.Adam(0.05), loss="mse")
    x = np.random.RandomState(0).randn(16, 5, 3).astype("float32")
    y = [x[:, :, 0].sum(axis=1), x[:, :, 1].sum(axis=1)]
    history = model.fit(x, y, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


def test_penalty_equals_a_calculation_with_finite_gradients():
    factor = 0.7
    trunk, heads = parts(2)
    recipe = gd.Recipe(gradient_penalty=factor)
    model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    x, y = data()
    plain = gd.inference_model(model)

    def objective():
        total = penalty = 0.0
        for i in range(len(x)):
            row = tf.constant(x[i : i + 1])
            with tf.GradientTape() as tape:
                tape.watch(row)
                out = plain(row, training=True)
                loss = tf.add_n(
                    [
                        tf.reduce_mean((o - t[i : i + 1]) ** 2)
                        for o, t in zip(out, y, strict=True)
                    ]
                )
            penalty += tf.reduce_sum(tape.gradient(loss, row) ** 2)
            total += loss
        return (total + factor * penalty) / len(x)

    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = objective()
    expected = [
        v.numpy() - 0.1 * g
        for v, g in zip(
            variables,
            tape.gradient(value, [v.value for v in variables]),
            strict=True,
        )
    ]
    logs = model.train_on_batch(x, y, return_dict=True)
    assert logs["loss"] == pytest.approx(float(value), rel=1e-5)
    assert largest_difference(trainable(model), expected) < 1e-6


def test_penalty_needs_a_float_input():
    tokens = keras.Input([5], dtype="int32")
    embedded = keras.layers.Embedding(7, 4)(tokens)
    trunk = keras.Model(tokens, keras.layers.Flatten()(embedded))
    shared = keras.Input([20])
    heads = keras.Model(shared, dense(1)(shared))
    recipe = gd.Recipe(gradient_penalty=1.0)
    model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="float dtype"):
        model.train_on_batch(np.ones([2, 5], "int32"), np.ones([2, 1]))


def test_bad_models():
    trunk, heads = parts()
    layer = dense(4)
    inputs = keras.Input([3])
    shared = keras.Input([4])
    tied_trunk = keras.Model(inputs, layer(dense(4)(inputs)))
    tied_heads = keras.Model(shared, layer(shared))
    for bad, said in [
        ((trunk, "heads"), "Keras model or layer"),
        ((heads, heads), "in both"),
        ((tied_trunk, tied_heads), "in both"),
        ((parts(features=5)[0], heads), "must take what"),
    ]:
        with pytest.raises(ValueError, match=said):
            gd.MultiLossModel(*bad)
    with pytest.raises(ValueError, match="Known names"):
        gd.MultiLossModel(trunk, heads, recipe="graddrap")
    for size in (0, 1.5, True):
        with pytest.raises(ValueError, match="loss_chunk_size"):
            gd.MultiLossModel(trunk, heads, loss_chunk_size=size)
    with pytest.raises(ValueError, match="share their activations"):
        separated("graddrop", loss_chunk_size=1)


def test_bad_losses():
    trunk, heads = parts(2)
    model = gd.MultiLossModel(trunk, heads)
    vector = gd.VectorLoss(lambda t, p: t - p)
    for loss, said in [
        (["mse"], "1 losses for the outputs"),
        ({"head_9": "mse"}, "no output for"),
        (vector, "one output"),
    ]:
        with pytest.raises(ValueError, match=said):
            model.compile("sgd", loss=loss)
    with pytest.raises(ValueError, match="Batch-separated activations"):
        separated("graddrop").compile("sgd", loss=["mse", None])
    model.compile("sgd")
    x, y = data()
    with pytest.raises(
        ValueError, match="Provide a `loss` argument in `compile"
    ):
        model.train_on_batch(x, y)
    recipe = gd.Recipe(combiners=[gd.GradDrop(leak=[0.0, 0.0, 1.0])])
    refused = gd.MultiLossModel(trunk, heads, recipe=recipe)
    for _ in range(2):
        with pytest.raises(ValueError, match="3 values for 2 losses"):
            refused.compile(loss="mse")
    recipe = gd.Recipe(combiners=[gd.GradDrop(leak={"head_7": 1.0})])
    with pytest.raises(ValueError, match="no such loss"):
        gd.MultiLossModel(trunk, heads, recipe=recipe).compile(loss="mse")


def test_xla_with_several_replicas_is_refused(mirrored):
    with mirrored(2).scope():
        model = HEADS.build("graddrop")
        with pytest.raises(ValueError, match="one replica only"):
            model.compile("sgd", loss="mse", jit_compile=True)


def test_compiling_for_another_number_of_losses_is_refused():
    trunk, heads = parts(2)
    model = gd.MultiLossModel(trunk, heads, recipe=gd.Recipe.parse("gradnorm"))
    model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="weights for 2 losses"):
        model.compile("sgd", loss=["mse", None])


def test_masks_are_equal_on_any_number_of_replicas(mirrored):
    """Without marginalisation each replica has its slice of the draw."""
    recipe = "graddrop(marginalize_batch=False, seed=5)"
    x, y = batch(16)
    results = []
    for replicas in (1, 2, 4):
        with mirrored(replicas).scope():
            model = LAYER.compiled(recipe)
        model.fit(x, LAYER.labels(y), batch_size=16, verbose=0, shuffle=False)
        results.append(trainable(model))
    assert largest_difference(results[0], results[1]) < 1e-6
    assert largest_difference(results[0], results[2]) < 1e-6


@pytest.mark.parametrize("recipe", ["graddrop", "pcgrad", "mgda"])
def test_unsynchronized_replicas_decide_alone(recipe, mirrored):
    results = []
    for sync in (True, False):
        text = f"{recipe}(sync_replicas={sync})"
        with mirrored(2).scope():
            model = HEADS.compiled(text)
        x, y = batch(16)
        model.fit(x, HEADS.labels(y), batch_size=16, verbose=0, shuffle=False)
        results.append(trainable(model))
    assert largest_difference(*results) > 1e-5


@pytest.mark.parametrize("size", [None, 2])
def test_synchronized_batch_norm_in_the_heads(size, mirrored):
    results = []
    for count in (1, 2):
        with mirrored(count).scope():
            keras.utils.set_random_seed(0)
            inputs = keras.Input([6])
            trunk = keras.Model(inputs, dense(8, activation="tanh")(inputs))
            shared = keras.Input([8])
            hidden = keras.layers.BatchNormalization(synchronized=True)(shared)
            heads = keras.Model(shared, dense(len(NAMES))(hidden))
            model = gd.MultiLossModel(
                trunk,
                heads,
                recipe=gd.Recipe.parse("graddrop(seed=1)"),
                loss_chunk_size=size,
            )
            VECTOR.compile(model)
        x, y = batch(48)
        model.fit(x, y, batch_size=16, verbose=0, shuffle=False)
        results.append(trainable(model))
    assert largest_difference(*results) < 1e-5
