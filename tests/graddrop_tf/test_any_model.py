"""A `MultiLossModel` by the plain sum is the plain model, whatever its parts.

Each case builds trunk, heads, losses and data; plain Keras trains
`heads(trunk(inputs))` with the same weights.
"""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import needs_keras

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
class Encoder(keras.Model):
    """A subclassed trunk that does something else in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(6, activation="tanh")

    def call(self, inputs, training=False):
        features = self.dense(inputs)
        return 0.5 * features if training else features


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class TokenEncoder(keras.Model):
    """Tokens of a dict to a sequence, with a mask, and its last state."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = L.Embedding(9, 4, mask_zero=True)
        self.lstm = L.LSTM(6, return_sequences=True, return_state=True)

    def call(self, inputs):
        sequence, last, _ = self.lstm(self.embedding(inputs["tokens"]))
        return {"sequence": sequence, "pooled": last}


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class TokenHeads(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pool = L.GlobalAveragePooling1D()
        self.a, self.b = L.Dense(1), L.Dense(1)

    def call(self, features):
        return self.a(self.pool(features["sequence"])), self.b(
            features["pooled"]
        )


class Plain(keras.Model):
    """Trunk and heads as a subclassed Keras model."""

    def __init__(self, trunk, heads):
        super().__init__()
        self.trunk, self.heads = trunk, heads

    def call(self, inputs, training=False):
        return self.heads(self.trunk(inputs, training=training))


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


def subclassed_trunk():
    return Encoder(), dense_heads("a", "b"), ["mse", "mae"], X, [YA, YB]


def subclassed_parts():
    loss = {"b": "mae", "a": "mse"}
    return Encoder(), TwoHeads(), loss, X, {"a": YA, "b": YB}


def unbuilt_sequential():
    trunk = keras.Sequential([L.Dense(6), L.BatchNormalization()])
    return trunk, dense_heads("a", "b"), ["mse", "mae"], X, [YA, YB]


def single_layers():
    return L.Dense(6, activation="tanh"), L.Dense(1), "mse", X, YA


def stateful_rnn():
    inputs = keras.Input(batch_shape=(8, 4, 2))
    states = L.GRU(6, stateful=True)(inputs)
    trunk = keras.Model(inputs, states)
    x = X.reshape(24, 4, 2)
    return trunk, dense_heads("a", "b"), ["mse", "mae"], x, [YA, YB]


def masked_sequences():
    tokens = np.random.default_rng(1).integers(1, 9, [24, 5])
    # Both of two replicas meet sequences that end early.
    tokens[::3, 2:] = 0
    data = {"tokens": tokens.astype("int32")}
    return TokenEncoder(), TokenHeads(), ["mse", "mae"], data, [YA, YB]


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


OPTIONAL_INPUTS = pytest.param(
    optional_inputs,
    marks=needs_keras(3, 13, "a loaded model's inputs are not optional"),
)
CASES = [
    sequential,
    single_layer_as_heads,
    subclassed_heads,
    subclassed_trunk,
    subclassed_parts,
    unbuilt_sequential,
    single_layers,
    masked_sequences,
    equal_names,
    one_output_twice,
    nested_outputs,
    sparse_inputs,
    ragged_inputs,
    OPTIONAL_INPUTS,
]
STATEFUL = needs_keras(3, 14, "a stateful GRU fails in a plain model too")
# Each replica has a batch norm of its own.
ON_REPLICAS = [case for case in CASES if case is not unbuilt_sequential]


def build(case, ours, recipe="baseline"):
    """Returns a compiled model with fixed weights, and its data."""
    keras.utils.set_random_seed(3)
    trunk, heads, loss, x, y = case()
    if ours:
        model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    elif not getattr(trunk, "inputs", None):
        model = Plain(trunk, heads)
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
def test_plain_sum_is_plain_keras_on_two_replicas(case, mirrored, tmp_path):
    keras.utils.clear_session()
    with mirrored(2).scope():
        ours, x, y = build(case, ours=True)
    keras.utils.clear_session()
    plain, *_ = build(case, ours=False)
    assert_same(run(ours, x, y), run(plain, x, y))
    assert_same(ours.get_weights(), plain.get_weights())
    ours.save(tmp_path / "ours.keras")
    with mirrored(2).scope():
        loaded = keras.models.load_model(tmp_path / "ours.keras")
    for model in (loaded, plain):
        model.fit(dataset(x, y), verbose=0)
    assert_same(loaded.get_weights(), plain.get_weights())


@STATEFUL
def test_states_go_from_batch_to_batch_as_in_plain_keras():
    keras.utils.clear_session()
    ours, x, y = build(stateful_rnn, ours=True)
    keras.utils.clear_session()
    plain, *_ = build(stateful_rnn, ours=False)
    assert_same(run(ours, x, y), run(plain, x, y))
    assert_same(ours.get_weights(), plain.get_weights())


@pytest.mark.parametrize("case", CASES)
def test_trains_with_combiners(case):
    model, x, y = build(case, ours=True, recipe="pcgrad+graddrop")
    model.predict(dataset(x, y), verbose=0)
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


def deferred(heads=None, **kwargs):
    keras.utils.set_random_seed(3)
    heads = dense_heads("a", "b") if heads is None else heads
    return gd.MultiLossModel(Encoder(), heads, **kwargs)


def test_the_first_batch_builds_the_recipe_and_the_loss():
    model = deferred(L.Dense(2), recipe="gradnorm+pcgrad")
    model.compile("adam", gd.VectorLoss(squared_error, names=["p", "q"]))
    monitor = gd.GradientMonitor((X, np.hstack([YA, YB])))
    history = model.fit(
        X, np.hstack([YA, YB]), callbacks=[monitor], verbose=0
    ).history
    assert history["p_loss"][0] > 0 and history["gradients/norm_before"][0] > 0
    assert model.recipe_state.loss_names == ("p", "q")


@keras.saving.register_keras_serializable("graddrop_tf_tests")
def squared_error(y_true, y_pred):
    return tf.square(y_true - y_pred)


def test_training_and_masks_reach_the_trunk():
    model = deferred()
    plain = Plain(model.trunk, model.heads)
    for training in (False, True):
        got, want = (m(X, training=training) for m in (model, plain))
        assert_same(got, want)
    pooling = gd.MultiLossModel(L.GlobalAveragePooling1D(), L.Identity())
    values = np.arange(6, dtype="float32").reshape(1, 3, 2)
    mask = np.array([[True, False, True]])
    np.testing.assert_allclose(pooling(values, mask=mask), [[2.0, 3.0]])


def test_the_first_batch_builds_the_recipe_on_two_replicas(mirrored):
    """As where the inputs are known from the start."""

    def train(trunk):
        model = gd.MultiLossModel(
            trunk, dense_heads("a", "b"), "gradnorm+pcgrad+clip(1.0)"
        )
        model.compile("sgd", ["mse", "mae"])
        model.fit(X, [YA, YB], batch_size=8, shuffle=False, verbose=0)
        weights = model.recipe_state.weighting.current_weights()
        return model.get_weights(), weights.numpy()

    with mirrored(2).scope():
        keras.utils.set_random_seed(3)
        known = train(trunk_of(keras.Input([8])))
        keras.utils.set_random_seed(3)
        unknown = train(keras.Sequential([L.Dense(6, activation="tanh")]))
    assert_same(unknown, known)
    assert np.ptp(known[1]) > 1e-4


@pytest.mark.parametrize("recipe", ["baseline", "graddrop", "pcgrad", "mgda"])
@pytest.mark.parametrize("known", [True, False])
def test_a_trunk_without_weights_trains_the_heads(known, recipe):
    inputs = keras.Input([8])
    trunk = keras.Model(inputs, L.Identity()(inputs)) if known else L.Identity()
    model = gd.MultiLossModel(trunk, TwoHeads(), recipe)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = model.fit(X, {"a": YA, "b": YB}, epochs=3, verbose=0).history
    assert losses["loss"][-1] < losses["loss"][0]


def test_inputs_handed_on_are_not_of_any_separated_loss():
    inputs = [keras.Input([8]), keras.Input([8])]
    fine, coarse = L.Dense(6), L.Dense(5)
    trunk = keras.Model(inputs, [[fine(i), coarse(i), i] for i in inputs])
    shared = [[keras.Input([n]) for n in (6, 5, 8)] for _ in range(2)]
    outputs = [L.Dense(1)(L.Concatenate()(pair)) for pair in shared]
    heads = keras.Model(shared, outputs)
    model = gd.MultiLossModel(trunk, heads, "pcgrad", separate=True)
    place = model.place_of(trunk([X, X]))
    assert place.num_losses == 2
    assert [b.shape[-1] for b in place.blocks] == [6, 5, 6, 5]
    model.compile("sgd", ["mse", "mse"])
    model.fit([X, -X], [YA, YB], verbose=0)


def test_lengths_may_differ_from_batch_to_batch(tmp_path):
    model = gd.MultiLossModel(TokenEncoder(), TokenHeads(), recipe="graddrop")
    model.compile("sgd", ["mse", "mae"])
    for length in (5, 3, 7):
        tokens = np.ones([24, length], "int32")
        model.train_on_batch({"tokens": tokens}, (YA, YB))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    plain = gd.inference_model(loaded)
    assert plain.input["tokens"].shape == (None, None)
    assert plain.input["tokens"].dtype == "int32"
    plain.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    tokens = {"tokens": np.full([2, 4], 3, "int32")}
    assert_same(exported.serve(tokens), model(tokens))


@pytest.mark.parametrize(
    ("loss", "labels"),
    [(["mse"] * 3, {"a": YA, "b": YB}), ({"z": "mse"}, {"a": YA, "b": YB})],
)
def test_losses_that_do_not_fit_the_first_batch(loss, labels):
    model = deferred(TwoHeads())
    model.compile("sgd", loss)
    with pytest.raises(ValueError, match="or one for each: a list") as caught:
        model.fit(X, labels, verbose=0)
    assert "'a': (" in str(caught.value)


class Twice(L.Layer):
    """A trunk that gives a list."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(6)

    def call(self, inputs):
        return [self.dense(inputs), self.dense(-inputs)]


def test_a_model_may_be_saved_before_its_first_batch(tmp_path):
    model = deferred(recipe="graddrop")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), ["mse", "mae"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.fit(X, [YA, YB], verbose=0)
    assert len(loaded.optimizer.variables) == 2 + len(loaded.trainable_weights)


def test_errors_that_the_first_batch_tells():
    encoder = Encoder()
    tied = gd.MultiLossModel(encoder, keras.Sequential([encoder, L.Dense(1)]))
    tied.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match="belongs to the trunk or to the heads"
    ):
        tied.fit(X[:, :6], YA, verbose=0)
    separate = deferred(separate=True)
    separate.compile("sgd", ["mse", "mse"])
    with pytest.raises(ValueError, match="needs a list"):
        separate.fit(X, [YA, YB], verbose=0)
    vector = gd.MultiLossModel(Twice(), L.Average(), separate=True)
    vector.compile("sgd", gd.VectorLoss(squared_error))
    with pytest.raises(ValueError, match="a vector of 6 losses"):
        vector.fit(X, YA, verbose=0)
    with pytest.raises(ValueError, match="call it on a batch"):
        gd.inference_model(deferred())


class OwnCall(gd.MultiLossModel):
    def call(self, inputs, training=None, mask=None):
        return super().call(2 * inputs, training=training, mask=mask)


@pytest.mark.parametrize("trunk", [Encoder, lambda: trunk_of(keras.Input([8]))])
def test_a_call_that_training_would_ignore_is_refused(trunk):
    with pytest.raises(ValueError, match="OwnCall, which has a `call`"):
        OwnCall(trunk(), dense_heads("a", "b"))


@pytest.mark.parametrize("known", [True, False])
def test_ragged_activations_are_refused(known):
    trunk, loss = L.Embedding(10, 4), ["mse", "mse"]
    shared = keras.Input([None, 4], ragged=True)
    pooled = L.GlobalAveragePooling1D()(shared)
    heads = keras.Model(shared, [L.Dense(1)(pooled) for _ in range(2)])
    if known:
        inputs = keras.Input([None], dtype="int32", ragged=True)
        trunk = keras.Model(inputs, trunk(inputs))
    with pytest.raises(ValueError, match="must be dense tensors"):
        model = gd.MultiLossModel(trunk, heads)
        model.compile("sgd", loss)
        tokens = tf.ragged.constant([[1, 2], [3]] * 12)
        model.fit(dataset(tokens, [YA, YB]), verbose=0)


class NeedsValues(L.Layer):
    """Runs on tensors with values alone, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = self.add_weight((), "zeros", trainable=False)
        self.dense = L.Dense(1)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        if not tf.executing_eagerly():
            raise RuntimeError("no values")
        return self.dense(inputs)


def stateful_heads():
    heads = keras.Sequential([L.GRU(6, stateful=True), L.Dense(1)])
    return L.Dense(6), heads, "mse", X.reshape(24, 2, 4), YA


def stateful_trunk():
    trunk = keras.Sequential([L.Dense(5), L.GRU(6, stateful=True)])
    return trunk, dense_heads("a"), ["mse"], X.reshape(24, 2, 4), [YA]


@STATEFUL
@pytest.mark.parametrize("case", [stateful_heads, stateful_trunk])
def test_the_first_batch_moves_no_state(case, tmp_path):
    ours, x, y = build(case, ours=True)
    plain, *_ = build(case, ours=False)
    histories = [
        m.fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"]
        for m in (ours, plain)
    ]
    assert_same(*histories)
    assert_same(ours.get_weights(), plain.get_weights())
    ours.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded.get_weights(), ours.get_weights())


