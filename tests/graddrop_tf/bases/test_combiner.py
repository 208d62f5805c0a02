import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd


@pytest.mark.parametrize(
    "arguments",
    [
        {"leak": -0.1},
        {"leak": 1.1},
        {"leak": float("nan")},
        {"leak": "a"},
        {"leak": None},
        {"leak": [0.5, 2.0]},
        {"leak": {"a": 3}},
        {"leak": [0.5], "num_losses": 2},
        {"k": -1.0},
        {"k": float("inf")},
        {"num_losses": 0},
        {"num_losses": 2.5},
        {"seed": -1},
        {"seed": 2**31},
        {"purity_transform": 3},
        {"purity_transform": lambda p: 1 - p},
        {"purity_transform": lambda p: p * p},
        {"purity_transform": lambda p: 2 * p - 0.5},
        {"purity_transform": lambda p: tf.reduce_sum(p)},
        {"purity_transform": lambda p: p, "k": 0.5},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Received"):
        gd.GradDrop(**arguments)


def test_bad_calls():
    features = keras.Input([4])
    with pytest.raises(ValueError, match="needs `num_losses`"):
        gd.GradDrop()(features)
    with pytest.raises(ValueError, match="was made for num_losses=3"):
        gd.GradDrop(num_losses=3)([features, features])
    with pytest.raises(ValueError, match="3 values for 2 losses|2 losses"):
        gd.GradDrop(leak=[0.0, 0.0, 1.0])([features, features])
    with pytest.raises(ValueError, match="`separate=False`, may differ"):
        gd.GradDrop()([features, keras.Input([5])])
    with pytest.raises(ValueError, match="by name needs a `gd.MultiLossModel`"):
        gd.GradDrop(2, leak={"a": 1.0})(features)
    with pytest.raises(ValueError, match="made of combiners"):
        gd.Chain([gd.GradNorm()])


@pytest.mark.parametrize(
    ("gradients", "activations", "options", "said"),
    [
        ([], tf.ones([2, 3]), {}, "empty list"),
        ([tf.ones([2, 3])], tf.ones([2, 4]), {}, "shape of its activations"),
        (
            [tf.ones([2, 3])],
            [tf.ones([2, 3])] * 2,
            {},
            "2 activations, 1",
        ),
        (
            [tf.ones([2, 3]), tf.ones([2, 4])],
            [tf.ones([2, 3]), tf.ones([2, 4])],
            {},
            "batch size only",
        ),
        ([tf.ones([2, 3])], tf.ones([2, 3]), {"leak": [0.0, 1.0]}, "2 values"),
        ([tf.ones([2, 3])], tf.ones([2, 3]), {"k": -1}, "at least 0"),
        (
            [tf.ones([2, 3])],
            tf.ones([2, 3]),
            {"uniform": tf.ones([4])},
            "shape of the purity",
        ),
    ],
)
def test_bad_tensors(gradients, activations, options, said):
    options = {"uniform": tf.fill([3], 0.5), **options}
    with pytest.raises(ValueError, match=said):
        gd.graddrop(gradients, activations, **options)


class Loses(gd.Combiner):
    def combine(self, gradients, activations):
        return gradients[1:]


class LosesJointly(gd.JointCombiner):
    def combine_at(self, gradients, place):
        return gradients[1:]


class Cuts(gd.JointCombiner):
    def combine_at(self, gradients, place):
        return [g[:1] for g in gradients]


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Loses, "one gradient for each of 2 losses"),
        (LosesJointly, "one gradient for each of 2 losses"),
        (Cuts, "the shape of its activations"),
    ],
)
@pytest.mark.parametrize("chained", [False, True])
def test_combine_must_return_as_many_of_the_same_shapes(method, said, chained):
    layer = method(num_losses=2)
    if chained:
        layer = gd.Chain([method(), gd.GradDrop()], num_losses=2)
    with tf.GradientTape() as tape:
        x = tf.ones([2, 3])
        tape.watch(x)
        a, b = layer(x, training=True)
        total = tf.reduce_sum(a + b)
    with pytest.raises(ValueError, match=said):
        tape.gradient(total, x)


