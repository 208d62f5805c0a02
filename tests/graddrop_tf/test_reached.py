"""Where gradients do not arrive, a warning says where and what to do."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf import models

KIND = models.Kind("shared")
L = keras.layers


def _texts(run):
    """Returns the warnings of this package's code in a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    texts = dict.fromkeys(str(w.message) for w in caught)
    return [
        t for t in texts if "radient" in t or "losses" in t or "recipe" in t
    ]


def _fit(model, count=2, **compiled):
    x, y = models.batch()
    y = KIND.labels(y)[:count]
    model.compile("sgd", ["mse"] * count, **compiled)
    return lambda: model.fit(x, y, batch_size=8, verbose=0)


def _layer_model(wire, layer=None, features=None):
    """Returns a model; `wire` maps features and branches to the outputs."""
    inputs = keras.Input([6])
    if features is None:
        features = L.Dense(4)(inputs)
    branches = (layer or gd.GradDrop(num_losses=2, name="drop"))(features)
    heads = [L.Dense(1)(t) for t in wire(features, branches)]
    return keras.Model(inputs, heads)


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize(
    ("wire", "branches"),
    [
        (lambda f, b: [b[0], f], "[1]"),
        (lambda f, b: [f, b[1]], "[0]"),
        (lambda f, b: [b[1], b[1]], "[0]"),
        (lambda f, b: [b[0], keras.ops.stop_gradient(b[1])], "[1]"),
    ],
)
def test_a_branch_without_a_gradient_is_named(wire, branches, eagerly):
    texts = _texts(_fit(_layer_model(wire), run_eagerly=eagerly))
    assert len(texts) == 1
    assert f"the branches {branches} of 2" in texts[0]
    assert "'drop'" in texts[0]


@pytest.mark.parametrize("eagerly", [False, True])
def test_branches_with_gradients_are_not_named(eagerly):
    model = _layer_model(lambda f, b: b)
    assert not _texts(_fit(model, run_eagerly=eagerly))
    x, y = models.batch()
    weighted = _fit(model, loss_weights=[1.0, 0.0], run_eagerly=eagerly)
    assert not _texts(weighted)
    assert not _texts(lambda: model.evaluate(x, KIND.labels(y)[:2], verbose=0))
    both = _layer_model(lambda f, b: [keras.ops.add(*b), b[1]])
    assert not _texts(_fit(both, run_eagerly=eagerly))


def test_each_gradient_that_is_asked_for_counts():
    layer = gd.GradDrop(num_losses=2, seed=1)
    weights = tf.Variable([[1.0, 2.0]])
    with tf.GradientTape(persistent=True) as tape:
        branches = layer(tf.ones([3, 1]) @ weights, training=True)
        a, b = map(tf.reduce_sum, branches)
        total = a + b
    assert not _texts(lambda: tape.gradient(total, weights))
    (text,) = _texts(lambda: tape.gradient(b, weights))
    assert "the branches [0] of 2" in text


def test_every_combiner_warns_and_chains_do_too():
    for name in ("pcgrad", "mgda", "random_graddrop"):
        layer = gd.Chain(
            [c.build() for c in gd.Recipe.parse(name).combiners], num_losses=3
        )
        model = _layer_model(lambda f, b: b[:2], layer)
        (text,) = _texts(_fit(model))
        assert "the branches [2] of 3" in text
        assert repr(layer.name) in text


def test_branches_of_several_tensors():
    """A loss may read one of the tensors, but has to read one."""
    inputs = keras.Input([6])
    maps = {"low": L.Dense(4)(inputs), "high": L.Dense(3)(inputs)}
    layer = gd.GradDrop(num_losses=2, name="drop")
    a, b = layer(maps)
    right = keras.Model(inputs, [L.Dense(1)(a["low"]), L.Dense(1)(b["high"])])
    assert not _texts(_fit(right))
    wrong = keras.Model(inputs, [L.Dense(1)(a["low"]), L.Dense(1)(a["high"])])
    (text,) = _texts(_fit(wrong))
    assert "the branches [1] of 2" in text


