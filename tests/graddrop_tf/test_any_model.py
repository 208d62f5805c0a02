"""A `MultiLossModel` by the plain sum is the plain model, whatever its parts.

Each case builds trunk, heads, losses and data; plain Keras trains
`heads(trunk(inputs))` with the same weights.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd

L = keras.layers
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(24, 8)).astype("float32")
YA, YB = _RANDOM.normal(size=(2, 24, 1)).astype("float32")


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class TwoHeads(keras.Model):
    """A subclassed model with two outputs, which has no symbolic inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b = L.Dense(1), L.Dense(1)

    def call(self, z):
        return {"a": self.a(z), "b": self.b(z)}


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Densify(L.Layer):
    def call(self, ragged):
        return ragged.to_tensor() if hasattr(ragged, "to_tensor") else ragged

    def compute_output_spec(self, ragged):
        return keras.KerasTensor((None, None, 3), "float32")


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class AddIfGiven(L.Layer):
    """Adds a second input where there is one."""

    def call(self, first, second=None):
        return first if second is None else first + second


def trunk_of(inputs, units=6):
    return keras.Model(inputs, L.Dense(units, activation="tanh")(inputs))


def dense_heads(*names):
    shared = keras.Input([6])
    return keras.Model(shared, [L.Dense(1, name=n)(shared) for n in names])


def sequential():
    trunk = keras.Sequential([keras.Input([8]), L.Dense(6, activation="tanh")])
    return trunk, keras.Sequential([L.Dense(4), L.Dense(1)]), "mse", X, YA


def single_layer_as_heads():
    return trunk_of(keras.Input([8])), L.Dense(1), "mse", X, YA


def subclassed_heads():
    loss = {"b": "mae", "a": "mse"}
    labels = {"a": YA, "b": YB}
    return trunk_of(keras.Input([8])), TwoHeads(), loss, X, labels


def equal_names():
    shared = keras.Input([6])
    outputs = keras.ops.split(L.Dense(2)(shared), 2, axis=-1)
    heads = keras.Model(shared, outputs)
    return trunk_of(keras.Input([8])), heads, ["mse", "mae"], X, [YA, YB]


def one_output_twice():
    shared = keras.Input([6])
    output = L.Dense(1)(shared)
    heads = keras.Model(shared, [output, output])
    return trunk_of(keras.Input([8])), heads, ["mse", "mae"], X, [YA, YB]


def nested_outputs():
    shared = keras.Input([6])
    a, b, c = (L.Dense(1, name=name)(shared) for name in "abc")
    heads = keras.Model(shared, {"x": [a, b], "y": c})
    loss = {"y": "mse", "x": ["mae", "mse"]}
    labels = {"x": [YA, YB], "y": YA}
    return trunk_of(keras.Input([8])), heads, loss, X, labels


def sparse_inputs():
    trunk = trunk_of(keras.Input([8], sparse=True))
    data = tf.sparse.from_dense(np.where(X > 0, X, 0))
    return trunk, dense_heads("a", "b"), ["mse", "mae"], data, [YA, YB]


def ragged_inputs():
    inputs = keras.Input([None, 3], ragged=True)
    pooled = L.GlobalAveragePooling1D()(Densify()(inputs))
    trunk = keras.Model(inputs, L.Dense(6)(pooled))
    values = np.random.default_rng(1).normal(size=(60, 3)).astype("float32")
    data = tf.RaggedTensor.from_row_lengths(values, [2, 3] * 12)
    return trunk, dense_heads("a", "b"), ["mse", "mae"], data, [YA, YB]


def optional_inputs():
    inputs = [keras.Input([8]), keras.Input([8], optional=True)]
    trunk = keras.Model(inputs, L.Dense(6)(AddIfGiven()(*inputs)))
    return trunk, dense_heads("a", "b"), ["mse", "mae"], [X, None], [YA, YB]


CASES = [
    sequential,
    single_layer_as_heads,
    subclassed_heads,
    equal_names,
    one_output_twice,
    nested_outputs,
    sparse_inputs,
    ragged_inputs,
    optional_inputs,
]
# Keras itself cannot build these from the batches of several replicas.
ON_REPLICAS = [
    c for c in CASES if c not in (sparse_inputs, ragged_inputs, optional_inputs)
]


def build(case, ours, recipe="baseline"):
    """Returns a compiled model with fixed weights, and its data."""
    keras.utils.set_random_seed(3)
    trunk, heads, loss, x, y = case()
    if ours:
        model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    else:
        inputs = model_inputs(trunk)
        model = keras.Model(inputs, heads(trunk(inputs)))
        # Ours takes the names of the outputs of the heads.
        names = getattr(heads, "output_names", model.output_names)
        model.output_names = names
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model, x, y


def model_inputs(trunk):
    if isinstance(trunk, keras.Sequential):
        return trunk.inputs[0]
    return trunk.input