@pytest.mark.parametrize("form", ["tensor", "tensors", "separated"])
def test_a_chain_acts_in_order(form):
    """2 g + 1, and not 2 (g + 1)."""

    class Double(gd.Combiner):
        def combine(self, gradients, activations):
            return [2.0 * g for g in gradients]

    class AddOne(gd.Combiner):
        def combine(self, gradients, activations):
            return [g + 1.0 for g in gradients]

    x, y = tf.ones([2, 3]), tf.ones([1, 3])
    inputs = {"tensor": x, "tensors": {"a": x}, "separated": [x, y]}[form]
    for again in (False, True):
        chain = gd.Chain([Double(), AddOne()], num_losses=None if again else 2)
        if again:
            chain = gd.Chain([chain, Double()], num_losses=2)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            a, b = chain(inputs, training=True)
            losses = [tf.reduce_sum(t) for t in tf.nest.flatten([a, b])]
            total = 3.0 * losses[0] + losses[1]
        grads = tf.nest.flatten(tape.gradient(total, inputs))
        # Of gradients 3 and 1: 7 and 3, doubled once more 14 and 6.
        want = [7.0, 3.0] if form == "separated" else [10.0]
        for gradient, value in zip(grads, want, strict=True):
            np.testing.assert_array_equal(gradient, (1 + again) * value)


def test_coefficients_across_batch_separated_losses_count():
    """Column sums: the examples of loss j get what all losses take of it."""

    class Mixes(gd.GramianCombiner):
        def weigh(self, gram):
            return tf.constant([[1.0, 2.0], [3.0, 4.0]])

    g = [tf.constant([[1.0], [2.0]]), tf.constant([[-1.0]])]
    first, second = Mixes().combine(g, [tf.ones([2, 1]), tf.ones([1, 1])])
    np.testing.assert_array_equal(first, [[4.0], [8.0]])
    np.testing.assert_array_equal(second, [[-6.0]])


def test_a_method_that_remembers_acts_on_all_tensors_at_once():
    class Counts(gd.Combiner):
        def initial_state(self, num_losses):
            return {"steps": tf.zeros([num_losses])}

        def combine(self, gradients, activations):
            self.keep(steps=self.state["steps"] + 1.0)
            return gradients

    class CountsJointly(gd.JointCombiner, Counts):
        def combine_at(self, gradients, place):
            self.keep(steps=self.state["steps"] + 1.0)
            return gradients

    def take_step(layer):
        x = {"a": tf.ones([2, 3]), "b": tf.ones([2, 4])}
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.add_n(
                [
                    tf.reduce_sum(t)
                    for t in tf.nest.flatten(layer(x, training=True))
                ]
            )
        return tape.gradient(total, x)

    layer = CountsJointly(num_losses=2)
    gradients = take_step(layer)
    np.testing.assert_array_equal(gradients["b"], np.full([2, 4], 2.0))
    np.testing.assert_array_equal(layer.state["steps"], [1.0, 1.0])
    with pytest.raises(ValueError, match="derive it from gd.JointCombiner"):
        take_step(Counts(num_losses=2))


@pytest.mark.parametrize("method", [gd.GradDrop, gd.MGDA])
def test_where_a_method_acts_is_said_once(method):
    separate = method(separate=True)
    with pytest.raises(ValueError, match="needs a list"):
        separate(tf.ones([2, 3]))
    with pytest.raises(ValueError, match="layer or model that holds them"):
        gd.Chain([separate])
    x = [tf.ones([2, 3]), tf.ones([2, 3])]
    with pytest.raises(ValueError, match="needs `num_losses`"):
        method(separate=False)(x)
    assert len(method(num_losses=3, separate=False)(x)) == 3
    assert len(method(separate=True)(x)) == 2


def test_identity_forward_and_plain_gradient_outside_of_training():
    layer = gd.GradDrop(num_losses=2)
    x = tf.constant([[1.0, -2.0]])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        a, b = layer(x, training=False)
        total = tf.reduce_sum(a) - 3 * tf.reduce_sum(b)
    assert a is x and b is x
    np.testing.assert_array_equal(tape.gradient(total, x), [[-2.0, -2.0]])
    assert layer.step.numpy() == 0


def masked_gradients(layer, steps=1, size=64):
    """Returns the gradients of +1 and -1 at each of some steps."""
    results = []
    for _ in range(steps):
        x = tf.ones([1, size])
        with tf.GradientTape() as tape:
            tape.watch(x)
            a, b = layer(x, training=True)
            total = tf.reduce_sum(a) - tf.reduce_sum(b)
        results.append(tape.gradient(total, x).numpy())
    return np.concatenate(results)