def test_the_watch_changes_no_gradient():
    x = tf.random.stateless_normal([5, 3], [1, 2])
    weights = tf.Variable(tf.random.stateless_normal([3, 4], [3, 4]))
    layer = gd.GradDrop(num_losses=2, seed=1)
    with tf.GradientTape() as tape:
        a, b = layer(x @ weights, training=True)
        loss = tf.reduce_sum(a * a) - tf.reduce_sum(b * b * b)
    got = tape.gradient(loss, weights)
    activations = x @ weights
    again = gd.GradDrop(num_losses=2, seed=1)
    expected = gd.combine(
        again, [2 * activations, -3 * activations**2], activations
    )
    right = tf.transpose(x) @ tf.add_n(expected)
    np.testing.assert_allclose(got, right, rtol=1e-5)


@pytest.mark.parametrize("trunk", ["functional", "built by a batch"])
@pytest.mark.parametrize("eagerly", [False, True])
def test_a_model_that_is_trained_from_outside(trunk, eagerly):
    def make(recipe):
        if trunk == "functional":
            return KIND.build(recipe)
        heads = KIND.build(recipe).heads
        return gd.MultiLossModel(
            keras.Sequential([L.Dense(8)]), heads, recipe=recipe, name="inner"
        )

    def outer(inner):
        inputs = keras.Input([6])
        return keras.Model(inputs, inner(inputs))

    inner = make("gradnorm+graddrop")
    (text,) = _texts(_fit(outer(inner), 3, run_eagerly=eagerly))
    assert repr(inner.name) in text
    assert "'gradnorm+graddrop'" in text
    for recipe in ("clip(1.0)", "penalty(0.1)"):
        assert len(_texts(_fit(outer(make(recipe)), 3))) == 1
    # The plain sum is what it wants, and its own step is its own.
    assert not _texts(_fit(outer(make("baseline")), 3, run_eagerly=eagerly))
    x, _ = models.batch()
    model = _fit(inner, 3, run_eagerly=eagerly)
    assert not _texts(model)
    assert not _texts(lambda: inner.predict(x, verbose=0))
    assert not _texts(lambda: inner(x, training=True))
    assert not _texts(lambda: _saliency(inner, x))
    frozen = make("graddrop")
    frozen.trainable = False
    inputs = keras.Input([6])
    ahead = keras.Model(inputs, [L.Dense(1)(t) for t in frozen(inputs)])
    assert not _texts(_fit(ahead, 3, run_eagerly=eagerly))


class Untold(keras.Model):
    """A model whose `call` takes no `training`."""

    def __init__(self, inner, heads):
        super().__init__(name="untold")
        self.inner, self.heads = inner, heads
        self.first = L.Dense(6)

    def call(self, inputs):
        branches = self.inner(self.first(inputs))
        pairs = zip(self.heads, branches, strict=True)
        return [head(branch) for head, branch in pairs]


class Told(Untold):
    """A model that takes it, and leaves the rest to Keras."""

    def call(self, inputs, training=None):
        del training
        return super().call(inputs)


@pytest.mark.parametrize("eagerly", [False, True])
def test_a_layer_that_is_not_told_of_training(eagerly):
    def make(cls):
        layer = gd.GradDrop(num_losses=2, name="drop")
        return cls(layer, [L.Dense(1), L.Dense(1)])

    model = make(Untold)
    (text,) = _texts(_fit(model, run_eagerly=eagerly))
    assert "'drop' passes all gradients" in text
    assert "`call` of 'untold'" in text
    assert int(model.inner.step) == 0
    x, _ = models.batch()
    assert not _texts(lambda: model.predict(x, verbose=0))
    told = make(Told)
    assert not _texts(_fit(told, run_eagerly=eagerly))
    assert int(told.inner.step) == 2


def test_a_model_inside_of_one_that_is_not_told_of_training():
    def make(recipe):
        inner = KIND.build(recipe)
        return Untold(inner, [L.Dense(1) for _ in range(3)])

    (text,) = _texts(_fit(make("graddrop"), 3))
    assert "from outside" in text
    assert not _texts(_fit(make("baseline"), 3))


