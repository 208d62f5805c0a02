"""Models that people have: trained, saved, loaded, exported, and by NumPy.

Each is a functional Keras model with two outputs. It is cut at `at`, as a
`gd.MultiLossModel`, and a layer is inserted behind `behind`, the last layer
that its outputs share.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import largest_difference
from tests.graddrop_tf.separate_tapes import RECIPES, expected, stepped

L = keras.layers
RANDOM = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A model that people have.

    Attributes:
        make: Builds it.
        at: Where it is cut.
        behind: Where a layer is inserted.
        x: A batch for it.
        is_deep: Whether it has some hundred layers.
    """

    make: Callable[[], keras.Model]
    at: Any
    behind: Any
    x: Any
    is_deep: bool = False


def images(size, channels=3):
    return RANDOM.normal(size=[8, size, size, channels]).astype("float32")


def with_heads(inputs, features):
    outputs = [L.Dense(1, name=name)(features) for name in "ab"]
    return keras.Model(inputs, outputs)


def mobilenet():
    base = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), include_top=False, weights=None, alpha=0.35
    )
    pooled = L.GlobalAveragePooling2D(name="pooled")(base.output)
    return with_heads(base.input, pooled)


def nested(application, **kwargs):
    """A backbone as one layer, as in Keras' guide to transfer learning."""
    base = application(
        input_shape=(32, 32, 3), include_top=False, weights=None, **kwargs
    )
    for layer in base.layers:
        if isinstance(layer, L.Dropout):
            # A second pass would draw other masks.
            layer.rate = 0.0
    inputs = keras.Input([32, 32, 3])
    pooled = L.GlobalAveragePooling2D(name="pooled")(base(inputs))
    return with_heads(inputs, pooled)


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class DictBackbone(keras.Model):
    """An encoder of text in the manner of KerasHub: dicts in and out."""

    def __init__(self, **kwargs):
        tokens = keras.Input([6], dtype="int32", name="token_ids")
        padding = keras.Input([6], dtype="int32", name="padding_mask")
        x = L.Embedding(11, 8, name="token_embedding")(tokens)
        x = attention_block(x, padding, "layer_0")
        pooled = L.Dense(8, activation="tanh", name="pooled_dense")(x[:, 0])
        super().__init__(
            inputs={"token_ids": tokens, "padding_mask": padding},
            outputs={"sequence_output": x, "pooled_output": pooled},
            **kwargs,
        )


def attention_block(x, padding, name):
    mask = keras.ops.cast(padding, "bool")[:, None, :]
    attention = L.MultiHeadAttention(2, 4, name=f"{name}_attention")
    x = L.LayerNormalization(name=f"{name}_norm")(
        x + attention(x, x, attention_mask=mask)
    )
    return x + L.Dense(8, activation="gelu", name=f"{name}_feed_forward")(x)


def tokens():
    token_ids = RANDOM.integers(1, 11, [4, 6]).astype("int32")
    padding = np.ones([4, 6], "int32")
    padding[1::2, 4:] = 0
    return {"token_ids": token_ids, "padding_mask": padding}


def text_inputs():
    return {
        name: keras.Input([6], dtype="int32", name=name)
        for name in ("token_ids", "padding_mask")
    }


def kerashub():
    inputs = text_inputs()
    features = DictBackbone(name="backbone")(inputs)
    mean = L.GlobalAveragePooling1D()(features["sequence_output"])
    return keras.Model(
        inputs,
        [
            L.Dense(1, name="a")(mean),
            L.Dense(1, name="b")(features["pooled_output"]),
        ],
    )


def transformer():
    inputs = text_inputs()
    x = L.Embedding(11, 8, mask_zero=True)(inputs["token_ids"])
    for i in range(2):
        x = attention_block(x, inputs["padding_mask"], f"block_{i}")
    x = L.LayerNormalization(name="encoded")(x)
    return keras.Model(
        inputs,
        [L.Dense(1, name="a")(x), L.Dense(1, name="b")(x[:, 0])],
    )


