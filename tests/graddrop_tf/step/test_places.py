"""Several shared tensors, against NumPy on gradients from separate tapes.

The trunk's gradient is computed with a tape over the trunk, another over the
heads, and the slow reference between them: tensor by tensor for GradDrop, on
all tensors together for PCGrad and MGDA.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.step.forward import distinct
from tests.graddrop_tf.models import largest_difference, squared_errors
from tests.graddrop_tf.separate_tapes import RECIPES, expected, stepped

layers = keras.layers
IN_CHUNKS = ["graddrop", "renormalized", "per example"]


def conv(filters, strides=1, name=None):
    return layers.Conv2D(
        filters, 3, strides, "same", activation="tanh", name=name
    )


def unet():
    """A U-Net cut at all its skips, each computed from the one before."""
    image = keras.Input([8, 8, 1])
    first = conv(2)(image)
    second = conv(3, 2)(first)
    bottom = conv(4, 2)(second)
    trunk = keras.Model(image, [first, second, bottom])
    skips = [keras.Input(s.shape[1:]) for s in trunk.output]
    outputs = []
    for name in "ab":
        up = layers.UpSampling2D()(skips[2])
        up = conv(2)(layers.Concatenate()([up, skips[1]]))
        up = layers.UpSampling2D()(up)
        up = conv(2)(layers.Concatenate()([up, skips[0]]))
        outputs.append(layers.Conv2D(1, 1, name=name)(up))
    return trunk, keras.Model(skips, outputs), ([8, 8, 1], [8, 8, 1])


def pyramid(form):
    """Three levels in a list or a dict; one loss does not see them all."""
    image = keras.Input([8, 8, 1])
    levels, x = {}, image
    # Not in the order of their names.
    for name, filters in ("p5", 2), ("p3", 3), ("p4", 4):
        x = levels[name] = conv(filters, 2)(x)
    make = dict if form == "dict" else lambda named: list(named.values())
    trunk = keras.Model(image, make(levels))
    inputs = {n: keras.Input(t.shape[1:]) for n, t in levels.items()}
    pooled = {n: layers.GlobalAveragePooling2D()(t) for n, t in inputs.items()}
    a = layers.Concatenate()(list(pooled.values()))
    b = layers.Concatenate()([pooled["p5"], pooled["p4"]])
    outputs = [layers.Dense(2, name=n)(x) for n, x in (("a", a), ("b", b))]
    return trunk, keras.Model(make(inputs), outputs), ([2], [2])


def reading_inputs():
    """Heads that also read the image, and a number of each example."""
    image, number = keras.Input([8, 8, 1]), keras.Input([], dtype="int32")
    features = conv(3)(image)
    trunk = keras.Model([image, number], [features, image, number])
    shared = [keras.Input(t.shape[1:], dtype=t.dtype) for t in trunk.output]
    z = layers.Concatenate()([shared[0], shared[1]])
    z = layers.GlobalAveragePooling2D()(z)
    embedded = layers.Embedding(4, 2)(shared[2])
    outputs = [
        layers.Dense(2, name=name)(layers.Concatenate()([z, embedded]))
        for name in "ab"
    ]
    return trunk, keras.Model(shared, outputs), ([2], [2])


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Handing(keras.Model):
    """A subclassed trunk that hands its inputs on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = conv(3)

    def call(self, inputs):
        return [self.conv(inputs[0]), *inputs]


def reading_inputs_of_a_subclass():
    _, heads, shapes = reading_inputs()
    return Handing(), heads, shapes


NETWORKS = {
    "unet": unet,
    "list": lambda: pyramid("list"),
    "dict": lambda: pyramid("dict"),
    "inputs": reading_inputs,
    "subclass": reading_inputs_of_a_subclass,
}
# The tensors that a trunk only hands on.
HANDED_ON = {"inputs": (1, 2), "subclass": (1, 2)}


def make(network, recipe, optimizer=None, **options):
    """Builds the model; the same weights each time, and a batch for it."""
    keras.utils.set_random_seed(4)
    trunk, heads, shapes = NETWORKS[network]()
    model = gd.MultiLossModel(trunk, heads, RECIPES[recipe], **options)
    model.compile(optimizer or keras.optimizers.SGD(1.0), ["mse", "mse"])
    random = np.random.RandomState(5)
    x = random.randn(4, 8, 8, 1).astype("float32")
    y = [random.randn(4, *shape).astype("float32") for shape in shapes]
    if network in HANDED_ON:
        x = [x, np.arange(4, dtype="int32")]
    # Builds a subclass, which has weights to compare then.
    model.predict(x, verbose=0)
    return model, x, y


