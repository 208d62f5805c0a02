"""What reaches the trunk of a custom loop past the activations.

The expected gradients come from separate tapes and the slow reference: one
over the heads, one over the trunk, and one past the activations, which pass it
under `tf.stop_gradient`.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests import reference

PATHS = ["none", "regularizer", "tied", "skip"]
RECIPES = ["pcgrad", "mgda", "graddrop"]
UNIFORM = np.array([0.15, 0.9, 0.4, 0.6], np.float32)
every_path = pytest.mark.parametrize("path", PATHS)
every_recipe = pytest.mark.parametrize("recipe", RECIPES)


def batch(size=6):
    random = np.random.default_rng(1)
    x, y = random.normal(size=[size, 5]), random.normal(size=[size, 2])
    return tf.constant(x, tf.float32), tf.constant(y, tf.float32)


def variable(seed, *shape):
    value = np.random.default_rng(seed).normal(size=shape)
    return tf.Variable(value.astype("float32"), name=f"v{seed}")


class Net(tf.Module):
    """A trunk of two layers and two heads that each read A three times."""

    def __init__(self, path="none", sizes=(1.0, 1.0)):
        super().__init__()
        self.path, self.sizes = path, sizes
        self.low, self.top = variable(1, 5, 4), variable(2, 4, 4)
        self.heads = [variable(3 + i, 4, 1) for i in range(2)]

    @property
    def trunk(self):
        return [self.low, self.top]

    def features(self, x):
        inner = tf.tanh(x @ self.low)
        return inner, tf.tanh(inner @ self.top)

    def losses(self, inner, shared, y, divisor=1.0):
        losses = []
        for i, head in enumerate(self.heads):
            output = shared @ head + tf.reduce_sum(shared**2, 1, keepdims=True)
            output += tf.reduce_sum(tf.sin(shared), 1, keepdims=True)
            if self.path == "tied" and i == 1:
                back = shared @ tf.transpose(self.top)
                output += tf.reduce_sum(back, 1, keepdims=True)
            if self.path == "skip" and i == 0:
                output += tf.reduce_sum(inner, 1, keepdims=True)
            loss = tf.reduce_mean((output - y[:, i : i + 1]) ** 2)
            if self.path == "regularizer" and i == 0:
                loss += tf.reduce_sum(self.low**2)
            losses.append(self.sizes[i] * loss / divisor)
        return losses


def combined(recipe, g, shared):
    """What the slow reference makes of gradients: T of them, unsummed."""
    separate = isinstance(shared, list)
    if recipe == "pcgrad":
        return reference.pcgrad(g, [[1], [0]])
    if recipe == "mgda":
        gram = np.array(
            [
                [0.0 if separate and i is not j else np.vdot(i, j) for j in g]
                for i in g
            ]
        )
        weights = reference.min_norm_point(gram)
        return [w * g_i for w, g_i in zip(weights, g, strict=True)]
    return reference.graddrop(g, shared, UNIFORM, [0.0, 0.0])


def expected(net, data, recipe, variables):
    """Gradients of variables, all parts from tapes of their own."""
    inner, shared = net.features(data[0])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(shared)
        losses = net.losses(inner, shared, data[1])
    g = [
        tape.gradient(loss, shared).numpy().astype("float64") for loss in losses
    ]
    entering = tf.constant(sum(combined(recipe, g, shared.numpy())), tf.float32)
    with tf.GradientTape() as tape:
        _, shared = net.features(data[0])
    trunk = tape.gradient(
        shared, variables, entering, unconnected_gradients="zero"
    )
    with tf.GradientTape() as tape:
        inner, shared = net.features(data[0])
        losses = net.losses(inner, tf.stop_gradient(shared), data[1])
        total = tf.add_n(losses)
    past = tape.gradient(total, variables, unconnected_gradients="zero")
    return [t.numpy() + p.numpy() for t, p in zip(trunk, past, strict=True)]


def gradients(net, data, recipe, variables, as_function=False, **kwargs):
    state = gd.Recipe.parse(recipe).build(num_losses=2)

    def compute():
        with tf.GradientTape(persistent=True) as tape:
            inner, shared = net.features(data[0])
            losses = net.losses(inner, shared, data[1])
        return gd.compute_gradients(
            tape, losses, shared, variables, state, **kwargs
        )

    return tf.function(compute)() if as_function else compute()


def assert_close(got, want, tolerance=1e-5):
    """Compares gradients, each with its own largest magnitude."""
    for a, b in zip(got, want, strict=True):
        a, b = tf.convert_to_tensor(a).numpy(), tf.convert_to_tensor(b).numpy()
        largest = max(1e-3, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.fixture(autouse=True)
def _known_draws(monkeypatch):
    """GradDrop draws what the reference is given."""

    drawn = gd.random.uniform

    def uniform(shape, *rest):
        # PCGrad draws orders, of which two losses have one each.
        is_order = isinstance(shape, list)
        return drawn(shape, *rest) if is_order else tf.reshape(UNIFORM, shape)

    monkeypatch.setattr(gd.random, "uniform", uniform)


@pytest.mark.parametrize("as_function", [False, True])
@every_path
@every_recipe
def test_what_passes_the_activations_counts_in_full(recipe, path, as_function):
    net, data = Net(path), batch()
    variables = [*net.trunk, *net.heads]
    got = gradients(net, data, recipe, variables, as_function)
    assert_close(got, expected(net, data, recipe, variables))


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("sizes", [(1.0, 1e6), (1e6, 1.0)])
@every_path
def test_mgda_keeps_the_smaller_of_very_different_losses(
    path, sizes, as_function
):
    """The rounding of the larger one's gradient is as large as the result."""
    net, data = Net(path, sizes), batch()
    got = gradients(net, data, "mgda", net.trunk, as_function)
    want = expected(net, data, "mgda", net.trunk)
    assert_close(got, want)