def test_masks_follow_seed_and_step():
    first = masked_gradients(gd.GradDrop(2, seed=1), steps=3)
    again = masked_gradients(gd.GradDrop(2, seed=1), steps=3)
    other = masked_gradients(gd.GradDrop(2, seed=2), steps=3)
    np.testing.assert_array_equal(first, again)
    assert np.all(np.abs(first) == 1)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, other)
    # A fair coin: 192 draws stay within five standard deviations.
    assert abs(first.mean()) < 5 / np.sqrt(192)


def test_two_calls_in_a_step_draw_apart():
    layer = gd.GradDrop(2, seed=1)
    x = tf.ones([1, 64])
    grads = []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        totals = []
        for _ in range(2):
            a, b = layer(x, training=True)
            totals.append(tf.reduce_sum(a) - tf.reduce_sum(b))
    grads = [tape.gradient(total, x).numpy() for total in totals]
    assert not np.array_equal(*grads)


def test_chained_methods_of_one_seed_draw_apart():
    u = []

    class Draws(gd.RandomCombiner):
        def combine(self, gradients, activations):
            u.append(self.uniform([8]))
            return gradients

    layer = gd.Chain([Draws(seed=3), Draws(seed=3)], num_losses=1)
    with tf.GradientTape() as tape:
        x = tf.ones([2, 3])
        tape.watch(x)
        total = tf.reduce_sum(layer(x, training=True))
    tape.gradient(total, x)
    assert not np.array_equal(u[0], u[1])


def test_a_loss_that_does_not_depend_on_the_activations_has_zeros():
    seen = []

    class Watch(gd.Combiner):
        def combine(self, gradients, activations):
            seen.extend(gradients)
            return gradients

    x = tf.ones([2, 3])
    with tf.GradientTape() as tape:
        tape.watch(x)
        _, b = Watch(num_losses=2)(x, training=True)
        total = tf.reduce_sum(b)
    tape.gradient(total, x)
    np.testing.assert_array_equal(seen[0], np.zeros([2, 3]))
    np.testing.assert_array_equal(seen[1], np.ones([2, 3]))


def test_masks_of_a_sequence_reach_every_branch():
    tokens = keras.Input([5], dtype="int32")
    embedded = keras.layers.Embedding(7, 4, mask_zero=True)(tokens)
    branches = gd.GradDrop(num_losses=2)(embedded)
    pooled = [keras.layers.GlobalAveragePooling1D()(b) for b in branches]
    model = keras.Model(tokens, pooled)
    plain = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(embedded))
    x = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
    for training in (False, True):
        for output in model(x, training=training):
            np.testing.assert_allclose(output, plain(x))


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ({"num_losses": 2}, (None, 6), [(None, 6)] * 2),
        ({"num_losses": 3}, [4, 5, 6], [(4, 5, 6)] * 3),
        ({"num_losses": 1}, (None, 6), (None, 6)),
        ({}, [(2, 6), (3, 6)], [(2, 6), (3, 6)]),
        (
            {"num_losses": 2},
            {"a": (None, 6), "b": (None, 3, 4)},
            [{"a": (None, 6), "b": (None, 3, 4)}] * 2,
        ),
        (
            {"num_losses": 2, "separate": False},
            [(None, 6), (None, 3)],
            [[(None, 6), (None, 3)]] * 2,
        ),
    ],
)
@pytest.mark.parametrize("cls", [gd.GradDrop, gd.PCGrad, gd.MGDA])
def test_the_output_shape_is_known_before_a_call(cls, options, shape, expected):
    layer = cls(**options)
    assert layer.compute_output_shape(shape) == expected
    zeros = keras.tree.map_shape_structure(
        lambda s: tf.zeros([size or 2 for size in s]), shape
    )
    given = layer(zeros)
    shapes = keras.tree.map_structure(lambda t: len(t.shape), given)
    assert shapes == keras.tree.map_shape_structure(len, expected)


def test_the_output_shape_without_a_number_of_losses_is_refused():
    with pytest.raises(ValueError, match="needs `num_losses`"):
        gd.GradDrop().compute_output_shape((None, 6))


