import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places
from graddrop_tf.step import gradients, passes
from graddrop_tf.step import losses as losses_lib
from graddrop_tf.step.clipping import clip_by_global_norm
from tests.graddrop_tf.models import (
    FEW,
    HEADS,
    VECTOR,
    batch,
    largest_difference,
    squared_errors,
    trainable,
)


def custom_step(model, state, x, y, vector, optimizer=None):
    """A loop of one's own over the parts of a model."""
    variables = model.trunk.trainable_variables
    variables = variables + model.heads.trainable_variables

    def losses_of(outputs):
        if vector:
            return tf.reduce_mean(squared_errors(y, outputs), axis=0)
        return [
            tf.reduce_mean(squared_errors(y[:, i : i + 1], output))
            for i, output in enumerate(outputs)
        ]

    with tf.GradientTape(persistent=True) as tape:
        activations = model.trunk(x, training=True)
        losses = losses_of(model.heads(activations, training=True))
    grads = gd.compute_gradients(
        tape, losses, activations, variables, state, optimizer
    )
    model.optimizer.apply_gradients(zip(grads, variables, strict=True))
    if state.needs_losses_after:
        outputs = model.heads(model.trunk(x, training=True), training=True)
        state.update_after(losses, losses_of(outputs))


@pytest.mark.parametrize("recipe", ["gradnorm+graddrop", "mgda", "clip(0.01)"])
def test_a_loss_scale_changes_nothing(recipe):
    """Gradients, weights of the losses and the clipped norm are unscaled."""
    plain, scaled = (VECTOR.compiled(recipe) for _ in range(2))
    x, y = map(tf.constant, batch())
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(float(plain.optimizer.learning_rate))
    )
    scaled.optimizer = optimizer
    for model in (plain, scaled):
        gd.clip_after_reduction(model.optimizer, None)
        model.optimizer.build(model.trainable_variables)
    for _ in range(3):
        custom_step(plain, plain.recipe_state, x, y, True)
        custom_step(scaled, scaled.recipe_state, x, y, True, optimizer)
    assert largest_difference(trainable(plain), trainable(scaled)) < 1e-6
    weighting = plain.recipe_state.weighting
    if weighting is not None:
        np.testing.assert_allclose(
            scaled.recipe_state.weighting.current_weights(),
            weighting.current_weights(),
            rtol=1e-5,
        )


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("kind", [HEADS, VECTOR])
@pytest.mark.parametrize("recipe", FEW)
def test_custom_loop_equals_the_model(recipe, kind, as_function):
    model, custom = kind.compiled(recipe), kind.compiled(recipe)
    gd.clip_after_reduction(custom.optimizer, None)
    x, y = batch()
    state = custom.recipe_state

    def step():
        custom_step(
            custom, state, tf.constant(x), tf.constant(y), kind is VECTOR
        )

    custom.optimizer.build(custom.trainable_variables)
    step = tf.function(step) if as_function else step
    for _ in range(2):
        kind.train(model)
        step()
    assert largest_difference(trainable(model), trainable(custom)) < 1e-5


def test_custom_loop_over_two_replicas_equals_one(mirrored):
    recipe = gd.Recipe.parse("gradnorm+graddrop(seed=1)+clip(0.5)")
    x, y = batch(16)
    results = []
    for replicas in (1, 2):
        strategy = mirrored(replicas)
        with strategy.scope():
            model = HEADS.build("baseline")
            model.optimizer = keras.optimizers.SGD(0.1)
            model.optimizer.build(model.trainable_variables)
            state = recipe.build(3)

        def replica_step(x, y, model=model, state=state, count=replicas):
            variables = model.trainable_variables
            with tf.GradientTape(persistent=True) as tape:
                activations = model.trunk(x)
                outputs = model.heads(activations)
                losses = [
                    tf.reduce_mean((o - y[:, i : i + 1]) ** 2) / count
                    for i, o in enumerate(outputs)
                ]
            grads = gd.compute_gradients(
                tape, losses, activations, variables, state
            )
            model.optimizer.apply_gradients(zip(grads, variables, strict=True))

        size = 16 // replicas

        def part(array, size=size):
            def value(context):
                index = context.replica_id_in_sync_group
                return tf.constant(array[index * size : (index + 1) * size])

            return value

        values = strategy.experimental_distribute_values_from_function
        step = tf.function(lambda *a, s=strategy, r=replica_step: s.run(r, a))
        for _ in range(3):
            step(values(part(x)), values(part(y)))
        results.append(trainable(model))
    assert largest_difference(*results) < 1e-5