def lstm():
    inputs = keras.Input([None], dtype="int32")
    x = L.Embedding(11, 6, mask_zero=True)(inputs)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True), name="encoder")(x)
    return keras.Model(
        inputs,
        [
            L.Dense(1, name="a")(x),
            L.Dense(1, name="b")(L.GlobalAveragePooling1D()(x)),
        ],
    )


def conv(filters, name, strides=1):
    return L.Conv2D(filters, 3, strides, "same", activation="tanh", name=name)


def unet():
    image = keras.Input([8, 8, 1])
    first = conv(2, "first")(image)
    second = conv(3, "second", 2)(first)
    bottom = conv(4, "bottom", 2)(second)
    outputs = []
    for name in "ab":
        up = L.Concatenate()([L.UpSampling2D()(bottom), second])
        up = L.UpSampling2D()(conv(2, f"{name}_up")(up))
        up = L.Concatenate()([up, first])
        outputs.append(L.Conv2D(1, 1, name=name)(up))
    return keras.Model(image, outputs)


def pyramid():
    """Three levels; heads for classes and boxes that all levels share."""
    image = keras.Input([16, 16, 1])
    levels, x = [], image
    for level in range(3):
        x = conv(4, f"c{level}", 2)(x)
        levels.append(L.Conv2D(4, 1, name=f"p{level}")(x))
    outputs = {}
    for kind, filters in ("classes", 2), ("boxes", 4):
        head = L.Conv2D(filters, 3, padding="same", name=f"{kind}_head")
        flat = [L.Reshape([-1, filters])(head(p)) for p in levels]
        outputs[kind] = L.Concatenate(axis=1, name=kind)(flat)
    return keras.Model(image, outputs)


PYRAMID = ["p0", "p1", "p2"]
SKIPS = ["first", "second", "bottom"]
APPLICATIONS = keras.applications
BACKBONES = {
    "MobileNetV2": Backbone(
        mobilenet, "block_6_project_BN", "pooled", images(32), is_deep=True
    ),
    "ResNet50": Backbone(
        lambda: nested(APPLICATIONS.ResNet50),
        "resnet50/conv5_block3_out",
        "pooled",
        images(32),
        is_deep=True,
    ),
    "EfficientNetB0": Backbone(
        lambda: nested(APPLICATIONS.EfficientNetB0),
        "efficientnetb0/block6d_add",
        "pooled",
        images(32),
        is_deep=True,
    ),
    "KerasHub": Backbone(kerashub, "backbone", "backbone", tokens()),
    "LSTM": Backbone(lstm, "encoder", "encoder", tokens()["token_ids"]),
    "transformer": Backbone(transformer, "encoded", "encoded", tokens()),
    "U-Net": Backbone(unet, SKIPS, SKIPS, images(8, 1)),
    "pyramid": Backbone(pyramid, PYRAMID, PYRAMID, images(16, 1)),
}
every = pytest.mark.parametrize("name", BACKBONES)


def labels(model, x):
    """Labels that no head fits, in the structure of the outputs."""
    outputs = model.predict(x, verbose=0)
    return keras.tree.map_structure(
        lambda o: np.random.default_rng(1).normal(size=o.shape), outputs
    )


def losses(model):
    if isinstance(model.output, dict):
        return dict.fromkeys(model.output, "mse")
    return ["mse"] * len(model.outputs)


@every
def test_gradients_equal_numpy(name):
    backbone = BACKBONES[name]
    keras.utils.set_random_seed(2)
    model = backbone.make()
    y = labels(model, backbone.x)
    weights = model.get_weights()
    for recipe in ("graddrop", "pcgrad", "mgda"):
        model.set_weights(weights)
        ours = gd.MultiLossModel.from_model(
            model, at=backbone.at, recipe=RECIPES[recipe]
        )
        # In a graph the batch norms of fifty layers round in other ways.
        ours.compile(keras.optimizers.SGD(1.0), losses(model), run_eagerly=True)
        want = expected(ours, backbone.x, y, recipe)
        size = max(np.abs(w).max() for w in want)
        assert size > 1e-3
        got = stepped(ours, backbone.x, y)
        assert largest_difference(got, want) < 1e-5 * max(1, size), recipe


