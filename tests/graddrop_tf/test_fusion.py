"""Functions of large tensors, compiled where that pays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.fusion import fused

LARGE = (2, 512, 1024)
MASKING = {
    "plain": {},
    "leaks": {"leak": [0.0, 0.25, 1.0]},
    "by example": {"marginalize_batch": False},
    "renormalized": {"renormalize": True},
}


def negative_sum(tensors):
    return -tf.add_n(tensors)


def compiles(*specs):
    """Returns whether a function of such tensors is compiled by XLA."""
    graph = tf.function(lambda *tensors: fused(negative_sum, tensors))
    definition = graph.get_concrete_function(*specs).graph.as_graph_def()
    return any("_XlaMustCompile" in node.attr for node in definition.node)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (LARGE, True),
        ((1, 1023, 1024), False),
        ((None, 1024, 1024), True),
        ((None, 1024), False),
        ((2, None, 2**20), False),
        (None, False),
        ((), False),
    ],
)
def test_compiles_large_tensors_of_known_examples(shape, expected):
    if tf.config.list_logical_devices("GPU"):
        pytest.skip("a GPU runs op by op")
    assert compiles(*[tf.TensorSpec(shape)] * 2) == expected


def test_is_the_function_in_a_graph_of_two_batch_sizes_and_eagerly():
    graph = tf.function(
        lambda *tensors: fused(negative_sum, tensors),
        input_signature=[tf.TensorSpec([None, 1024, 1024])] * 2,
    )
    for batch_size in (1, 2):
        tensors = [tf.fill([batch_size, 1024, 1024], v) for v in (1.0, 2.0)]
        for values in graph(*tensors), fused(negative_sum, tensors):
            assert values.shape == tensors[0].shape
            assert np.all(values == -3.0)


def trained_kernel(strategy, recipe):
    """Trains a convolution on three losses of a large map for a step."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        inputs = keras.Input([64, 64, 1])
        trunk = keras.Model(inputs, keras.layers.Conv2D(256, 1)(inputs))
        shared = keras.Input([64, 64, 256])
        outputs = [keras.layers.Dense(1)(shared) for _ in range(3)]
        model = gd.MultiLossModel(
            trunk, keras.Model(shared, outputs), recipe=recipe
        )
        model.compile(keras.optimizers.SGD(0.1), ["mse"] * 3, jit_compile=False)
    generator = np.random.default_rng(0)
    x, *y = generator.standard_normal([4, 4, 64, 64, 1], np.float32)
    before = trunk.get_weights()[0]
    model.fit(x, y, batch_size=4, verbose=0)
    return trunk.get_weights()[0] - before


@pytest.mark.parametrize("recipe", ["graddrop(seed=1)", "pcgrad(seed=1)"])
def test_large_maps_on_two_replicas_are_those_of_one(recipe, mirrored):
    one = trained_kernel(tf.distribute.get_strategy(), recipe)
    two = trained_kernel(mirrored(2), recipe)
    scale = np.abs(one).max()
    assert scale > 1e-3
    np.testing.assert_allclose(one / scale, two / scale, atol=1e-4)


def gradients_and_activations():
    generator = np.random.default_rng(0)
    *gradients, activations = (
        tf.constant(generator.standard_normal(LARGE, np.float32))
        for _ in range(4)
    )
    return gradients, activations


@pytest.mark.parametrize("arguments", MASKING.values(), ids=MASKING)
def test_graddrop_of_large_tensors_is_that_of_their_parts(arguments):
    """Positions are independent, so that small parts, not compiled, agree."""
    gradients, activations = gradients_and_activations()
    layer = gd.GradDrop(3, seed=5, **arguments)

    @tf.function
    def whole(gradients, activations):
        place = gd.places.of(activations)
        with gd.random.drawing(7):
            total = layer.combine_to_sum(gradients, place)
        with gd.random.drawing(7):
            return total, layer.combine_at(gradients, place)

    total, each = whole(gradients, activations)
    expected = np.sum(each, axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)
    dropped = np.isclose(total, np.sum(gradients, axis=0)).mean()
    assert dropped < 0.5


@pytest.mark.parametrize(
    "arguments",
    [{}, {"leak": [0.0, 0.25, 1.0]}, {"renormalize": True}],
    ids=["plain", "leaks", "renormalized"],
)
@pytest.mark.parametrize("batch_size", [2, None])
def test_graddrop_of_a_large_stack_is_that_of_a_list(arguments, batch_size):
    gradients, activations = gradients_and_activations()
    uniform = np.random.default_rng(1).random(LARGE[1:], np.float32)

    @tf.function(
        input_signature=[
            tf.TensorSpec([3, batch_size, *LARGE[1:]]),
            tf.TensorSpec([batch_size, *LARGE[1:]]),
        ]
    )
    def of_stack(stack, activations):
        masked = gd.graddrop(stack, activations, uniform=uniform, **arguments)
        return masked

    masked = of_stack(tf.stack(gradients), activations)
    expected = gd.graddrop(gradients, activations, uniform=uniform, **arguments)
    definition = of_stack.get_concrete_function().graph.as_graph_def()
    if not tf.config.list_logical_devices("GPU"):
        assert any("_XlaMustCompile" in n.attr for n in definition.node)
    for of_loss, reference in zip(masked, expected, strict=True):
        np.testing.assert_allclose(of_loss, reference, rtol=1e-6, atol=1e-6)


def test_gradients_of_a_large_stack_that_agree_all_pass():
    """The two sums of the purity are equal, so that P is exactly 1."""
    gradients, _ = gradients_and_activations()
    stack = (
        tf.abs(tf.stack(gradients))
        * tf.constant([1e-3, 1.0, 1e3])[:, None, None, None]
    )

    @tf.function
    def of_stack(stack):
        return gd.graddrop(
            stack, tf.ones(LARGE), uniform=tf.fill(LARGE[1:], 1 - 2.0**-24)
        )

    np.testing.assert_array_equal(tf.stack(of_stack(stack)), stack)


def test_a_sum_over_replicas_is_called_for_a_large_stack():
    gradients, activations = gradients_and_activations()
    called = []

    def replica_sum(value):
        called.append(value)
        return value

    @tf.function
    def of_stack(stack):
        return gd.graddrop(
            stack,
            activations,
            uniform=tf.fill(LARGE[1:], 0.5),
            replica_sum=replica_sum,
        )

    of_stack.get_concrete_function(tf.stack(gradients))
    assert len(called) == 1


def test_a_transform_of_the_user_is_not_compiled():
    """It may hold ops that XLA has not."""

    def transform(purity):
        return tf.ensure_shape(
            tf.numpy_function(lambda p: p, [purity], tf.float32), purity.shape
        )

    gradients, activations = gradients_and_activations()
    layer = gd.GradDrop(3, seed=5, purity_transform=transform)
    plain = gd.GradDrop(3, seed=5)

    @tf.function
    def total(layer):
        with gd.random.drawing(7):
            place = gd.places.of(activations)
            return layer.combine_to_sum(gradients, place)

    np.testing.assert_allclose(total(layer), total(plain), rtol=1e-6, atol=1e-6)

    @tf.function
    def of_stack(stack, **options):
        uniform = tf.fill(LARGE[1:], 0.5)
        return gd.graddrop(stack, activations, uniform=uniform, **options)

    stack = tf.stack(gradients)
    for found, expected in zip(
        of_stack(stack, purity_transform=transform),
        of_stack(stack),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