def test_custom_loop_refuses_what_it_cannot_do():
    model = HEADS.compiled("baseline")
    variables = model.trainable_variables
    x, _ = batch()
    with tf.GradientTape() as tape:
        activations = model.trunk(x)
        outputs = model.heads(activations)
        losses = [tf.reduce_mean(o) for o in outputs]

    def compute(losses, text, num_losses=3):
        state = gd.Recipe.parse(text).build(num_losses)
        gd.compute_gradients(tape, losses, activations, variables, state)

    with pytest.raises(ValueError, match="persistent"):
        compute(losses, "graddrop")
    with pytest.raises(ValueError, match="needs the inputs"):
        compute(losses, "penalty(1.0)")
    with tf.GradientTape(persistent=True) as tape:
        activations = model.trunk(x)
        outputs = model.heads(activations)
        losses = [tf.reduce_mean(o) for o in outputs]
    with pytest.raises(ValueError, match="built for 2 losses"):
        compute(losses, "gradnorm", 2)
    with pytest.raises(ValueError, match="list of scalars"):
        compute(outputs, "graddrop")
    with pytest.raises(ValueError, match="list of scalars"):
        compute(losses[0], "graddrop")


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_grouped_backward_passes_are_the_losses_in_order(
    size, mode, monkeypatch
):
    """At two tensors, the second in half precision, of an unknown batch."""
    monkeypatch.setattr(passes, "losses_at_once", lambda *_: size)
    powers = tf.constant([[1.0], [2.0], [3.0], [4.0], [5.0]])
    factors = tf.constant([1.0, 1.0, 0.5, 1.0, 2.0])

    def compute(x, half):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, half])
            values = x**2 + 3.0 * tf.cast(half, tf.float32)
            losses = tf.reduce_sum(powers * values, axis=1)
        per_loss = gradients.LossGradients(
            tape, losses_lib.of(losses), places.of([x, half], False), factors
        )
        return per_loss.of(range(per_loss.num_losses))

    x, half = tf.constant([[1.0, -2.0, 3.0]]), tf.ones([1, 3], tf.float16)
    if mode != "eager":
        specs = [tf.TensorSpec([None, 3], t.dtype) for t in (x, half)]
        compute = tf.function(compute, specs, jit_compile=mode == "xla")
    result = compute(x, half)
    # d(c (x^2 + 3 h)) is 2 c x and 3 c.
    for c, pair in zip([1.0, 2.0, 1.5, 4.0, 10.0], result, strict=True):
        np.testing.assert_allclose(pair[0], 2 * c * x)
        np.testing.assert_allclose(pair[1], 3 * c * np.ones([1, 3]))
        assert pair[1].dtype == tf.float16


@pytest.mark.parametrize(
    ("batch_size", "chunks"),
    [(2, [[1, 2, 3]]), (None, [[1, 2, 3]]), (2, [[0], [1, 2], [3]])],
)
def test_gradients_at_a_wide_dense_layer_are_one_product(batch_size, chunks):
    """Of some losses, in their order and form, and in a graph on a CPU."""
    keras.utils.set_random_seed(3)
    wide = keras.layers.Dense(128, activation="tanh")
    heads = keras.Sequential(
        [keras.layers.Flatten(), wide, keras.layers.Dense(4)]
    )
    heads.build([2, 16, 16, 32])
    factors = tf.constant([1.0, 0.5, -2.0, 1.0])

    def compute(activations):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(activations)
            losses = tf.reduce_mean(tf.square(heads(activations)), axis=0)
        per_loss = gradients.LossGradients(
            tape, losses_lib.of(losses), places.of(activations), factors
        )
        parts = []
        for indices in chunks:
            parts += per_loss.of(indices, parts)
        return parts

    activations = tf.random.stateless_normal([2, 16, 16, 32], [0, 1])
    spec = tf.TensorSpec([batch_size, 16, 16, 32])
    graph = tf.function(compute).get_concrete_function(spec)
    if not tf.config.list_logical_devices("GPU"):
        nodes = graph.graph.as_graph_def().node
        assert any("_XlaMustCompile" in node.attr for node in nodes)
    for found, expected in zip(
        graph(activations), compute(activations), strict=True
    ):
        assert found.shape == expected.shape == activations.shape
        np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-4)
        assert np.abs(expected).max() > 1e-3


