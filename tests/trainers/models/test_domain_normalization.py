import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.models import domain_normalization as dn

_MOMENTUM, _EPSILON = 0.9, 1e-3
_SHAPE = (4, 5, 3)


def _parts(*sizes, mean=2.0, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(mean + index, 3.0 + index, (size, *_SHAPE)).astype(
            np.float32
        )
        for index, size in enumerate(sizes)
    ]


def _layer(num_domains=2, **options):
    """A layer whose weights differ in every value."""
    layer = dn.DomainBatchNormalization(
        num_domains, momentum=_MOMENTUM, epsilon=_EPSILON, **options
    )
    layer.build((None, *_SHAPE), (num_domains,))
    generator = np.random.default_rng(9)
    for variable in layer.variables:
        variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return layer


def _apply(layer, parts, training):
    mixed, sizes = dn.DomainConcatenation()(
        [tf.convert_to_tensor(x) for x in parts]
    )
    outputs = layer(mixed, sizes, training=training)
    return dn.DomainSplit(len(parts))(outputs, sizes)


def _statistics(x):
    x = x.astype(np.float64).reshape(-1, x.shape[-1])
    mean = sum(x) / len(x)
    return mean, sum((x - mean) ** 2) / len(x)


def _normalized(x, mean, variance, gamma, beta):
    return gamma * (x - mean) / np.sqrt(variance + _EPSILON) + beta


@pytest.mark.parametrize("sizes", [(3, 3), (1, 4), (2,), (1, 2, 3)])
def test_each_domain_is_normalized_by_its_own_batch(sizes):
    layer = _layer(len(sizes))
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    gammas, betas = layer.gamma.numpy(), layer.beta.numpy()
    parts = _parts(*sizes)
    outputs = _apply(layer, parts, training=True)
    for d, (x, y) in enumerate(zip(parts, outputs, strict=True)):
        mean, variance = _statistics(x)
        np.testing.assert_allclose(
            y,
            _normalized(x, mean, variance, gammas[d], betas[d]),
            atol=1e-5,
        )
        np.testing.assert_allclose(
            layer.moving_mean[d], 0.9 * before[0][d] + 0.1 * mean, rtol=1e-5
        )
        np.testing.assert_allclose(
            layer.moving_variance[d],
            0.9 * before[1][d] + 0.1 * variance,
            rtol=1e-5,
        )


@pytest.mark.parametrize("frozen", [False, True])
def test_otherwise_by_its_own_averages(frozen):
    layer = _layer()
    layer.trainable = not frozen
    before = [variable.numpy() for variable in layer.variables]
    parts = _parts(2, 3)
    outputs = _apply(layer, parts, training=frozen)
    for d, (x, y) in enumerate(zip(parts, outputs, strict=True)):
        expected = _normalized(
            x,
            layer.moving_mean.numpy()[d],
            layer.moving_variance.numpy()[d],
            layer.gamma.numpy()[d],
            layer.beta.numpy()[d],
        )
        np.testing.assert_allclose(y, expected, atol=1e-5)
    for variable, value in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("absent", [0, 1])
def test_a_domain_without_examples_stays_as_it_is(absent):
    layer, other = _layer(), _layer()
    sizes = [3, 3]
    sizes[absent] = 0
    parts = _parts(*sizes)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    with tf.GradientTape() as tape:
        outputs = _apply(layer, parts, training=True)
        loss = tf.add_n([tf.reduce_sum(y**3) for y in outputs])
    grads = tape.gradient(loss, [layer.gamma.value, layer.beta.value])
    present = 1 - absent
    for grad in grads:
        np.testing.assert_array_equal(grad[absent], 0.0)
        assert np.abs(grad[present]).min() > 0.0
    for variable, value in zip(
        [layer.moving_mean, layer.moving_variance], before, strict=True
    ):
        np.testing.assert_array_equal(variable[absent], value[absent])
        assert np.abs(variable[present] - value[present]).min() > 0.0
    assert outputs[absent].shape == (0, *_SHAPE)
    both = _parts(*sizes)
    both[absent] = _parts(2, 2, seed=5)[absent]
    beside = _apply(other, both, training=True)
    np.testing.assert_array_equal(beside[present], outputs[present])


def _train_over_replicas(strategy, layer, shares):
    """Returns outputs, summed gradients of weights, and those of inputs."""

    def step(*parts):
        with tf.GradientTape() as tape:
            tape.watch(parts)
            outputs = _apply(layer, parts, training=True)
            loss = tf.add_n([tf.reduce_sum(tf.sin(y)) for y in outputs])
        grads = tape.gradient(
            loss, [layer.gamma.value, layer.beta.value, *parts]
        )
        context = tf.distribute.get_replica_context()
        return outputs, context.all_reduce("sum", grads[:2]), grads[2:]

    distribute = strategy.experimental_distribute_values_from_function
    inputs = [
        distribute(
            lambda context, d=d: tf.constant(
                shares[context.replica_id_in_sync_group][d]
            )
        )
        for d in range(2)
    ]
    run = tf.function(lambda *parts: strategy.run(step, parts))
    values = strategy.experimental_local_results
    outputs, weight_grads, input_grads = run(*inputs)
    return (
        [values(y) for y in outputs],
        [values(g)[0] for g in weight_grads],
        [values(g) for g in input_grads],
    )


