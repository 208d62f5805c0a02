"""State of methods: kept, saved, resumed, and no weight of a model.

`files/` holds models of `tests.graddrop_tf.models`, saved after five steps by
the code that kept the step as a weight, and their trainable weights after three
steps more.
"""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import linalg
from tests.graddrop_tf import models
from tests.graddrop_tf.models import HEADS, LAYER, VECTOR

FILES = pathlib.Path(__file__).parent / "files"


class _RunningStream(gd.Streaming):
    def __init__(self, combiner):
        self._combiner = combiner

    def start(self, num_losses, activations):
        self._parts, self._norms = [], []

    def add(self, indices, gradients):
        combiner = self._combiner
        self._norms.append(combiner.norms(gradients))
        factors = tf.gather(combiner.state["mean"], list(indices))
        self._parts.extend(linalg.scale_each(gradients, factors))
        return self._parts

    def finish(self):
        self._combiner.average(tf.concat(self._norms, axis=0))
        return tf.add_n(self._parts)


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Running(gd.Combiner):
    """Scales each gradient by the mean of its norms in the steps before."""

    def initial_state(self, num_losses):
        return {"mean": tf.ones([num_losses]), "count": tf.zeros([], tf.int32)}

    def norms(self, gradients):
        squares = linalg.squared_norms(gradients, self.replica_sum)
        return tf.sqrt(squares)

    def average(self, norms):
        state = self.state
        count = state["count"] + 1
        off = (tf.cast(norms, tf.float32) - state["mean"]) * 0.5
        self.keep(mean=state["mean"] + off, count=count)

    def combine(self, gradients, activations):
        combined = linalg.scale_each(gradients, self.state["mean"])
        self.average(self.norms(gradients))
        return combined

    def streaming(self):
        return _RunningStream(self)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(gd.METHODS, "running", Running)