@every_path
def test_plain_sum_is_that_of_one_tape(path):
    net, data = Net(path), batch()
    with tf.GradientTape() as tape:
        total = tf.add_n(net.losses(*net.features(data[0]), data[1]))
    variables = [*net.trunk, *net.heads]
    want = tape.gradient(total, variables)
    assert_close(gradients(net, data, "baseline", variables), want)


@every_recipe
def test_loss_scale_and_weights_scale_what_passes(recipe):
    net, data = Net("regularizer"), batch()
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(), initial_scale=256.0
    )
    optimizer.build([keras.Variable(1.0)])
    got = gradients(net, data, recipe, net.trunk, optimizer=optimizer)
    want = expected(net, data, recipe, net.trunk)
    assert_close([g / 256.0 for g in got], want)


@every_recipe
@pytest.mark.parametrize("path", ["regularizer", "tied", "skip"])
def test_two_replicas_equal_numpy_on_the_whole_batch(recipe, path, mirrored):
    data, strategy = batch(), mirrored(2)
    with strategy.scope():
        net = Net(path)
        state = gd.Recipe.parse(recipe).build(num_losses=2)

    def replica_step(x, y):
        with tf.GradientTape(persistent=True) as tape:
            inner, shared = net.features(x)
            losses = net.losses(inner, shared, y, divisor=2.0)
        return gd.compute_gradients(tape, losses, shared, net.trunk, state)

    def half(array):
        def value(context):
            start = 3 * context.replica_id_in_sync_group
            return array[start : start + 3]

        return strategy.experimental_distribute_values_from_function(value)

    step = tf.function(lambda *arguments: strategy.run(replica_step, arguments))
    per_replica = step(half(data[0]), half(data[1]))
    got = [strategy.reduce("SUM", g, axis=None) for g in per_replica]
    single = Net(path)
    want = expected(single, data, recipe, single.trunk)
    assert_close(got, want)


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("recipe", ["mgda", "graddrop"])
def test_separated_losses_equal_numpy(recipe, as_function):
    """Each loss has examples of its own; both reach the trunk past A."""
    low, top = variable(1, 5, 4), variable(2, 4, 4)
    heads = [variable(3 + i, 4, 1) for i in range(2)]
    x = [batch(size)[0] for size in (6, 3)]

    def features():
        inner = [tf.tanh(x_i @ low) for x_i in x]
        return inner, [tf.tanh(i @ top) for i in inner]

    def losses(inner, shared):
        first = tf.reduce_mean((shared[0] @ heads[0] - 1.0) ** 2)
        back = tf.reduce_sum(shared[1] @ tf.transpose(top), 1, keepdims=True)
        skip = tf.reduce_sum(inner[1], 1, keepdims=True)
        second = tf.reduce_mean((shared[1] @ heads[1] + back + skip) ** 2)
        return [first + tf.reduce_sum(low**2), second]

    variables = [low, top]
    with tf.GradientTape(persistent=True) as tape:
        inner, shared = features()
        watched = losses(inner, shared)
    g = [tape.gradient(*pair).numpy() for pair in zip(watched, shared)]
    entering = combined(recipe, g, [s.numpy() for s in shared])
    entering = [tf.constant(h, tf.float32) for h in entering]
    with tf.GradientTape(persistent=True) as tape:
        inner, shared = features()
        hidden = [tf.stop_gradient(s) for s in shared]
        total = tf.add_n(losses(inner, hidden))
    trunk = tape.gradient(shared, variables, entering)
    past = tape.gradient(total, variables)
    state = gd.Recipe.parse(recipe).build(num_losses=2)

    def compute():
        with tf.GradientTape(persistent=True) as tape:
            inner, shared = features()
            values = losses(inner, shared)
        return gd.compute_gradients(
            tape, values, shared, variables, state, separate=True
        )

    got = tf.function(compute)() if as_function else compute()
    assert_close(got, [t + p for t, p in zip(trunk, past, strict=True)])