def dataset(x, y):
    if isinstance(x, list):
        given = [part for part in x if part is not None]
        examples = tf.data.Dataset.from_tensor_slices((*given, _tuples(y)))
        return examples.batch(8).map(lambda a, y: ((a, None), y))
    return tf.data.Dataset.from_tensor_slices((x, _tuples(y))).batch(8)


def _tuples(structure):
    return keras.tree.lists_to_tuples(structure)


def run(model, x, y):
    """Returns the logs of `fit` and `evaluate`, and the predictions."""
    data = dataset(x, y)
    logs = model.fit(data, validation_data=data, epochs=2, verbose=0).history
    evaluated = model.evaluate(data, return_dict=True, verbose=0)
    predicted = model.predict(data, verbose=0)
    return logs, evaluated, predicted


def assert_same(first, second, rtol=1e-6, atol=1e-6):
    keras.tree.assert_same_structure(first, second)
    pairs = zip(
        keras.tree.flatten(first), keras.tree.flatten(second), strict=True
    )
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_plain_sum_is_plain_keras(case, tmp_path):
    keras.utils.clear_session()
    ours, x, y = build(case, ours=True)
    # The same automatic names for both models.
    keras.utils.clear_session()
    plain, *_ = build(case, ours=False)
    assert_same(run(ours, x, y), run(plain, x, y))
    assert_same(ours.get_weights(), plain.get_weights())
    ours.save(tmp_path / "ours.keras")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    data = dataset(x, y)
    assert_same(loaded.predict(data, verbose=0), ours.predict(data, verbose=0))
    # Training goes on, with the momentum that was saved.
    for model in (loaded, plain):
        model.fit(data, verbose=0)
    assert_same(loaded.get_weights(), plain.get_weights())


@pytest.mark.parametrize("case", ON_REPLICAS)
def test_plain_sum_is_plain_keras_on_two_replicas(case, mirrored):
    keras.utils.clear_session()
    with mirrored(2).scope():
        ours, x, y = build(case, ours=True)
    keras.utils.clear_session()
    plain, *_ = build(case, ours=False)
    assert_same(run(ours, x, y), run(plain, x, y), rtol=1e-5, atol=1e-6)
    assert_same(ours.get_weights(), plain.get_weights())


@pytest.mark.parametrize("recipe", ["graddrop", "pcgrad"])
@pytest.mark.parametrize("case", CASES)
def test_trains_with_combiners(case, recipe):
    model, x, y = build(case, ours=True, recipe=recipe)
    before = model.trunk.get_weights()
    run(model, x, y)
    after = model.trunk.get_weights()
    assert all(np.isfinite(a).all() for a in after)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    gd.inference_model(model).predict(dataset(x, y), verbose=0)


def test_terms_of_layers_alone_train_as_in_plain_keras():
    def make(ours):
        keras.utils.set_random_seed(3)
        trunk, shared = trunk_of(keras.Input([8])), keras.Input([6])
        penalized = L.Dense(1, activity_regularizer="l2")(shared)
        heads = keras.Model(shared, penalized)
        if ours:
            model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
        else:
            model = keras.Model(trunk.input, heads(trunk.output))
        model.compile("sgd")
        return model

    ours, plain = make(True), make(False)
    histories = [m.fit(X, verbose=0).history for m in (ours, plain)]
    assert_same(*histories)
    assert histories[0]["loss"][0] > 0
    assert_same(ours.get_weights(), plain.get_weights())


@pytest.mark.parametrize(
    "case", [sparse_inputs, ragged_inputs, optional_inputs]
)
def test_the_layer_leaves_inputs_as_they_are(case):
    trunk, _, loss, x, y = case()
    branches = gd.GradDrop(num_losses=2)(keras.ops.tanh(trunk.output))
    outputs = [L.Dense(1)(branch) for branch in branches]
    model = keras.Model(trunk.input, outputs)
    model.compile("sgd", loss)
    data = dataset(x, y)
    monitor = gd.GradientMonitor((x, y))
    history = model.fit(data, callbacks=[monitor], verbose=0).history
    assert history["gradients/norm_before"][0] > 0
    plain = gd.inference_model(model)
    assert not any(isinstance(layer, gd.Combiner) for layer in plain.layers)
    assert_same(plain.predict(data, verbose=0), model.predict(data, verbose=0))


@pytest.mark.parametrize("form", [list, dict])
def test_losses_by_name_may_stand_in_any_order(form):
    """What a method is told by position follows the outputs."""

    def train(order):
        keras.utils.set_random_seed(3)
        shared = keras.Input([6])
        outputs = {name: L.Dense(1, name=name)(shared) for name in "ab"}
        if form is list:
            outputs = [*outputs.values()]
        recipe = "graddrop(leak=[1.0, 0.0], seed=1)"
        trunk = trunk_of(keras.Input([8]))
        model = gd.MultiLossModel(trunk, keras.Model(shared, outputs), recipe)
        losses = {"a": "mse", "b": "mae"}
        model.compile("sgd", {name: losses[name] for name in order})
        model.fit(X, {"a": YA, "b": YB}, shuffle=False, verbose=0)
        return model.get_weights()

    assert_same(train("ba"), train("ab"))