def push(layer, *slopes):
    """Sends gradients `slopes` to the branches of a layer of [1, 1] inputs."""
    x = tf.zeros([1, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        branches = layer(x, training=True)
        total = tf.add_n(
            [s * tf.reduce_sum(b) for s, b in zip(slopes, branches)]
        )
    return float(tape.gradient(total, x)[0, 0])


def test_a_layer_keeps_state_by_hand():
    layer = Running(num_losses=2)
    # Means (1, 1); then half of the way to the norms (3, 1).
    assert push(layer, 3.0, -1.0) == pytest.approx(2.0)
    np.testing.assert_allclose(layer.state["mean"], [2.0, 1.0])
    assert push(layer, 3.0, -1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(layer.state["mean"], [2.5, 1.0])
    assert int(layer.state["count"]) == int(layer.step) == 2


def test_each_of_a_chain_keeps_its_own():
    chain = gd.Chain([Running(), Running()], num_losses=2)
    push(chain, 3.0, -1.0)
    # The second sees the gradients times (1, 1), then times (2, 1).
    push(chain, 3.0, -1.0)
    first, second = (c.state["mean"].numpy() for c in chain.combiners)
    np.testing.assert_allclose(first, [2.5, 1.0])
    np.testing.assert_allclose(second, [4.0, 1.0])
    assert [v.path for v in chain.variables if v.name == "step"] == [
        f"{chain.name}/step"
    ]


def test_a_nan_does_not_enter_the_state():
    layer = Running(num_losses=2)
    assert np.isnan(push(layer, float("nan"), 1.0))
    np.testing.assert_array_equal(layer.state["mean"], [1.0, 1.0])
    assert int(layer.state["count"]) == 0
    push(layer, 3.0, 1.0)
    np.testing.assert_allclose(layer.state["mean"], [2.0, 1.0])


def test_mistakes_are_named():
    layer = Running(num_losses=2)
    with pytest.raises(ValueError, match="no state before it is built"):
        _ = layer.state
    layer.build()
    with pytest.raises(ValueError, match=r"no state \['means'\]"):
        layer.keep(means=tf.ones([2]))
    with pytest.raises(ValueError, match="synchronizes nothing itself"):
        gd.Chain([Running()], sync_replicas=False)


def combiner_of(model):
    """Returns the first combiner of a model's chain."""
    if isinstance(model, gd.MultiLossModel):
        return model.recipe_state.combiner.combiners[0]
    (chain,) = [c for c in model.layers if isinstance(c, gd.Chain)]
    return chain.combiners[0]


def mean_of(model):
    return combiner_of(model).state["mean"]


@pytest.mark.parametrize("kind", [LAYER, HEADS, VECTOR])
def test_a_recipe_keeps_what_a_layer_keeps(kind):
    model = kind.compiled("running+graddrop(seed=1)")
    kind.train(model, steps=3)
    mean = mean_of(model)
    other = HEADS.compiled("running+graddrop(seed=1)")
    HEADS.train(other, steps=3)
    assert np.all(np.abs(mean - 1.0) > 1e-3)
    if kind is not VECTOR:
        np.testing.assert_allclose(mean, mean_of(other), rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_chunks_keep_the_same(jit):
    whole = VECTOR.compile(VECTOR.build("running"), jit_compile=jit)
    parts = VECTOR.compile(
        VECTOR.build("running", loss_chunk_size=2), jit_compile=jit
    )
    for model in (whole, parts):
        VECTOR.train(model, steps=3)
    np.testing.assert_allclose(mean_of(whole), mean_of(parts), rtol=1e-5)


def test_replicas_keep_that_of_one(mirrored):
    one = models.twenty_steps(HEADS.compiled("running"), HEADS)
    with mirrored(2).scope():
        model = HEADS.compiled("running")
    two = models.twenty_steps(model, HEADS)
    assert models.largest_difference(one, two) < 1e-5


@pytest.mark.parametrize("as_function", [False, True])
def test_a_custom_loop_keeps_state_by_hand(as_function):
    variable = keras.Variable([[1.0, 2.0]])
    slopes = tf.constant([[3.0, 4.0]]), tf.constant([[-1.0, 0.0]])
    state = gd.Recipe.of("running").build(2)

    def step():
        with tf.GradientTape(persistent=True) as tape:
            shared = 2.0 * variable.value
            losses = [tf.reduce_sum(shared * s) for s in slopes]
        (gradient,) = gd.compute_gradients(
            tape, losses, shared, [variable], state
        )
        return gradient

    if as_function:
        step = tf.function(step)
    # The norms are 5 and 1, the means (1, 1), (3, 1) and (4, 1).
    np.testing.assert_allclose(step(), [[4.0, 8.0]])
    np.testing.assert_allclose(step(), [[16.0, 24.0]])
    (running,) = state.combiner.combiners
    np.testing.assert_allclose(running.state["mean"], [4.0, 1.0])
    assert int(state.combiner.step) == 2


RANDOM = "gradnorm(learning_rate=0.1)+running+graddrop"


def test_a_checkpoint_of_an_own_loop_holds_all_state(tmp_path):
    first, second = (gd.Recipe.of(RANDOM).build(2) for _ in range(2))
    for _ in range(2):
        first.combiner.next_step()
        first.combiner.combiners[0].keep(mean=[3.0, 4.0])
        first.weighting.update(tf.constant([1.0, 2.0]), tf.constant([1.0, 2.0]))
    path = tf.train.Checkpoint(state=first).save(tmp_path / "state")
    seeds = [s.combiner.combiners[1].variables[0] for s in (first, second)]
    assert int(seeds[0]) != int(seeds[1])
    tf.train.Checkpoint(state=second).restore(path).assert_consumed()
    # The leaks of GradDrop, its k, alpha and the learning rate of GradNorm.
    assert len(first.weights) == 6 + 4
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", [LAYER, HEADS])
def test_a_checkpoint_of_a_model_goes_on_bit_for_bit(kind, tmp_path):
    """The masks are those of the saved seed."""
    recipe = "" if kind is LAYER else "gradnorm+"
    first, second = (
        kind.compiled(f"{recipe}running+graddrop(seed={seed})")
        for seed in (1, 2)
    )
    kind.train(first, steps=3)
    path = tf.train.Checkpoint(model=first).save(tmp_path / "model")
    tf.train.Checkpoint(model=second).restore(path)
    for model in (first, second):
        kind.train(model, steps=3)
    difference = models.largest_difference(
        [v.numpy() for v in first.variables],
        [v.numpy() for v in second.variables],
    )
    assert difference == 0


def test_a_checkpoint_may_be_restored_before_the_state_is_made(tmp_path):
    first, second = Running(num_losses=2), Running(num_losses=2)
    push(first, 3.0, -1.0)
    path = tf.train.Checkpoint(layer=first).save(tmp_path / "layer")
    tf.train.Checkpoint(layer=second).restore(path)
    push(second, 3.0, -1.0)
    np.testing.assert_allclose(second.state["mean"], [2.5, 1.0])
    assert int(second.step) == 2


def test_a_checkpoint_with_the_step_alone_is_read(tmp_path):
    """As the code before wrote it: the step at `state/combiner/step`."""
    old, chain = tf.Module(), tf.Module()
    chain.step = tf.Variable(5, dtype=tf.int64)
    old.combiner = chain
    path = tf.train.Checkpoint(state=old).save(tmp_path / "state")
    state = gd.Recipe.of("graddrop(seed=3)").build(2)
    tf.train.Checkpoint(state=state).restore(path)
    assert int(state.combiner.step) == 5
    assert int(state.combiner.combiners[0].variables[0]) == 3


def plain(kind):
    """Builds the same model from Keras alone."""
    if kind is LAYER:
        inputs = keras.Input([6])
        features = keras.layers.Dense(8, activation="tanh")(inputs)
        return keras.Model(inputs, kind.heads_on([features] * 3))
    model = kind.build("baseline")
    inputs = keras.Input([6])
    return keras.Model(inputs, model.heads(model.trunk(inputs)))


USES = [
    (LAYER, "graddrop+pcgrad+running"),
    (HEADS, "baseline"),
    (HEADS, RANDOM),
    (VECTOR, RANDOM),
]


@pytest.mark.parametrize(("kind", "recipe"), USES)
def test_weights_are_those_of_the_plain_model(kind, recipe, tmp_path):
    with_methods, without = kind.compiled(recipe), plain(kind)
    without.set_weights([w + 1.0 for w in without.get_weights()])
    kind.train(with_methods, steps=2)
    assert with_methods.count_params() == without.count_params()
    shapes = [w.shape for w in without.get_weights()]
    assert [w.shape for w in with_methods.get_weights()] == shapes
    # In and out by `set_weights`.
    with_methods.set_weights(without.get_weights())
    again = plain(kind)
    again.set_weights(with_methods.get_weights())
    assert same_weights(again, without)
    # By `clone_model`, which starts anew.
    cloned = keras.models.clone_model(with_methods)
    steps = [int(v) for v in cloned.variables if v.name in ("step", "count")]
    assert steps == ([0] if recipe == "baseline" else [0, 0])
    cloned.set_weights(without.get_weights())
    with_methods.set_weights(cloned.get_weights())
    # Out and in by files.
    with_methods.save_weights(tmp_path / "ours.weights.h5")
    again = plain(kind)
    again.load_weights(tmp_path / "ours.weights.h5")
    assert same_weights(again, without)
    kind.train(with_methods, steps=2)
    without.save_weights(tmp_path / "plain.weights.h5")
    with_methods.load_weights(tmp_path / "plain.weights.h5")
    assert same_weights(with_methods, without)


def test_a_flat_model_of_the_parts_shares_the_weights(tmp_path):
    """As docs/methods.md says of files of models without the nesting."""

    def flat(model):
        trunk, heads = model.trunk, model.heads
        return keras.Model(trunk.input, heads(trunk.output))

    first, second = HEADS.compiled(RANDOM), HEADS.compiled(RANDOM)
    HEADS.train(first, steps=2)
    flat(first).save_weights(tmp_path / "flat.weights.h5")
    flat(second).load_weights(tmp_path / "flat.weights.h5")
    assert same_weights(first, second)


@pytest.mark.parametrize(("kind", "recipe"), USES)
def test_a_file_without_state_starts_afresh(kind, recipe, tmp_path):
    plain(kind).save_weights(tmp_path / "plain.weights.h5")
    model = kind.compiled(recipe)
    fresh = state(model)
    kind.train(model, steps=3)
    if recipe != "baseline":
        assert models.largest_difference(fresh, state(model)) > 0
    model.load_weights(tmp_path / "plain.weights.h5")
    assert models.largest_difference(fresh, state(model)) == 0


@pytest.mark.parametrize(("kind", "recipe"), USES)
def test_weights_and_state_are_in_our_files(kind, recipe, tmp_path):
    model, other = kind.compiled(recipe), kind.compiled(recipe)
    kind.train(model, steps=3)
    model.save_weights(tmp_path / "ours.weights.h5")
    other.load_weights(tmp_path / "ours.weights.h5")
    assert models.largest_difference(state(model), state(other)) == 0
    assert same_weights(model, other)


def state(model):
    weights = {id(w) for w in model.weights}
    return [v.numpy() for v in model.variables if id(v) not in weights]


def same_weights(first, second):
    return not models.largest_difference(
        first.get_weights(), second.get_weights()
    )


@models.needs_keras(3, 15, "Keras reads no files of a newer one")
@pytest.mark.parametrize(("name", "kind"), [("layer", LAYER), ("model", HEADS)])
def test_models_saved_by_the_code_before_go_on(name, kind):
    model = keras.saving.load_model(FILES / f"{name}.keras")
    kind.train(model, steps=3, size=8)
    with np.load(FILES / f"{name}.npz") as archive:
        expected = [archive[key] for key in archive.files]
    # With the masks of steps 0, 1, 2 the difference is above 0.01.
    assert models.largest_difference(models.trainable(model), expected) < 1e-5


def test_a_subclassed_model_makes_its_state_in_fit():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk = keras.layers.Dense(3)
            self.drop = Running(num_losses=2)
            self.heads = [keras.layers.Dense(1), keras.layers.Dense(1)]

        def call(self, x, training=False):
            branches = self.drop(self.trunk(x), training=training)
            return [head(b) for head, b in zip(self.heads, branches)]

    model = Model()
    model.compile("sgd", ["mse", "mse"])
    x = np.ones([8, 2], np.float32)
    model.fit(x, [x[:, :1], -x[:, :1]], batch_size=4, verbose=0)
    assert int(model.drop.step) == int(model.drop.state["count"]) == 2


class Built(gd.Combiner):
    """Makes a variable in `build`, as a Keras layer does."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.calls = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="calls"
        )

    def combine(self, gradients, activations):
        self.calls.assign_add(1.0)
        return gradients


@pytest.mark.parametrize("kind", [LAYER, HEADS])
def test_a_combiner_may_make_variables_in_build(kind, monkeypatch):
    monkeypatch.setitem(gd.METHODS, "built", Built)
    model = kind.compiled("built")
    kind.train(model, steps=2)
    assert float(combiner_of(model).calls) == 2.0