@pytest.mark.parametrize("as_vector", [False, True])
def test_several_tensors_with_one_that_no_loss_reads(as_vector):
    """Copied skips, a direct skip past the copies, and a dead end."""
    first, second, dead = (
        variable(0, 5, 4),
        variable(1, 4, 3),
        variable(2, 4, 2),
    )
    x, y = batch()

    def features():
        low = tf.tanh(x @ first)
        top = tf.tanh(low @ second)
        return low, [tf.identity(low), top, tf.tanh(low @ dead)]

    def losses(low, shared):
        rows = tf.concat(shared[:2], axis=1)
        sums = tf.reduce_sum(rows**2, axis=1), tf.reduce_sum(rows, axis=1)
        direct = tf.reduce_sum(tf.sin(low), axis=1)
        errors = sums[0] + direct - y[:, 0], sums[1] - y[:, 1]
        return [tf.reduce_mean(e**2) for e in errors]

    with tf.GradientTape(persistent=True) as tape:
        low, shared = features()
        each = losses(low, shared)
        hidden = losses(low, [tf.stop_gradient(s) for s in shared])
        total = tf.add_n(hidden)
    g = [tape.gradient(loss, shared[:2]) for loss in each]
    flat = [np.concatenate([b.numpy().ravel() for b in g_i]) for g_i in g]
    h = sum(combined("mgda", flat, None))
    split = np.split(h, [tf.size(shared[0]).numpy()])
    entering = [
        tf.constant(part.reshape(s.shape), tf.float32)
        for part, s in zip(split, shared[:2], strict=True)
    ]
    trunk = tape.gradient(shared[:2], [first, second], entering)
    past = tape.gradient(total, [first, second], unconnected_gradients="zero")
    state = gd.Recipe.parse("mgda").build(num_losses=2)
    with tf.GradientTape(persistent=True) as tape:
        low, shared = features()
        values = losses(low, shared)
        values = tf.stack(values) if as_vector else values
    with pytest.warns(UserWarning, match=r"not exist for variables \['v2:0'\]"):
        *got, none = gd.compute_gradients(
            tape, values, shared, [first, second, dead], state
        )
    assert none is None
    assert_close(got, [t + p for t, p in zip(trunk, past, strict=True)])


@pytest.mark.parametrize("as_function", [False, True])
@every_recipe
def test_embeddings_stay_sparse(recipe, as_function):
    """The second loss reads the table once more, past the activations."""
    table, head = variable(1, 1000, 4), variable(2, 4, 2)
    ids, more = tf.constant([3, 999, 3]), tf.constant([999, 20])

    def losses(shared):
        outputs = shared @ head
        skip = tf.reduce_mean(tf.gather(table, more))
        squares = tf.reduce_mean(shared**2)
        return [
            tf.reduce_mean((outputs[:, 0] - 1.0) ** 2),
            tf.reduce_mean((outputs[:, 1] + skip) ** 2) + squares,
        ]

    with tf.GradientTape(persistent=True) as tape:
        shared = tf.tanh(tf.gather(table, ids))
        each = losses(shared)
        total = tf.add_n(losses(tf.stop_gradient(shared)))
    g = [tape.gradient(loss, shared).numpy() for loss in each]
    entering = tf.constant(sum(combined(recipe, g, shared.numpy())), tf.float32)
    trunk = tape.gradient(shared, table, entering)
    past = tape.gradient(total, table)
    want = tf.convert_to_tensor(trunk) + tf.convert_to_tensor(past)
    state = gd.Recipe.parse(recipe).build(num_losses=2)

    def compute():
        with tf.GradientTape(persistent=True) as tape:
            shared = tf.tanh(tf.gather(table, ids))
            values = losses(shared)
        return gd.compute_gradients(tape, values, shared, table, state)

    got = tf.function(compute)() if as_function else compute()
    assert isinstance(got, tf.IndexedSlices)
    assert got.values.shape[0] < 20
    assert_close([got], [want])
