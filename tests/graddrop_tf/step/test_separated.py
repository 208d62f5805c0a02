"""Batch-separated losses with several tensors each, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests import reference
from tests.graddrop_tf.step.test_places import RECIPES

layers = keras.layers


@pytest.mark.parametrize("recipe", ["graddrop", "renormalized", "mgda"])
@pytest.mark.parametrize("use", ["model", "layer", "custom loop"])
def test_two_tensors_for_each_loss_equal_numpy(use, recipe):
    """Batches of 4 and 3; the trunk gives a dict of two tensors for each."""
    keras.utils.set_random_seed(4)
    inputs = [keras.Input([5]), keras.Input([5])]
    low, high = layers.Dense(3), layers.Dense(2)
    features = [{"low": low(x), "high": high(x)} for x in inputs]
    trunk = keras.Model(inputs, features)
    dense = [layers.Dense(1), layers.Dense(1)]
    shared = keras.tree.map_structure(
        lambda t: keras.Input(t.shape[1:]), features
    )

    def outputs_of(branches):
        return [
            d(layers.Concatenate()([b["low"], b["high"]]))
            for d, b in zip(dense, branches, strict=True)
        ]

    heads = keras.Model(shared, outputs_of(shared))
    model = gd.MultiLossModel(trunk, heads, RECIPES[recipe], separate=True)
    if use == "layer":
        (method,) = model.recipe.combiners
        branches = method.build(separate=True)(features)
        model = keras.Model(inputs, outputs_of(branches))
    model.compile(keras.optimizers.SGD(1.0), ["mse", "mse"])
    random = np.random.RandomState(5)
    x = [tf.constant(random.randn(n, 5), tf.float32) for n in (4, 3)]
    y = [tf.constant(random.randn(n, 1), tf.float32) for n in (4, 3)]
    variables = [v.value for v in trunk.trainable_variables]

    with tf.GradientTape(persistent=True) as trunk_tape:
        A = trunk(x)
    with tf.GradientTape(persistent=True) as heads_tape:
        heads_tape.watch(A)
        losses = [
            tf.reduce_mean((o - t) ** 2)
            for o, t in zip(heads(A), y, strict=True)
        ]
    g = [heads_tape.gradient(loss, a) for loss, a in zip(losses, A)]
    combined = [{}, {}]
    if recipe == "mgda":
        squares = [sum((b.numpy() ** 2).sum() for b in i.values()) for i in g]
        for i, w in enumerate(reference.min_norm_point(np.diag(squares))):
            combined[i] = {name: w * b for name, b in g[i].items()}
    else:
        for name, n in (("high", 2), ("low", 3)):
            masked = reference.graddrop(
                [g_i[name].numpy() for g_i in g],
                [a[name].numpy() for a in A],
                np.full(n, 0.5),
                [0.25, 0.0] if recipe == "renormalized" else [0.0, 0.0],
                lambda p: float(p > 0.5),
            )
            for i, m in enumerate(masked):
                combined[i][name] = tf.constant(m, tf.float32)
    if recipe == "renormalized":
        before, after = (
            tf.linalg.global_norm(tf.nest.flatten(s)) for s in (g, combined)
        )
        combined = tf.nest.map_structure(lambda t: before / after * t, combined)
    want = trunk_tape.gradient(A, variables, output_gradients=combined)

    if use == "custom loop":
        state = gd.Recipe.parse(RECIPES[recipe]).build(num_losses=2)
        with tf.GradientTape(persistent=True) as tape:
            A = trunk(x)
            losses = [
                tf.reduce_mean((o - t) ** 2)
                for o, t in zip(heads(A), y, strict=True)
            ]
        got = gd.compute_gradients(
            tape, losses, A, variables, state, separate=True
        )
    else:
        before = [v.numpy() for v in variables]
        tf.function(lambda: model.train_step((x, y)))()
        got = [b - v.numpy() for b, v in zip(before, variables, strict=True)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("recipe", ["graddrop", "mgda"])
def test_one_loss_in_a_list_of_one_is_plain_training(recipe, separate):
    """Keras gives the tensor itself where a model's outputs are `[tensor]`."""
    keras.utils.set_random_seed(1)
    inputs, shared = keras.Input([3]), keras.Input([4])
    trunk = keras.Model(inputs, [layers.Dense(4)(inputs)])
    heads = keras.Model([shared], layers.Dense(1)(shared))
    model = gd.MultiLossModel(trunk, heads, RECIPES[recipe], separate=separate)
    plain = keras.models.clone_model(gd.inference_model(model))
    plain.set_weights(model.get_weights())
    random = np.random.RandomState(0)
    x = random.randn(8, 3).astype("float32")
    y = random.randn(8, 1).astype("float32")
    for trained in (model, plain):
        trained.compile(keras.optimizers.SGD(0.1), "mse")
        trained.fit(x, y, batch_size=8, verbose=0)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