every = pytest.mark.parametrize(
    ("network", "recipe"),
    [
        (n, r)
        for n in NETWORKS
        for r in (RECIPES if n == "unet" else ("graddrop", "pcgrad", "mgda"))
    ],
)


@every
def test_step_equals_numpy(network, recipe):
    model, x, y = make(network, recipe)
    want = expected(model, x, y, recipe, HANDED_ON.get(network, ()))
    assert max(np.abs(w).max() for w in want) > 0.01
    assert largest_difference(stepped(model, x, y), want) < 1e-5


@every
def test_two_replicas_equal_numpy(network, recipe, mirrored):
    model, x, y = make(network, recipe)
    want = expected(model, x, y, recipe, HANDED_ON.get(network, ()))
    with mirrored(2).scope():
        model, x, y = make(network, recipe)

    def train(x, y):
        model.fit(x, y, batch_size=4, verbose=0)

    assert largest_difference(stepped(model, x, y, train), want) < 1e-5


@pytest.mark.parametrize(
    ("network", "recipe"),
    [("list", "graddrop"), ("dict", "graddrop")]
    + [("unet", r) for r in IN_CHUNKS],
)
def test_chunks_equal_numpy(network, recipe):
    model, x, y = make(network, recipe, loss_chunk_size=1)
    want = expected(model, x, y, recipe)
    assert largest_difference(stepped(model, x, y), want) < 1e-5


@every
def test_loss_scale_and_saving_equal_numpy(network, recipe, tmp_path):
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    model, x, y = make(network, recipe, optimizer)
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    want = expected(model, x, y, recipe, HANDED_ON.get(network, ()))
    assert largest_difference(stepped(model, x, y), want) < 1e-5


@pytest.mark.parametrize("recipe", ["graddrop", "mgda"])
@pytest.mark.parametrize("network", ["unet", "dict"])
def test_custom_loop_equals_numpy(network, recipe):
    model, x, y = make(network, recipe)
    state = model.recipe.build(num_losses=2)
    variables = model.trunk.trainable_variables

    @tf.function
    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            activations = tf.nest.map_structure(tf.identity, model.trunk(x))
            outputs = model.heads(activations)
            losses = [
                tf.reduce_mean((o - t) ** 2)
                for o, t in zip(outputs, y, strict=True)
            ]
        return gd.compute_gradients(tape, losses, activations, variables, state)

    got = [g.numpy() for g in gradients()]
    assert largest_difference(got, expected(model, x, y, recipe)) < 1e-5