@pytest.mark.skipif(
    bool(tf.config.list_logical_devices("GPU")), reason="only on CPUs"
)
@pytest.mark.parametrize(("width", "traces"), [(64, 1), (1024, 4)])
def test_chunks_share_a_trace_of_the_heads(width, traces):
    """Unless what they keep, 4 x `width`, is wider than a gradient."""
    features, rows = 2**20 // width, 3
    weights = tf.ones([features, width]) / tf.range(1.0, width + 1.0)
    traced = []

    @tf.custom_gradient
    def counted(outputs):
        def grad(upstream):
            traced.append(upstream)
            return upstream

        return outputs, grad

    @tf.function
    def compute(activations):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(activations)
            outputs = counted(tf.matmul(activations, weights))
            losses = tf.reduce_mean(outputs[:, :4] ** 2, axis=0)
        per_loss = gradients.LossGradients(
            tape, losses_lib.of(losses), places.of(activations), tf.ones([4])
        )
        return [per_loss.of([i])[0] for i in range(4)]

    activations = tf.random.stateless_normal([rows, features], [0, 1])
    found = compute(activations)
    # One more looks for the product.
    assert len(traced) == 1 + traces
    outputs = tf.matmul(activations, weights)
    for i, gradient in enumerate(found):
        expected = 2 / rows * outputs[:, i : i + 1] * weights[:, i]
        np.testing.assert_allclose(gradient, expected, atol=1e-9, rtol=1e-3)


def test_a_product_whose_second_factor_is_no_weights():
    """dL/dA is `b g^T` where A is transposed: g differs from loss to loss."""
    b, size = tf.constant([[2.0], [3.0]]), 2**20
    numbers = tf.stack([tf.ones([size]), tf.range(float(size)) / size])

    @tf.function
    def compute(activations):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(activations)
            values = tf.matmul(activations, b, transpose_a=True)[:, 0]
            losses = tf.linalg.matvec(numbers, values)
        return gradients.LossGradients(
            tape, losses_lib.of(losses), places.of(activations), tf.ones([2])
        ).of([0, 1])

    for found, g in zip(compute(tf.ones([2, size])), numbers, strict=True):
        np.testing.assert_allclose(found, b * g, rtol=1e-6)


def test_clipping_equals_a_calculation_by_hand():
    grads = [tf.constant([3.0, 0.0]), None, tf.constant([[4.0]])]
    a, none, b = clip_by_global_norm(grads, 1.0)
    assert none is None
    np.testing.assert_allclose(a, [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(b, [[0.8]], rtol=1e-6)
    for same, grad in zip(clip_by_global_norm(grads, 10.0), grads, strict=True):
        if grad is not None:
            np.testing.assert_array_equal(same, grad)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_clipping_at_any_scale(scale):
    (clipped,) = clip_by_global_norm([tf.constant([3.0, 4.0]) * scale], scale)
    np.testing.assert_allclose(clipped / scale, [0.6, 0.8], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_shows_what_is_not_finite(bad):
    clipped = clip_by_global_norm([tf.constant([1.0]), tf.constant([bad])], 1.0)
    assert not any(np.isfinite(g.numpy()).any() for g in clipped)


def test_clipping_counts_repeated_rows_as_one():
    slices = tf.IndexedSlices(
        tf.constant([[1.0], [2.0]]), tf.constant([0, 0]), tf.constant([3, 1])
    )
    (clipped,) = clip_by_global_norm([slices], 1.0)
    np.testing.assert_allclose(
        tf.convert_to_tensor(clipped), [[1.0], [0.0], [0.0]], rtol=1e-6
    )


def test_clipping_acts_on_the_accumulated_gradient():
    """Micro-batches whose gradients cancel leave nothing to clip."""
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    gd.clip_after_reduction(optimizer, 1.0)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    for gradient in (100.0, -98.0):
        optimizer.apply([tf.constant([gradient])], [weight])
    # Their mean is 1, at the norm; clipped one by one they would give 0.
    np.testing.assert_allclose(weight.numpy(), [-1.0], rtol=1e-6)


def test_clipping_acts_on_the_unscaled_gradient():
    inner = keras.optimizers.SGD(1.0)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
    gd.clip_after_reduction(optimizer, 1.0)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    optimizer.apply([tf.constant([32.0])], [weight])
    np.testing.assert_allclose(weight.numpy(), [-0.5], rtol=1e-6)


def test_clipping_can_be_changed_and_taken_away():
    optimizer = keras.optimizers.SGD(1.0)
    weight = keras.Variable([0.0])
    optimizer.build([weight])
    for norm, expected in ((1.0, -1.0), (2.0, -3.0), (None, -103.0)):
        gd.clip_after_reduction(optimizer, norm)
        optimizer.apply([tf.constant([100.0])], [weight])
        np.testing.assert_allclose(weight.numpy(), [expected], rtol=1e-6)
    for norm in (0, -1.0, float("inf"), "a"):
        with pytest.raises(ValueError, match="above 0"):
            gd.clip_after_reduction(optimizer, norm)
