"""Gram matrices and sums of gradients in all forms, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from graddrop_tf import linalg, products
from graddrop_tf.rows import SharedRows

SMALL = (2, 3, 5)
# In eight parts of 4,992 values.
PARTS = (13, 2**10, 3)
# In 256 parts of 6,740 values; 31 of five gradients at once, and a rest.
LARGE = (337, 20, 2**8)
WEIGHTS = np.array([0.5, -2.0, 3.0, 0.0, 1.0])


def random_gradients(shape, magnitudes=(1.0,) * 5):
    generator = np.random.default_rng(0)
    return [
        (magnitude * generator.standard_normal(shape)).astype(np.float32)
        for magnitude in magnitudes
    ]


def exact_gram(gradients):
    rows = np.stack([np.ravel(g).astype(np.float64) for g in gradients])
    return rows @ rows.T


def check_gram(gram, gradients, tolerance=1e-6):
    """Compares inner products, each as a share of the product of norms."""
    expected = exact_gram(gradients)
    norms = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        gram / np.outer(norms, norms),
        expected / np.outer(norms, norms),
        atol=tolerance,
        rtol=tolerance,
    )


@pytest.mark.parametrize(
    "shape", [SMALL, PARTS, LARGE], ids=["small", "parts", "large"]
)
@pytest.mark.parametrize(
    "magnitudes",
    [(1.0,) * 5, (1e30, 1e-30, 1.0, 1e10, 1e-20)],
    ids=["alike", "apart"],
)
def test_gram_and_weighted_sum(shape, magnitudes):
    gradients = random_gradients(shape, magnitudes)
    # In the range of float64 alone.
    weights = WEIGHTS / np.square(magnitudes)

    @tf.function
    def compute(gradients):
        rows = SharedRows.of(gradients)
        return rows.gram(), rows.weighted_sum(tf.constant(weights))

    gram, total = compute([tf.constant(g) for g in gradients])
    check_gram(gram.numpy(), gradients)
    terms = [w * g.astype(np.float64) for w, g in zip(weights, gradients)]
    largest = np.max(np.abs(terms), axis=0)
    finite = largest < 1e38
    error = np.abs(total - np.sum(terms, axis=0)) / largest
    assert np.max(error[finite]) < 1e-6
    assert finite.any()


@pytest.mark.parametrize("shape", [SMALL, PARTS], ids=["small", "parts"])
def test_values_below_zero_are_scaled_too(shape):
    """Their squares are not in the range of float32."""
    magnitudes = (-1e30, -1e-30, 1e30, -1.0, 1e-30)
    gradients = [
        (m * np.abs(g)).astype(np.float32)
        for m, g in zip(magnitudes, random_gradients(shape), strict=True)
    ]
    rows = SharedRows.of([tf.constant(g) for g in gradients])
    check_gram(rows.gram().numpy(), gradients)


def test_rows_of_a_stack_are_those_of_a_list():
    gradients = random_gradients(LARGE)

    @tf.function
    def compute(stack):
        rows = SharedRows.of(tf.unstack(stack))
        graph = tf.compat.v1.get_default_graph()
        gram = rows.gram(), rows.weighted_sum(tf.constant(WEIGHTS))
        assert all(op.type != "Pack" for op in graph.get_operations()[:20])
        return gram

    gram, total = compute(tf.stack(gradients))
    check_gram(gram.numpy(), gradients)
    expected = np.tensordot(WEIGHTS, gradients, axes=1)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pick", "is_stack"),
    [
        (lambda parts: parts, True),
        (lambda parts: parts[:4], False),
        (lambda parts: parts[::-1], False),
        (lambda parts: [*parts[:4], parts[3]], False),
        (lambda parts: [tf.identity(part) for part in parts], False),
    ],
    ids=["all", "some", "another order", "one twice", "copies"],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_restack(pick, is_stack, axis):
    found = []

    @tf.function
    def trace(stack):
        parts = pick(tf.unstack(stack, axis=axis))
        found.append(linalg.restack(parts) is stack)
        return tf.stack(parts)

    trace.get_concrete_function(tf.TensorSpec([5, 5]))
    assert found == [is_stack and axis == 0]
    assert linalg.restack(tf.unstack(tf.ones([5, 5]))) is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_shows(value):
    gradients = random_gradients(LARGE)
    gradients[1][1, 1, -1] = value
    rows = SharedRows.of([tf.constant(g) for g in gradients])
    gram = rows.gram().numpy()
    assert not np.isfinite(gram[1]).any()
    assert np.isfinite(np.delete(np.delete(gram, 1, 0), 1, 1)).all()
    assert not np.isfinite(rows.weighted_sum(tf.constant(WEIGHTS))[1, 1, -1])


MAP = (2, 128, 128, 64)
HEADS = {
    "dense": keras.layers.Dense,
    "1 x 1 convolution": lambda units: keras.layers.Conv2D(units, 1),
}


@pytest.fixture(scope="module", params=HEADS)
def heads(request):
    """Three linear heads of a map, and nonlinear losses of their outputs."""
    keras.utils.set_random_seed(1)
    made = [HEADS[request.param](units) for units in (1, 2, 4)]
    for head in made:
        head.build(MAP)
    return made


def gradients_of(heads, activations):
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(activations)
        losses = [tf.reduce_sum(tf.sin(head(activations))) for head in heads]
    return [
        tf.ensure_shape(tape.gradient(loss, activations), activations.shape)
        for loss in losses
    ]


@pytest.mark.parametrize("batch_size", [2, None])
def test_products_of_linear_heads(heads, batch_size):
    """The factors give what the gradients give, which nothing computes."""
    weights = tf.constant(WEIGHTS[:3])
    found = []

    @tf.function(
        input_signature=[tf.TensorSpec([batch_size, *MAP[1:]], tf.float32)]
    )
    def compute(activations):
        gradients = gradients_of(heads, activations)
        found.append(products.find(gradients))
        rows = SharedRows.of(gradients)
        return (
            rows.gram(),
            rows.weighted_sum(weights),
            rows.mix(tf.stack([weights, weights[::-1], weights])),
        )

    activations = tf.constant(random_gradients(MAP)[0])
    gram, total, mixed = compute(activations)
    assert found == [found[0]]
    assert found[0] is not None
    gradients = [g.numpy() for g in gradients_of(heads, activations)]
    check_gram(gram.numpy(), gradients)
    for value, coefficients in [
        (total, WEIGHTS[:3]),
        (mixed[1], WEIGHTS[2::-1]),
    ]:
        expected = np.tensordot(coefficients, gradients, axes=1)
        assert value.shape == MAP
        np.testing.assert_allclose(value, expected, atol=1e-5, rtol=1e-5)


def nearly_opposite(features):
    """Two columns of weights whose difference decides."""
    column = np.linspace(1, 2, features, dtype=np.float32)
    return np.stack([column, column + np.float32(2**-10)], axis=1)


def test_inner_products_of_factors_that_cancel():
    generator = np.random.default_rng(0)
    left = generator.standard_normal([300, 1]).astype(np.float32)
    left = np.concatenate([left, -left], axis=1)
    right = nearly_opposite(40)
    gram = products.Products([left, left], [right, right]).gram().numpy()
    exact = left.astype(np.float64) @ right.astype(np.float64).T
    np.testing.assert_allclose(gram, np.sum(exact**2) * np.ones([2, 2]))


@pytest.mark.parametrize(
    "head",
    [
        keras.Sequential([keras.layers.ReLU(), keras.layers.Dense(1)]),
        keras.layers.Conv2D(1, 3, padding="same"),
        keras.layers.Conv2D(1, 1, strides=2),
        keras.layers.Dense(64),
        keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)]),
    ],
    ids=["relu", "3 x 3", "strides", "wide", "flat"],
)
def test_other_heads_are_no_products(head):
    found = []

    @tf.function
    def trace(activations):
        gradients = gradients_of([head, head], activations)
        found.append(products.find(gradients))
        return gradients

    trace.get_concrete_function(tf.TensorSpec(MAP))
    assert found
    assert not any(found)


def test_one_gradient_that_is_no_product():
    found = []
    head = keras.layers.Dense(1)

    @tf.function
    def trace(activations):
        gradients = gradients_of([head], activations)
        others = [gradients[0], tf.zeros_like(activations)]
        found.extend([products.find(gradients), products.find(others)])
        return gradients

    trace.get_concrete_function(tf.TensorSpec(MAP))
    assert found[0] is not None
    assert found[1] is None