def test_code_that_needs_values_is_built_by_them():
    heads = NeedsValues()
    model = gd.MultiLossModel(L.Dense(6), heads)
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, YA, batch_size=8, verbose=0)
    assert heads.calls.numpy() == 3.0
    assert len(model.trainable_weights) == 4


class Renamed(gd.MultiLossModel):
    """A user's subclass, which is functional or not."""


def test_a_subclass_keeps_its_class_in_both_forms(tmp_path):
    for trunk in (Encoder(), trunk_of(keras.Input([8]))):
        model = Renamed(trunk, dense_heads("a", "b"), recipe="graddrop")
        model.compile("sgd", ["mse", "mse"])
        model.fit(X, [YA, YB], verbose=0)
        model.save(tmp_path / "model.keras")
        objects = {"Renamed": Renamed}
        path = tmp_path / "model.keras"
        loaded = keras.models.load_model(path, custom_objects=objects)
        assert isinstance(loaded, Renamed)
        assert_same(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.parametrize("case", [sequential, subclassed_trunk])
def test_pickles(case):
    model, x, _ = build(case, ours=True)
    model.predict(x, verbose=0)
    copied = pickle.loads(pickle.dumps(model))
    assert isinstance(copied, gd.MultiLossModel)
    assert_same(copied.predict(x, verbose=0), model.predict(x, verbose=0))


def test_weights_of_a_file_fit_both_forms(tmp_path):
    """A trunk that a batch has built knows its inputs once it is loaded."""
    model, x, y = build(unbuilt_sequential, ours=True)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.is_functional and not model.is_functional
    loaded.save_weights(tmp_path / "loaded.weights.h5")
    before = model.predict(x, verbose=0)
    model.set_weights([0 * w for w in model.get_weights()])
    model.load_weights(tmp_path / "loaded.weights.h5")
    assert_same(model.predict(x, verbose=0), before)
