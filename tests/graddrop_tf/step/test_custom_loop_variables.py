"""Variables of a custom loop in any nesting, and those without a gradient."""

import collections
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.step.test_past_activations import (
    Net,
    assert_close,
    batch,
    expected,
    gradients,
)

Pair = collections.namedtuple("Pair", ["low", "rest"])


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("recipe", ["baseline", "mgda"])
def test_gradients_have_the_nesting_of_the_variables(recipe, as_function):
    net, data = Net(), batch()
    flat = [*net.heads, net.low, net.top]
    want = {v.name: g for v, g in zip(flat, wanted(net, data, recipe, flat))}

    def check(variables, names):
        got = gradients(net, data, recipe, variables, as_function)
        assert_same_nesting(got, names)
        assert_close(
            tf.nest.flatten(got), [want[n] for n in tf.nest.flatten(names)]
        )

    low, top, head, other = "v1:0", "v2:0", "v3:0", "v4:0"
    assert [v.name for v in net.trainable_variables] == [head, other, low, top]
    check(net, [head, other, low, top])
    check(net.low, low)
    check(net.heads, [head, other])
    check(
        (net.low, {"b": [net.top], "a": net}),
        (
            low,
            {"b": [top], "a": [head, other, low, top]},
        ),
    )
    check([net.low, net.top, net.low], [low, top, low])
    check(Pair(net.low, (net.top,)), Pair(low, (top,)))


def wanted(net, data, recipe, variables):
    if recipe != "baseline":
        return expected(net, data, recipe, variables)
    with tf.GradientTape() as tape:
        total = tf.add_n(net.losses(*net.features(data[0]), data[1]))
    return tape.gradient(total, variables)


def assert_same_nesting(got, want):
    """Lists, tuples, named tuples and dicts, each as itself."""
    if isinstance(want, (list, tuple)):
        assert isinstance(got, type(want)) and len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert_same_nesting(a, b)
    elif isinstance(want, dict):
        assert set(got) == set(want)
        for key in want:
            assert_same_nesting(got[key], want[key])
    else:
        assert isinstance(got, (tf.Tensor, tf.IndexedSlices))


def keras_parts():
    """A trunk with weights that are not trained, and heads of Keras."""
    inputs, shared = keras.Input([5]), keras.Input([4])
    x = keras.layers.Dense(4, name="dense")(inputs)
    trunk = keras.Model(inputs, keras.layers.BatchNormalization(name="bn")(x))
    return trunk, keras.Model(shared, keras.layers.Dense(2)(shared))


def keras_gradients(trunk, heads, variables):
    x, y = batch()
    state = gd.Recipe.parse("baseline").build(num_losses=2)
    with tf.GradientTape(persistent=True) as tape:
        shared = trunk(x, training=False)
        losses = tf.reduce_mean((heads(shared) - y) ** 2, axis=0)
        total = tf.reduce_sum(losses)
    got = gd.compute_gradients(tape, losses, shared, variables, state)
    return got, lambda v: tape.gradient(total, [w.value for w in v])


def test_models_and_layers_become_lists():
    trunk, heads = keras_parts()
    dense = trunk.get_layer("dense")
    got, plain = keras_gradients(
        trunk, heads, {"trunk": trunk, "rest": (heads, dense, dense.bias)}
    )
    assert_close(got["trunk"], plain(trunk.trainable_variables))
    assert_close(got["rest"][0], plain(heads.trainable_variables))
    assert_close(got["rest"][1], plain(dense.trainable_variables))
    assert_close([got["rest"][2]], plain([dense.bias]))
    optimizer = keras.optimizers.SGD()
    optimizer.apply_gradients(
        zip(got["trunk"], trunk.trainable_variables, strict=True)
    )


def test_variables_without_a_gradient_are_named():
    trunk, heads = keras_parts()
    unused = tf.Variable(1.0, name="unused")
    ours = keras.Variable(1.0, name="other")
    variables = [*trunk.trainable_variables, unused, ours]
    with pytest.warns(UserWarning) as caught:
        got, plain = keras_gradients(trunk, heads, variables)
    (warning,) = [w for w in caught if "do not exist" in str(w.message)]
    assert f"['unused:0', '{ours.path}']" in str(warning.message)
    assert warning.filename == __file__
    assert got[-2:] == [None, None]
    assert_close(got[:-2], plain(trunk.trainable_variables))


def test_frozen_weights_get_what_the_tape_gives():
    trunk, heads = keras_parts()
    norm = trunk.get_layer("bn")
    with pytest.warns(UserWarning, match="moving_mean"):
        got, _ = keras_gradients(
            trunk, heads, [norm.gamma, tf.Variable(0.0, name="moving_mean")]
        )
    assert got[0] is not None and got[1] is None


def test_ordinary_variables_cause_no_warning():
    trunk, heads = keras_parts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_gradients(trunk, heads, [trunk, heads])
        net = Net()
        for recipe in ("baseline", "pcgrad", "mgda", "graddrop"):
            gradients(net, batch(), recipe, net)
            gradients(net, batch(), recipe, [])


@pytest.mark.parametrize("recipe", ["baseline", "mgda"])
def test_no_gradient_at_all_is_an_error(recipe):
    unused = {"a": tf.Variable(1.0, name="x"), "b": keras.Variable(1.0)}
    with pytest.raises(ValueError, match=r"No gradients provided.*'x:0'"):
        gradients(Net(), batch(), recipe, unused)


@pytest.mark.parametrize("wrong", [None, "kernel", tf.constant(1.0), 3])
def test_what_is_no_variable_is_refused(wrong):
    net = Net()
    with pytest.raises(ValueError, match=r"`variables` must be.*Received"):
        gradients(net, batch(), "baseline", [net.low, {"a": wrong}])


def test_a_variable_given_twice_counts_once_in_the_norm():
    net, data = Net(), batch()
    with tf.GradientTape() as tape:
        total = tf.add_n(net.losses(*net.features(data[0]), data[1]))
    gradient = tape.gradient(total, net.low).numpy()
    want = gradient * 0.01 / np.linalg.norm(gradient)
    got = gradients(net, data, "clip(0.01)", [net.low, net.low])
    np.testing.assert_array_equal(got[0], got[1])
    np.testing.assert_allclose(got[0], want, rtol=1e-5)