def test_calls_that_no_model_makes_are_not_watched():
    x = tf.ones([2, 3])
    layer = gd.GradDrop(num_losses=2)
    assert all(branch is x for branch in layer(x))
    assert all(branch is x for branch in layer.call(x))
    inputs = keras.Input([6])
    model = keras.Model(inputs, gd.GradDrop(num_losses=2)(inputs))
    given = model(x := tf.ones([2, 6]))
    assert all(branch is x for branch in given)


def _saliency(model, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.add_n([tf.reduce_sum(y) for y in model(x, training=False)])
    assert np.any(tape.gradient(total, x))


def test_outputs_that_are_watched_keep_their_values_and_masks():
    tokens = keras.Input([4], dtype="int32")
    features = L.Embedding(5, 3, mask_zero=True)(tokens)
    shared = keras.Input([4, 3])
    trunk = keras.Model(tokens, features)
    heads = keras.Model(shared, L.LSTM(2, return_sequences=True)(shared))
    model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
    ids = np.array([[1, 2, 0, 0]])
    given = model(ids, training=True)
    plain = heads(trunk(ids))
    np.testing.assert_array_equal(given, plain)
    mask = keras.src.backend.get_keras_mask(plain)
    assert mask is not None
    kept = keras.src.backend.get_keras_mask(given)
    np.testing.assert_array_equal(kept, mask)


def _halves(wire, shapes=((4,),)):
    inputs = keras.Input([6])
    given = [L.Dense(*shape, activation="tanh")(inputs) for shape in shapes]
    shared = [keras.Input(t.shape[1:]) for t in given]
    one = len(given) == 1
    return (
        keras.Model(inputs, given[0] if one else given),
        keras.Model(
            shared[0] if one else shared,
            [L.Dense(1)(t) for t in wire(shared)],
        ),
    )


@pytest.mark.parametrize("recipe", ["graddrop", "gradnorm", "mgda+graddrop"])
def test_a_loss_that_does_not_depend_on_the_activations(recipe):
    chunks = 1 if recipe == "graddrop" else None
    parts = _halves(lambda s: [s[0], s[0], keras.ops.stop_gradient(s[0])])
    model = gd.MultiLossModel(*parts, recipe=recipe, loss_chunk_size=chunks)
    (text,) = _texts(_fit(model, 3))
    assert f"The losses ['{model.output_names[2]}']" in text
    parts = _halves(lambda s: [s[0]] * 3)
    model = gd.MultiLossModel(*parts, recipe=recipe, loss_chunk_size=chunks)
    assert not _texts(_fit(model, 3))


def test_losses_that_share_nothing():
    def parts():
        return _halves(lambda s: s, [(4,), (4,)])

    (text,) = _texts(_fit(gd.MultiLossModel(*parts(), recipe="graddrop")))
    assert "nothing to combine" in text
    assert "separate=True" in text
    apart = gd.MultiLossModel(*parts(), recipe="graddrop", separate=True)
    assert not _texts(_fit(apart))
    assert not _texts(_fit(gd.MultiLossModel(*parts())))
    both = _halves(lambda s: [s[0], L.Concatenate()(s)], [(4,), (4,)])
    assert not _texts(_fit(gd.MultiLossModel(*both, recipe="graddrop")))
    one = _halves(lambda s: s)
    assert not _texts(_fit(gd.MultiLossModel(*one, recipe="graddrop"), 1))


def test_a_loop_of_the_users_own():
    state = gd.Recipe.parse("graddrop").build(num_losses=2)
    weights = tf.Variable([[1.0, 2.0]])

    def step(second):
        with tf.GradientTape(persistent=True) as tape:
            activations = tf.constant([[1.0], [2.0]]) @ weights
            losses = [tf.reduce_sum(activations**2), second(activations)]
        gd.compute_gradients(tape, losses, activations, [weights], state)

    assert not _texts(lambda: step(tf.reduce_sum))
    (text,) = _texts(lambda: step(lambda a: tf.reduce_sum(weights)))
    assert "The losses ['1']" in text