# To trace hundreds of layers takes long: a deep backbone is cut once.
CUT = [(name, "graddrop") for name in BACKBONES]
CUT += [(name, "layer") for name, b in BACKBONES.items() if not b.is_deep]


@pytest.mark.parametrize(("name", "form"), CUT)
def test_trains_saves_loads_exports(name, form, tmp_path):
    backbone = BACKBONES[name]
    keras.utils.set_random_seed(2)
    model = backbone.make()
    y = labels(model, backbone.x)
    if form == "layer":
        ours = gd.insert(model, gd.GradDrop(seed=1), at=backbone.behind)
    else:
        ours = gd.MultiLossModel.from_model(
            model, at=backbone.at, recipe=f"{form}(seed=1)"
        )
    assert_predicts(ours.predict(backbone.x, verbose=0), model, backbone.x)
    ours.compile(keras.optimizers.SGD(1e-4), losses(model))
    before = model.get_weights()
    ours.fit(backbone.x, y, verbose=0)
    # The weights are those of the model that was there.
    assert largest_difference(model.get_weights(), before) > 0
    want = model.predict(backbone.x, verbose=0)
    ours.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_predicts(want, loaded, backbone.x)
    ours.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    assert_equal(exported.serve(backbone.x), want)
    gd.inference_model(ours).save(tmp_path / "plain.keras")


def assert_predicts(want, model, x):
    got = model.predict(x, verbose=0)
    keras.tree.assert_same_structure(got, want)
    assert_equal(got, want)


def assert_equal(got, want):
    pairs = zip(tf.nest.flatten(got), tf.nest.flatten(want), strict=True)
    for a, b in pairs:
        size = max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("form", ["functional", "subclassed"])
def test_a_backbone_of_dicts_is_a_trunk_as_it_is(form):
    keras.utils.set_random_seed(2)
    trunk, x = DictBackbone(), tokens()
    if form == "functional":
        # It reads one of the two.
        shared = {
            "sequence_output": keras.Input([6, 8], name="sequence_output"),
            "pooled_output": keras.Input([8], name="pooled_output"),
        }
        pooled = L.GlobalAveragePooling1D()(shared["sequence_output"])
        outputs = [L.Dense(1, name=name)(pooled) for name in "ab"]
        heads = keras.Model(shared, outputs)
    else:
        heads = DictHeads()
    model = gd.MultiLossModel(trunk, heads, recipe=RECIPES["pcgrad"])
    model.compile(keras.optimizers.SGD(1.0), ["mse", "mse"])
    y = labels(model, x)
    want = expected(model, x, y, "pcgrad")
    assert max(np.abs(w).max() for w in want) > 1e-3
    assert largest_difference(stepped(model, x, y), want) < 1e-5


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class DictHeads(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b = L.Dense(1), L.Dense(1)

    def call(self, features):
        return [
            self.a(features["pooled_output"]),
            self.b(features["sequence_output"]),
        ]


@pytest.mark.parametrize("form", ["model", "layer"])
def test_lora_trains_its_weights_alone(form, tmp_path):
    """What Keras calls `enable_lora` of a backbone, layer by layer."""
    keras.utils.set_random_seed(2)
    model, x = kerashub(), tokens()
    backbone = model.get_layer("backbone")
    backbone.trainable = False
    names = ("pooled_dense", "layer_0_feed_forward")
    adapted = [backbone.get_layer(name) for name in names]
    for layer in adapted:
        layer.trainable = True
        layer.enable_lora(2)
    if form == "model":
        ours = gd.MultiLossModel.from_model(model, "backbone", "graddrop")
    else:
        ours = gd.insert(model, gd.GradDrop(), at="backbone")
    ours.compile("sgd", ["mse", "mse"])
    before = {w.path: w.numpy() for w in backbone.weights}
    ours.fit(x, labels(model, x), epochs=2, verbose=0)
    moved = {
        w.path for w in backbone.weights if (w.numpy() != before[w.path]).any()
    }
    trained = {w.path for layer in adapted for w in layer.trainable_weights}
    assert moved == trained and any("lora" in path for path in moved)
    ours.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_predicts(model.predict(x, verbose=0), loaded, x)