def test_custom_loop_refuses_activations_of_each_other():
    """Gradients one by one would count twice; the plain sum is right."""
    model, x, _ = make("unet", "graddrop")
    variables = [v.value for v in model.trunk.trainable_variables]
    with tf.GradientTape(persistent=True) as tape:
        activations = model.trunk(x)
        losses = [tf.reduce_sum(o) for o in model.heads(activations)]
        total = tf.add_n(losses)

    def gradients(recipe):
        state = gd.Recipe.parse(recipe).build(num_losses=2)
        return gd.compute_gradients(tape, losses, activations, variables, state)

    with pytest.raises(ValueError, match=r"tf.identity.*the one at 0"):
        gradients("graddrop")
    pairs = zip(
        gradients("baseline"), tape.gradient(total, variables), strict=True
    )
    for got, want in pairs:
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("recipe", ["graddrop", "pcgrad"])
@pytest.mark.parametrize("network", ["list", "dict"])
def test_layer_equals_numpy(network, recipe, tmp_path):
    parts, x, y = make(network, recipe)
    (method,) = parts.recipe.combiners
    layer = method.build(num_losses=2, separate=False)
    branches = layer(parts.trunk.output)
    outputs = [parts.heads(b)[i] for i, b in enumerate(branches)]
    model = keras.Model(parts.trunk.input, outputs)
    model.compile(keras.optimizers.SGD(1.0), ["mse", "mse"])
    model.save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    trunk = [v.name for v in parts.trunk.trainable_variables]
    before = [v.numpy() for v in model.trainable_variables[: len(trunk)]]
    model.train_on_batch(x, y)
    got = [
        b - v.numpy()
        for b, v in zip(before, model.trainable_variables, strict=False)
    ]
    assert largest_difference(got, expected(parts, x, y, recipe)) < 1e-5
    plain = gd.inference_model(model)
    for a, b in zip(plain(x), model(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_vector_of_losses_equals_scalars(chunk):
    """Three losses of one output: batched backward passes over a dict."""
    scalars, x, _ = make("dict", "graddrop")
    pooled = [layers.GlobalAveragePooling2D()(t) for t in scalars.heads.inputs]
    outputs = layers.Dense(3, name="out")(layers.Concatenate()(pooled))
    columns = [outputs[:, i : i + 1] for i in range(3)]
    y = np.random.RandomState(6).randn(4, 3).astype("float32")
    steps = []
    for output, loss, labels, size in (
        (columns, "mse", [y[:, i : i + 1] for i in range(3)], None),
        (outputs, gd.VectorLoss(squared_errors, names="abc"), y, chunk),
    ):
        heads = keras.Model(scalars.heads.input, output)
        model = gd.MultiLossModel(
            scalars.trunk, heads, RECIPES["graddrop"], loss_chunk_size=size
        )
        model.compile(keras.optimizers.SGD(1.0), loss)
        weights = model.get_weights()
        steps.append(stepped(model, x, labels))
        model.set_weights(weights)
    assert max(np.abs(w).max() for w in steps[0]) > 0.01
    assert largest_difference(*steps) < 1e-5


def test_gradnorm_sees_the_norms_over_all_tensors():
    model, x, y = make("dict", "graddrop")
    activations = model.trunk(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(activations)
        outputs = model.heads(activations)
        losses = [
            tf.reduce_mean((o - t) ** 2)
            for o, t in zip(outputs, y, strict=True)
        ]
    norms = []
    for loss in losses:
        blocks = tape.gradient(
            loss,
            tf.nest.flatten(activations),
            unconnected_gradients="zero",
        )
        flat = np.concatenate([b.numpy().ravel() for b in blocks])
        norms.append(np.linalg.norm(flat))
    want = gd.GradNorm(alpha=0.0)
    want.build(2)
    want.update(tf.stack(losses), tf.constant(norms, tf.float32))
    trained = gd.MultiLossModel(
        model.trunk, model.heads, gd.GradNorm(alpha=0.0)
    )
    trained.compile(keras.optimizers.SGD(0.0), ["mse", "mse"])
    trained.train_on_batch(x, y)
    got = trained.recipe_state.weighting.current_weights()
    assert np.ptp(got) > 0.001
    np.testing.assert_allclose(got, want.current_weights(), rtol=1e-6)


def test_tensors_draw_apart():
    """A fair coin falls differently at two tensors of equal gradients."""
    layer = gd.RandomGradDrop(num_losses=2, separate=False, seed=1)
    x = [tf.ones([1, 64]), tf.ones([1, 64])]
    with tf.GradientTape() as tape:
        tape.watch(x)
        a, b = layer(x, training=True)
        total = tf.add_n([tf.reduce_sum(p - q) for p, q in zip(a, b)])
    first, second = tape.gradient(total, x)
    assert set(np.unique(first)) == set(np.unique(second)) == {-1.0, 1.0}
    assert not np.array_equal(first, second)


def test_an_absent_tensor_stays_absent():
    tensor = tf.ones([2])
    first, second, *absent = distinct([tensor, tensor, None, None])
    assert first is tensor and second is not tensor
    assert absent == [None, None]


def test_a_tensor_given_twice_counts_once_each():
    """Its gradients are those at the copy that each head takes."""
    inputs = keras.Input([3])
    features = layers.Dense(4)(inputs)
    trunk = keras.Model(inputs, [features, features])
    shared = [keras.Input([4]), keras.Input([4])]
    heads = keras.Model(shared, [layers.Dense(1)(s) for s in shared])
    model = gd.MultiLossModel(trunk, heads)
    model.compile(keras.optimizers.SGD(1.0), ["mse", "mse"])
    random = np.random.RandomState(0)
    x = random.randn(5, 3).astype("float32")
    y = [random.randn(5, 1).astype("float32") for _ in range(2)]
    with tf.GradientTape() as tape:
        loss = tf.add_n(
            [
                tf.reduce_mean((o - t) ** 2)
                for o, t in zip(model(x), y, strict=True)
            ]
        )
    want = tape.gradient(loss, [v.value for v in trunk.trainable_variables])
    got = stepped(model, x, y)
    assert largest_difference(got, [w.numpy() for w in want]) < 1e-5
