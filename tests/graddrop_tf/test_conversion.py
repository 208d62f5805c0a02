"""A Keras model cut at a layer trains as it did, and shares its weights."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf import test_any_model
from tests.graddrop_tf.models import needs_keras
from tests.graddrop_tf.test_any_model import assert_same

L = keras.layers
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(24, 8)).astype("float32")
META = _RANDOM.normal(size=(24, 3)).astype("float32")
IMAGES = _RANDOM.normal(size=(24, 8, 8, 2)).astype("float32")
TOKENS = _RANDOM.integers(0, 6, size=(24, 5)).astype("int32")
YA, YB = _RANDOM.normal(size=(2, 24, 1)).astype("float32")


def two_heads():
    x = keras.Input([8])
    a = L.Dense(6, activation="tanh", name="shared")(x)
    outputs = [L.Dense(1, name=name)(a) for name in ("out_a", "out_b")]
    return keras.Model(x, outputs), "shared", X, [YA, YB]


def nested_backbone():
    x = keras.Input([8], name="pixels")
    h = L.Dense(7, activation="tanh", name="stem")(x)
    h = L.BatchNormalization(name="norm", momentum=0.5)(h)
    h = L.Dense(6, activation="relu", name="top")(h)
    h = L.BatchNormalization(name="top_norm", momentum=0.5)(h)
    backbone = keras.Model(x, L.Dropout(0.5, seed=1)(h), name="backbone")
    backbone.get_layer("stem").trainable = False
    x = keras.Input([8])
    h = backbone(L.Rescaling(0.5)(x), training=False)
    h = L.Dropout(0.2, seed=2)(h)
    outputs = {name: L.Dense(1, name=f"head_{name}")(h) for name in "ba"}
    return keras.Model(x, outputs), "backbone/top", X, {"a": YA, "b": YB}


def sequential():
    layers = [L.Dense(6, activation="tanh", name="h"), L.Dense(4), L.Dense(1)]
    return keras.Sequential([keras.Input([8]), *layers]), "h", X, YA


def nested_sequential():
    inner = keras.Sequential(
        [keras.Input([8]), L.Dense(6, name="h"), L.Dense(4)], name="inner"
    )
    outer = keras.Sequential([keras.Input([8]), inner, L.Dense(1)], name="seq")
    x = keras.Input([8])
    return keras.Model(x, [outer(x)]), "seq/inner/h", X, YA


def u_net():
    x = keras.Input([8, 8, 2])
    skips = []
    h = x
    for i in range(2):
        conv = L.Conv2D(3, 3, padding="same", name=f"down_{i}")
        skips.append(conv(L.MaxPooling2D()(h) if i else h))
        h = skips[-1]
    h = L.Concatenate()([L.UpSampling2D()(h), skips[0]])
    h = L.Conv2D(3, 3, padding="same", activation="relu")(h)
    pooled = L.GlobalAveragePooling2D()(h)
    outputs = [L.Dense(1)(pooled), L.Dense(1)(pooled)]
    return keras.Model(x, outputs), ["down_0", "down_1"], IMAGES, [YA, YB]


def metadata():
    inputs = {"x": keras.Input([8], name="x"), "m": keras.Input([3], name="m")}
    shared = L.Dense(6, activation="tanh", name="shared")(inputs["x"])
    extra = L.Dense(2, name="extra")(inputs["m"])
    joined = L.Concatenate()([shared, extra, L.Flatten()(inputs["x"])])
    outputs = {"u": L.Dense(1)(joined), "v": L.Dense(1)(shared)}
    x, y = {"x": X, "m": META}, {"u": YA, "v": YB}
    return keras.Model(inputs, outputs), "shared", x, y


def siamese():
    inputs = [keras.Input([8]), keras.Input([8])]
    tower = keras.Sequential(
        [keras.Input([8]), L.Dense(5, name="h"), L.Dense(4)], name="tower"
    )
    left, right = tower(inputs[0]), tower(inputs[1])
    outputs = [L.Dense(1)((left - right)[:, 1:]), L.Dense(1)(left * right)]
    return keras.Model(inputs, outputs), "tower/h", [X, X[::-1]], [YA, YB]


def masked():
    x = keras.Input([5], dtype="int32")
    h = L.Embedding(6, 4, mask_zero=True, name="words")(x)
    h = L.SimpleRNN(3, return_sequences=True, name="read")(h)
    pooled = L.GlobalAveragePooling1D()(h)
    outputs = [L.Dense(1)(pooled), L.Dense(1)(L.SimpleRNN(2)(h))]
    return keras.Model(x, outputs), "words", TOKENS, [YA, YB]


CASES = [
    two_heads,
    nested_backbone,
    sequential,
    nested_sequential,
    u_net,
    pytest.param(
        metadata,
        marks=needs_keras(3, 14, "no loaded model returns one of its inputs"),
    ),
    siamese,
    masked,
]


def plain_copy(model):
    copy = keras.models.clone_model(model)
    if not isinstance(model, keras.Sequential):
        copy = keras.models.clone_model(model, model.input)
    copy.set_weights(model.get_weights())
    return copy


def compiled(model):
    loss = "mse"
    if len(model.outputs) > 1:
        loss = keras.tree.map_structure(lambda _: "mse", model.output)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


def run(model, x, y):
    """Returns the logs of `fit` and `evaluate`, and the predictions."""
    settings = {"batch_size": 8, "verbose": 0}
    logs = model.fit(
        x, y, validation_data=(x, y), epochs=2, shuffle=False, **settings
    ).history
    evaluated = model.evaluate(x, y, return_dict=True, **settings)
    return logs, evaluated, model.predict(x, **settings)


def ids(variables):
    return {id(v) for v in variables}


@pytest.mark.parametrize("case", CASES)
def test_converted_trains_as_plain_keras(case, tmp_path):
    model, at, x, y = case()
    plain = compiled(plain_copy(model))
    config = model.get_config()
    ours = gd.MultiLossModel.from_model(model, at=at, name=model.name)
    if case is not sequential:
        assert [*ours.heads.output_names] == [*model.output_names]
        keras.tree.assert_same_structure(ours.trunk.input, model.input)
    pairs = zip(ours.trunk.inputs, model.inputs, strict=True)
    assert all(a is b for a, b in pairs)
    assert ids(ours.weights) == ids(model.weights)
    assert ids(ours.trainable_weights) == ids(model.trainable_weights)
    assert model.get_config() == config
    assert_same(ours(x), plain(x))
    assert_same(run(compiled(ours), x, y), run(plain, x, y))
    assert_same(model.get_weights(), plain.get_weights())
    assert_same(model(x), plain(x))
    ours.save(tmp_path / "ours.keras")
    loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert_same(loaded(x), ours(x))
    if case is not nested_backbone:
        # Keras does not save the seed of its Dropout.
        assert_resumes(loaded, plain, x, y)


def assert_resumes(loaded, plain, x, y):
    for model in (loaded, plain):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    assert_same(loaded.predict(x, verbose=0), plain.predict(x, verbose=0))


# Each replica has a batch norm and masks of its own in the other.
@pytest.mark.parametrize("case", [c for c in CASES if c != nested_backbone])
def test_converted_trains_as_plain_keras_on_two_replicas(
    case, mirrored, tmp_path
):
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)
    plain, _, x, y = case()
    # The same automatic names for both models.
    keras.utils.clear_session()
    with mirrored(2).scope():
        model, at, *_ = case()
        model.set_weights(plain.get_weights())
        ours = compiled(gd.MultiLossModel.from_model(model, at))
    assert_same(run(ours, x, y), run(compiled(plain), x, y))
    assert_same(model.get_weights(), plain.get_weights())
    ours.save(tmp_path / "ours.keras")
    with mirrored(2).scope():
        loaded = keras.models.load_model(tmp_path / "ours.keras")
    assert_resumes(loaded, plain, x, y)


@pytest.mark.parametrize(
    "case",
    [
        test_any_model.sparse_inputs,
        test_any_model.ragged_inputs,
        test_any_model.OPTIONAL_INPUTS,
    ],
)
def test_inputs_stay_as_they_are(case, tmp_path):
    keras.utils.set_random_seed(5)
    trunk, heads, loss, x, y = case()
    at = trunk.layers[-1].name
    model = keras.Model(trunk.input, heads(trunk.output))
    data = test_any_model.dataset(x, y)
    want = model.predict(data, verbose=0)
    for ours in (
        gd.MultiLossModel.from_model(model, at=at, recipe="pcgrad"),
        gd.insert(model, gd.PCGrad(), at=at),
    ):
        assert ours.input is model.input or ours.input == model.input
        assert_same(ours.predict(data, verbose=0), want)
        ours.compile(keras.optimizers.SGD(0.0), loss)
        ours.fit(data, verbose=0)
        ours.save(tmp_path / "ours.keras")
        loaded = keras.models.load_model(tmp_path / "ours.keras")
        assert_same(loaded.predict(data, verbose=0), want)


def test_the_cut_is_where_it_was_asked_for():
    def shapes(case):
        model, at, *_ = case()
        trunk = gd.MultiLossModel.from_model(model, at=at).trunk
        output = trunk.output
        names = [layer.name for layer in trunk.layers]
        return keras.tree.map_structure(lambda t: t.shape[1:], output), names

    assert shapes(two_heads)[0] == (6,)
    shape, names = shapes(nested_backbone)
    assert shape == (6,)
    assert names[-3:] == ["stem", "norm", "top"]
    assert shapes(nested_sequential)[0] == (6,)
    assert shapes(u_net)[0] == [(8, 8, 3), (4, 4, 3)]
    # The raw inputs come last; the weights on one are in the heads.
    shape, names = shapes(metadata)
    assert shape[0] == (6,)
    assert sorted(shape[1:]) == [(3,), (8,)]
    assert "extra" not in names
    assert shapes(siamese)[0] == [(5,), (5,)]
    assert shapes(masked)[0] == (5, 4)


def test_a_layer_gives_all_that_is_read_of_it():
    x = keras.Input([5, 2])
    out, _, last = L.LSTM(3, return_state=True, name="lstm")(x)
    model = keras.Model(x, [L.Dense(1)(last), L.Dense(1)(out)])
    trunk = gd.MultiLossModel.from_model(model, at="lstm").trunk
    assert len(trunk.outputs) == 2
    model, *_ = siamese()
    trunk = gd.MultiLossModel.from_model(model, at="tower").trunk
    tower = model.get_layer("tower")
    assert_same(trunk([X, 2 * X]), [tower(X), tower(2 * X)])


def test_an_output_may_be_the_cut_itself():
    x = keras.Input([8])
    h = L.Dense(3, name="h")(x)
    model = keras.Model(x, {"low": h, "high": L.Dense(1, name="top")(h)})
    # Not the names of the layers, which Keras would take.
    model.output_names = ["upper", "lower"]
    ours = gd.MultiLossModel.from_model(model, at="h")
    assert [*ours.heads.output_names] == [*model.output_names]
    assert_same(ours(X), model(X))
    inserted = gd.insert(model, gd.PCGrad(), at="h")
    assert_same(inserted(X), model(X))
    assert [*inserted.output_names] == [*model.output_names]
    (layer,) = [m for m in inserted.layers if isinstance(m, gd.PCGrad)]
    assert layer.num_losses == 2


def test_training_false_stays_with_the_layers_of_a_nested_model():
    model, at, *_ = nested_backbone()
    heads = gd.MultiLossModel.from_model(model, at=at).heads
    a = _RANDOM.normal(size=(24, 6)).astype("float32")
    norm = heads.get_layer("top_norm")
    before = norm.moving_mean.numpy()
    heads(a)
    np.testing.assert_array_equal(norm.moving_mean, before)
    x = keras.Input([8])
    inner = keras.Input([8])
    h = L.Dropout(0.5, name="drop")(L.Dense(6, name="h")(inner))
    base = keras.Model(inner, h, name="base")
    model = keras.Model(x, L.Dense(1)(base(x, training=True)))
    heads = gd.MultiLossModel.from_model(model, at="base/h").heads
    assert np.abs(heads(a) - heads(a)).max() > 0


def test_names_of_an_opened_model_must_differ_from_those_outside():
    inner = keras.Input([6])
    h = L.Dense(6, name="h")(inner)
    base = keras.Model(inner, L.Dense(6, name="same")(h), name="base")
    x = keras.Input([8])
    h = base(L.Dense(6, name="stem")(x))
    model = keras.Model(x, L.Dense(1, name="same")(h))
    refused(model, "base/h", "several named 'same' behind the cut")
    gd.MultiLossModel.from_model(model, at="base")


def deep():
    """A backbone with a residual and a trunk that both outputs share."""
    x = keras.Input([8])
    stem = L.Dense(6, name="stem")(x)
    inner = keras.Input([6])
    first = L.Dense(6, name="first")(inner)
    second = L.Dense(6, name="second")(first)
    add = L.Add(name="add")([first, second])
    body = keras.Model(inner, add, name="body")
    h = L.Dense(6, name="neck")(body(stem))
    return keras.Model(x, [L.Dense(1, name="a")(h), L.Dense(1, name="b")(h)])


def pasted(error):
    """Returns the first `at` that an error tells to use."""
    text = re.search(r"at=(\[.*?\]|[\"'].*?[\"'])", str(error.value)).group(1)
    return eval(text, {})


def refused(model, at, match):
    with pytest.raises(ValueError, match=match) as error:
        gd.MultiLossModel.from_model(model, at=at)
    return error


def test_what_bypasses_the_cut_is_named_and_can_be_pasted():
    error = refused(deep(), "body/second", "'body/first', past the cut")
    assert pasted(error) == ["body/second", "body/first"]
    model = gd.MultiLossModel.from_model(deep(), at=pasted(error))
    assert len(model.trunk.outputs) == 2
    with pytest.raises(ValueError, match="'body/first', past the cut"):
        gd.insert(deep(), gd.GradDrop(), at="body/second")


def test_an_unknown_name_is_answered_with_those_that_are():
    refused(deep(), "stam", "no layer 'stam' .*mean 'stem'")
    refused(deep(), "qqq", "There are .*'body/second'")
    assert pasted(refused(deep(), "second", "nested")) == "body/second"
    model = deep()
    refused(model, model.layers[0].name, "an input")


@pytest.mark.parametrize("at", [[], ["stem", "stem"], 3, None, [3]])
def test_at_is_names(at):
    refused(deep(), at, "`at` must be the name")


def test_a_cut_has_something_behind_it():
    refused(deep(), ["a", "b"], "no layer behind")
    refused(deep(), ["stem", "neck"], "none does. Received: at=.stem")


class Subclassed(keras.Model):
    """A model without a graph."""

    def call(self, x):
        return x


class Overridden(keras.Model):
    """A functional model whose call is not its graph."""

    def call(self, x, training=None, mask=None):
        return super().call(x) + 1.0


def test_models_without_a_graph_are_refused():
    x = keras.Input([2])
    for model in (
        Subclassed(),
        keras.Sequential([L.Dense(1, name="h")]),
        Overridden(x, L.Dense(1, name="h")(x)),
        L.Dense(1),
        None,
    ):
        error = refused(model, "h", r"gd.MultiLossModel\(trunk, heads\)")
        assert "\n" not in str(error.value)


def test_models_that_combine_already_are_refused():
    model = deep()
    ours = gd.MultiLossModel.from_model(model, at="neck")
    refused(ours, "neck", "a gd.MultiLossModel already")
    inserted = gd.insert(model, gd.GradDrop(), at="neck")
    refused(inserted, "neck", "holds a combiner")
    with pytest.raises(ValueError, match="takes a combiner"):
        gd.insert(model, "graddrop", at="neck")


def test_outputs_that_share_a_layer_are_told_where_to_cut():
    with pytest.raises(ValueError, match="share .*'neck'") as error:
        gd.insert(deep(), gd.PCGrad(), at="stem")
    assert pasted(error) == "neck"
    gd.insert(deep(), gd.PCGrad(), at=pasted(error))
    # An output reads a tensor in front of the last that is shared.
    x = keras.Input([8])
    h = L.Dense(6, name="h")(x)
    late = L.Dense(6, name="late")(h)
    a = L.Dense(1)(late)
    model = keras.Model(x, [a, L.Dense(1)(L.Concatenate()([late, h]))])
    with pytest.raises(ValueError, match="share 'late'") as error:
        gd.insert(model, gd.PCGrad(), at="h")
    gd.insert(model, gd.PCGrad(), at=pasted(error))


def test_the_combiner_is_for_as_many_losses_as_there_are_outputs():
    with pytest.raises(ValueError, match="num_losses=2, .*num_losses=3"):
        gd.insert(deep(), gd.PCGrad(num_losses=3), at="neck")
    x = keras.Input([8])
    h = L.Dense(6, name="h")(x)
    # The second output does not depend on the cut.
    outputs = [L.Dense(1)(h), L.Dense(1)(x), L.Dense(1)(h)]
    model = keras.Model(x, outputs)
    inserted = gd.insert(model, gd.PCGrad(), at="h")
    (layer,) = [m for m in inserted.layers if isinstance(m, gd.PCGrad)]
    assert layer.num_losses == 2
    assert_same(inserted(X), model(X))


def heads_in_a_model():
    """Heads that are a model of two outputs, which is opened."""
    x, shared = keras.Input([8]), keras.Input([6])
    heads = keras.Model(shared, [L.Dense(1)(shared), L.Dense(1)(shared)])
    h = L.Dense(6, activation="tanh", name="h")(x)
    return keras.Model(x, heads(h)), "h", X, [YA, YB]


def u_net_by_output():
    """Two decoders, each on all skips."""
    x = keras.Input([8, 8, 2])
    first = L.Conv2D(3, 3, padding="same", name="first")(x)
    second = L.Conv2D(3, 3, name="second", padding="same", strides=2)(first)
    outputs = []
    for _ in range(2):
        up = L.Concatenate()([first, L.UpSampling2D()(second)])
        pooled = L.GlobalAveragePooling2D()(L.Conv2D(2, 3)(up))
        outputs.append(L.Dense(1)(pooled))
    return keras.Model(x, outputs), ["second", "first"], IMAGES, [YA, YB]


def _updates(model, x, y, variables):
    """Returns what a step of SGD adds to some variables."""
    before = [v.numpy() for v in variables]
    model.compile("sgd", ["mse", "mae"])
    model.train_on_batch(x, y)
    updates = [v.numpy() - b for v, b in zip(variables, before, strict=True)]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return updates


def masked_outputs():
    model, _, x, y = masked()
    return model, "read", x, y


@pytest.mark.parametrize(
    ("case", "method"),
    [
        (two_heads, gd.PCGrad),
        (heads_in_a_model, gd.MGDA),
        (u_net_by_output, lambda: gd.GradDrop(seed=3)),
        (masked_outputs, lambda: gd.GradDrop(2, seed=3)),
    ],
)
def test_inserted_combiner_trains_as_the_recipe(case, method, tmp_path):
    model, at, x, y = case()
    variables = model.trainable_variables
    by_recipe = gd.MultiLossModel.from_model(model, at=at, recipe=method())
    inserted = gd.insert(model, method(), at=at)
    assert [*inserted.output_names] == [*model.output_names]
    assert ids(inserted.trainable_weights) == ids(variables)
    plain = gd.inference_model(inserted)
    expected = model.predict(x, verbose=0)
    for same in (inserted, plain):
        assert_same(same.predict(x, verbose=0), expected)
    assert not any(isinstance(m, gd.Combiner) for m in plain.layers)
    inserted.save(tmp_path / "inserted.keras")
    loaded = keras.models.load_model(tmp_path / "inserted.keras")
    assert_same(loaded.predict(x, verbose=0), expected)
    assert_same(
        _updates(inserted, x, y, variables),
        _updates(by_recipe, x, y, variables),
        rtol=1e-5,
    )


def test_inserted_pcgrad_is_that_of_the_equation():
    model, at, x, _ = two_heads()
    kernel = model.get_layer(at).kernel
    trunk = keras.Model(model.input, model.get_layer(at).output)
    heads = [model.get_layer(name) for name in ("out_a", "out_b")]
    with tf.GradientTape(persistent=True) as tape:
        shared = trunk(x)
        tape.watch(shared)
        a, b = (
            tf.reduce_mean(tf.square(head(shared) - label))
            for head, label in zip(heads, (YA, -YA), strict=True)
        )
    first, second = (tape.gradient(v, shared).numpy() for v in (a, b))
    dot = np.sum(first * second)
    total = first + second
    if dot < 0:
        total -= dot / np.sum(second**2) * second
        total -= dot / np.sum(first**2) * first
    expected = tape.gradient(shared, kernel.value, tf.constant(total))
    inserted = gd.insert(model, gd.PCGrad(), at=at)
    inserted.compile(keras.optimizers.SGD(1.0), ["mse", "mse"])
    before = kernel.numpy()
    inserted.train_on_batch(x, [YA, -YA])
    np.testing.assert_allclose(before - kernel, expected, rtol=1e-5, atol=1e-6)


def mobile_net():
    base = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, alpha=0.35, weights=None
    )
    pooled = L.GlobalAveragePooling2D(name="pool")(base.output)
    outputs = [L.Dense(1, name=name)(pooled) for name in "ab"]
    return keras.Model(base.input, outputs)


def test_mobile_net_is_cut_and_branched():
    model = mobile_net()
    x = _RANDOM.normal(size=(2, 32, 32, 3)).astype("float32")
    expected = model.predict(x, verbose=0)
    error = refused(model, "block_4_project", "past the cut")
    names = pasted(error)
    assert names[0] == "block_4_project"
    assert len(names) == 2
    for at in (names, "block_6_project_BN"):
        ours = gd.MultiLossModel.from_model(model, at=at, recipe="graddrop")
        assert_same(ours(x), expected, rtol=1e-4, atol=1e-5)
    inserted = gd.insert(model, gd.GradDrop(), at="pool")
    for trained in (ours, inserted):
        before = [w.numpy() for w in ours.trunk.trainable_weights]
        trained.compile("sgd", ["mse", "mse"], run_eagerly=True)
        trained.train_on_batch(x, [YA[:2], YB[:2]])
        after = ours.trunk.trainable_weights
        moved = [(a != b).any() for a, b in zip(before, after, strict=True)]
        assert any(moved)