@pytest.mark.parametrize("training", [False, True])
def test_one_loss_gets_the_branch_itself(training):
    """A layer behind it takes it as it is."""
    x = tf.ones([2, 3, 6])
    given = gd.GradDrop(num_losses=1)(x, training=training)
    assert given.shape == x.shape
    maps = {"a": x, "b": tf.ones([2, 4])}
    given = gd.GradDrop(num_losses=1)(maps, training=training)
    assert {k: v.shape for k, v in given.items()} == {
        k: v.shape for k, v in maps.items()
    }
    # A list holds the activations of each loss, here of one.
    given = gd.GradDrop()([x], training=training)
    assert isinstance(given, list)
    assert given[0].shape == x.shape


@pytest.mark.parametrize("chained", [False, True])
def test_a_model_with_one_loss(chained):
    """GradDrop of one loss is the identity, with masks, in every use."""
    x = np.array([[1, 2, 0], [3, 0, 0]])
    y = np.ones([2, 1], np.float32)

    def build(layer):
        keras.utils.set_random_seed(1)
        tokens = keras.Input([3], dtype="int32")
        features = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
        branch = features if layer is None else layer(features)
        pooled = keras.layers.GlobalAveragePooling1D()(branch)
        model = keras.Model(tokens, keras.layers.Dense(1)(pooled))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, y, verbose=0)
        return model

    layer = gd.GradDrop(num_losses=1)
    model = build(gd.Chain([gd.GradDrop()], num_losses=1) if chained else layer)
    plain = build(None)
    for ours, right in zip(
        model.get_weights(), plain.get_weights(), strict=True
    ):
        np.testing.assert_allclose(ours, right, rtol=1e-6)
    out = gd.inference_model(model).predict(x, verbose=0)
    np.testing.assert_allclose(out, plain.predict(x, verbose=0), rtol=1e-6)
    inserted = gd.insert(plain, gd.GradDrop(), at=plain.layers[1].name)
    np.testing.assert_allclose(
        inserted.predict(x, verbose=0), plain.predict(x, verbose=0), rtol=1e-6
    )


def test_layers_of_keras_that_wrap_another():
    per_frame = keras.layers.TimeDistributed(gd.GradDrop(num_losses=1))
    assert per_frame(keras.Input([5, 6])).shape == (None, 5, 6)
    frame = keras.Input([6])
    a, b = gd.GradDrop(num_losses=2)(frame)
    both = keras.Model(frame, keras.layers.Dense(3)(a + b))
    x = tf.random.stateless_normal([2, 5, 6], [1, 2])
    each = keras.layers.TimeDistributed(both)(x)
    np.testing.assert_allclose(each[:, 1], both(x[:, 1]), rtol=1e-5)


def test_batch_separated_layer_with_different_batch_sizes():
    layer = gd.GradDrop(leak=[1.0, 0.0], seed=0)
    source, target = tf.ones([8, 16]), tf.ones([4, 16])
    with tf.GradientTape() as tape:
        tape.watch([source, target])
        a, b = layer([source, target], training=True)
        total = tf.reduce_sum(a) - 2 * tf.reduce_sum(b)
    to_source, to_target = tape.gradient(total, [source, target])
    # Leak 1 passes the source's whole gradient; G = (8, -8): P = 0.5.
    np.testing.assert_array_equal(to_source, np.ones([8, 16]))
    values = set(np.unique(to_target))
    assert values == {-2.0, 0.0}
    # One mask for the whole batch.
    assert np.all(to_target.numpy() == to_target.numpy()[:1])


def test_config_round_trip_keeps_every_argument():
    layer = gd.GradDrop(
        num_losses=2,
        leak=[0.5, 0.0],
        k=0.25,
        marginalize_batch=False,
        renormalize=True,
        sync_replicas=False,
        seed=7,
        name="drop",
    )
    again = gd.GradDrop.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    chain = gd.Chain([gd.PCGrad(iterative=True, seed=1), layer], num_losses=2)
    assert (
        gd.Chain.from_config(chain.get_config()).get_config()
        == chain.get_config()
    )


@keras.saving.register_keras_serializable("graddrop_tf_tests")
def smoothstep(purity):
    return purity * purity * (3 - 2 * purity)


def test_purity_transform_is_saved():
    layer = gd.GradDrop(num_losses=2, purity_transform=smoothstep, seed=3)
    again = gd.GradDrop.from_config(layer.get_config())
    assert again.purity_transform is smoothstep
    np.testing.assert_array_equal(
        masked_gradients(layer), masked_gradients(again)
    )