# Uneven shares, and one replica without examples of a domain.
@pytest.mark.parametrize("cut", [(2, 1), (3, 2), (4, 0)])
def test_over_two_replicas_the_global_batch_counts(cut, mirrored):
    parts = _parts(4, 3, mean=50.0)
    shares = [
        [x[:n] for x, n in zip(parts, cut, strict=True)],
        [x[n:] for x, n in zip(parts, cut, strict=True)],
    ]
    alone = _layer(synchronized=True)
    whole = _train_over_replicas(mirrored(1), alone, [parts])
    with mirrored(2).scope():
        layer = _layer(synchronized=True)
    outputs, weight_grads, input_grads = _train_over_replicas(
        mirrored(2), layer, shares
    )
    for got, expected in ((outputs, whole[0]), (input_grads, whole[2])):
        for d in range(2):
            np.testing.assert_allclose(
                np.concatenate(got[d]), expected[d][0], atol=2e-5
            )
    for got, expected in zip(weight_grads, whole[1], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(
            getattr(layer, name).numpy(), getattr(alone, name), rtol=1e-5
        )


def test_unsynchronized_each_replica_counts_for_itself(mirrored):
    parts = _parts(4, 4)
    shares = [[x[:1] for x in parts], [x[1:] for x in parts]]
    with mirrored(2).scope():
        layer = _layer()
    outputs, _, _ = _train_over_replicas(mirrored(2), layer, shares)
    for r, share in enumerate(shares):
        local = _apply(_layer(), share, training=True)
        for d in range(2):
            np.testing.assert_allclose(outputs[d][r], local[d], atol=1e-6)


def test_a_large_mean_leaves_the_variance_right_over_replicas(mirrored):
    x = _parts(4, 4, mean=1e4)
    with mirrored(2).scope():
        layer = _layer(synchronized=True)
    _train_over_replicas(
        mirrored(2), layer, [[y[:2] for y in x], [y[2:] for y in x]]
    )
    start = _layer().moving_variance.numpy()
    for d in range(2):
        expected = 0.9 * start[d] + 0.1 * _statistics(x[d])[1]
        np.testing.assert_allclose(
            layer.moving_variance.numpy()[d], expected, rtol=1e-3
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_statistics_in_float32(dtype):
    layer = _layer(dtype=f"mixed_{dtype}")
    parts = [x.astype(np.float32) * 100.0 for x in _parts(3, 2)]
    mixed, sizes = dn.DomainConcatenation(dtype=f"mixed_{dtype}")(parts)
    assert mixed.dtype == dtype
    outputs = layer(mixed, sizes, training=True)
    assert outputs.dtype == dtype
    assert np.isfinite(tf.cast(outputs, tf.float32)).all()
    assert all(v.dtype == "float32" for v in layer.variables)
    np.testing.assert_allclose(
        layer.moving_variance[1],
        0.9 * _layer().moving_variance.numpy()[1]
        + 0.1 * _statistics(parts[1])[1],
        rtol=0.02,
    )


def test_the_gradient_of_a_gradient_is_right():
    """Against central differences: a gradient penalty needs it."""
    layer = _layer()
    x, other = _parts(3, 2)

    def penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = _apply(layer, [x, other], training=True)
            loss = tf.add_n([tf.reduce_sum(tf.sin(y)) for y in outputs])
        return tf.reduce_sum(tape.gradient(loss, x) ** 2)

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = penalty(x)
    direction = np.random.default_rng(1).normal(size=x.shape)
    slope = np.sum(tape.gradient(value, x) * direction)
    step = 1e-2 * direction
    expected = (penalty(x + step) - penalty(x - step)) / 2e-2
    np.testing.assert_allclose(slope, expected, rtol=0.02)


def _model(*batches):
    inputs = [keras.Input(batch_shape=(n, *_SHAPE)) for n in batches]
    mixed, sizes = dn.DomainConcatenation()(inputs)
    outputs = dn.DomainBatchNormalization(len(batches), momentum=_MOMENTUM)(
        mixed, sizes
    )
    return keras.Model(inputs, dn.DomainSplit(len(batches))(outputs, sizes))


def test_shapes_are_known_as_far_as_they_can_be():
    model = _model(None, None)
    assert [y.shape for y in model.outputs] == [(None, *_SHAPE)] * 2
    mixed, sizes = dn.DomainConcatenation()(
        [keras.Input(batch_shape=(n, *_SHAPE)) for n in (2, 3)]
    )
    assert mixed.shape == (5, *_SHAPE)
    assert (sizes.shape, sizes.dtype) == ((2,), "int32")

    layer = _layer()
    traced = tf.function(lambda: _apply(layer, _parts(2, 3), training=True))
    outputs = traced.get_concrete_function().structured_outputs
    assert [y.shape for y in outputs] == [(2, *_SHAPE), (3, *_SHAPE)]


def test_compiled_by_xla_it_is_the_same():
    plain, compiled = _layer(), _layer()
    parts = _parts(2, 3)
    expected = _apply(plain, parts, training=True)
    got = tf.function(
        lambda: _apply(compiled, parts, training=True), jit_compile=True
    )()
    for y, z in zip(expected, got, strict=True):
        np.testing.assert_allclose(y, z, atol=1e-5)
    np.testing.assert_allclose(
        plain.moving_variance, compiled.moving_variance, rtol=1e-5
    )


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model = _model(None, None)
    parts = [tf.constant(x) for x in _parts(2, 3)]
    model(parts, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for y, z in zip(model(parts), loaded(parts), strict=True):
        np.testing.assert_array_equal(y, z)
    layer = dn.DomainBatchNormalization(3, 0.5, 1e-2, True, name="n")
    config = layer.get_config()
    copy = dn.DomainBatchNormalization.from_config(config)
    assert copy.get_config() == config
    assert (copy.num_domains, copy.momentum) == (3, 0.5)
    assert (copy.epsilon, copy.synchronized) == (1e-2, True)


def test_domains_of_two_shapes_cannot_be_mixed():
    with pytest.raises(ValueError, match=r"\(4, 5, 3\), \(4, 4, 3\)"):
        dn.DomainConcatenation()([keras.Input(_SHAPE), keras.Input((4, 4, 3))])
