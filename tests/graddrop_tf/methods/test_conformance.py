"""What every method, alone and in combination, has to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import (
    ALONE,
    HEADS,
    LAYER,
    LAYER_RECIPES,
    NAMES,
    NUM_LOSSES,
    PLACES,
    RECIPES,
    VECTOR,
    batch,
    cases,
    largest_difference,
    representatives,
    trainable,
    twenty_steps,
)

# A model has losses as scalars or as a vector; the vector's is the faster.
IN_MODELS = [(r, VECTOR) for r in RECIPES] + PLACES


def test_what_works_in_a_way_of_its_own_is_enrolled(monkeypatch):
    class Weighs(gd.GramianCombiner):
        def weigh(self, gram):
            return gram

    class Remembers(Weighs):
        def initial_state(self, num_losses):
            return {"mean": tf.zeros([num_losses])}

    class Combines(gd.Combiner):
        def combine(self, gradients, activations):
            return gradients

    class SeesLosses(gd.Weighting):
        def weights_of(self, state, losses):
            return losses

    class SeesThemAgain(SeesLosses):
        needs_losses_after = True

    class SquaresThem(gd.Weighting):
        def weights_of(self, state, losses):
            return losses**2

    enrolled = {*representatives()}
    methods = (
        Weighs,
        Remembers,
        Combines,
        SeesLosses,
        SeesThemAgain,
        SquaresThem,
    )
    for method in methods:
        monkeypatch.setitem(gd.METHODS, method.__name__, method)
    assert {*representatives()} - enrolled == {
        "Remembers",
        "Combines",
        "SeesThemAgain",
    }


@pytest.mark.parametrize(("recipe", "kind"), cases())
def test_graph_equals_eager_and_lowers_every_loss(recipe, kind):
    graph = kind.compiled(recipe)
    eager = kind.compiled(recipe, run_eagerly=True)
    first = kind.train(graph)
    kind.train(eager)
    assert largest_difference(trainable(graph), trainable(eager)) < 1e-6
    kind.train(graph, steps=60)
    # Another batch size in the same model.
    x, y = batch(9, seed=0)
    kind.train(graph, size=9)
    last = graph.evaluate(x, kind.labels(y), verbose=0, return_dict=True)
    for name in NAMES:
        assert last[f"{name}_loss"] < 0.9 * first[f"{name}_loss"], name


@pytest.mark.parametrize(
    ("recipe", "kind"), [(r, k) for r, k in cases() if k is not HEADS]
)
def test_jit_compile_equals_graph(recipe, kind):
    graph = kind.compiled(recipe)
    jit = kind.compiled(recipe, jit_compile=True)
    kind.train(graph, steps=3)
    kind.train(jit, steps=3)
    assert largest_difference(trainable(graph), trainable(jit)) < 1e-5


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    ("recipe", "kind"), [(r, k) for r, k in cases() if k is not HEADS]
)
def test_half_precision_lowers_the_loss(recipe, kind, policy):
    keras.config.set_dtype_policy(policy)
    model = kind.compiled(recipe)
    first = kind.train(model)["loss"]
    last = kind.train(model, steps=40)["loss"]
    assert model.trainable_variables[0].dtype == "float32"
    assert np.isfinite(last)
    assert last < 0.9 * first


@pytest.mark.parametrize(("recipe", "kind"), cases())
def test_replicas_equal_one(recipe, kind, mirrored):
    """With SGD, as Adam hides factors; two workers: test_multi_worker.py."""
    one = twenty_steps(kind.compiled(recipe), kind)
    for num_replicas in (2, 4) if recipe == "gradnorm+graddrop" else (2,):
        with mirrored(num_replicas).scope():
            model = kind.compiled(recipe)
        several = twenty_steps(model, kind)
        assert largest_difference(one, several) < 1e-5, num_replicas


@pytest.mark.parametrize(("recipe", "kind"), IN_MODELS)
def test_saved_model_continues_as_if_never_saved(recipe, kind, tmp_path):
    model = kind.compiled(recipe, keras.optimizers.Adam(0.01))
    kind.train(model, steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    kind.train(model, steps=3)
    kind.train(loaded, steps=3)
    assert largest_difference(trainable(model), trainable(loaded)) == 0


@pytest.mark.parametrize("method", sorted({*gd.METHODS} - {*ALONE}))
def test_methods_that_work_in_the_same_way(method, mirrored, tmp_path):
    """In short for each: two replicas, half precision, save and load."""
    one = twenty_steps(VECTOR.compiled(method), VECTOR)
    with mirrored(2).scope():
        model = VECTOR.compiled(method)
    assert largest_difference(one, twenty_steps(model, VECTOR)) < 1e-5
    keras.config.set_dtype_policy("mixed_float16")
    model = VECTOR.compiled(method, keras.optimizers.Adam(0.01))
    first = VECTOR.train(model)["loss"]
    assert VECTOR.train(model, steps=40)["loss"] < 0.9 * first
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for same in (model, loaded):
        VECTOR.train(same, steps=3)
    assert largest_difference(trainable(model), trainable(loaded)) == 0


@pytest.mark.parametrize("recipe", LAYER_RECIPES)
def test_saved_layer_continues_as_if_never_saved(recipe, tmp_path):
    model = LAYER.compiled(recipe, keras.optimizers.Adam(0.01))
    LAYER.train(model, steps=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    LAYER.train(model, steps=3)
    LAYER.train(loaded, steps=3)
    assert largest_difference(trainable(model), trainable(loaded)) == 0


@pytest.mark.parametrize("kind", [HEADS, VECTOR])
def test_model_loads_without_compiling(kind, tmp_path):
    model = kind.compiled("gradnorm+graddrop")
    kind.train(model, steps=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    before = [w.numpy() for w in model.weights]
    after = [w.numpy() for w in loaded.weights]
    assert largest_difference(before, after) == 0


@pytest.mark.parametrize(("recipe", "kind"), cases(["graddrop", "mgda"]))
def test_evaluate_and_predict_are_those_of_the_plain_model(recipe, kind):
    model = kind.compiled(recipe)
    kind.train(model, steps=2)
    plain = gd.inference_model(model)
    plain.compile(loss=model.loss)
    x, y = batch(11)
    expected = plain.evaluate(x, kind.labels(y), verbose=0, return_dict=True)
    logs = model.evaluate(x, kind.labels(y), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    for a, b in zip(
        keras.tree.flatten(model.predict(x, verbose=0)),
        keras.tree.flatten(plain.predict(x, verbose=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def scale_free(recipe):
    """Whether a loss twice as large gives a gradient twice as large."""
    parsed = gd.Recipe.parse(recipe)
    return (
        parsed.weighting is None
        and parsed.global_clipnorm is None
        and not parsed.gradient_penalty
    )


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (r, k)
        for r, k in cases([r for r in RECIPES if scale_free(r)])
        if k is not HEADS
    ],
)
def test_weights_are_part_of_the_losses(recipe, kind):
    plain = kind.compiled(recipe, keras.optimizers.SGD(0.04))
    kind.train(plain, steps=2)
    by_sample = kind.compiled(recipe, keras.optimizers.SGD(0.02))
    weight = np.full([16], 2.0, np.float32)
    if kind is not VECTOR:
        weight = [weight] * NUM_LOSSES
    kind.train(by_sample, steps=2, sample_weight=weight)
    assert largest_difference(trainable(plain), trainable(by_sample)) < 1e-5
    by_loss = kind.compiled(
        recipe,
        keras.optimizers.SGD(0.02),
        loss_weights=dict.fromkeys(NAMES, 2.0),
    )
    kind.train(by_loss, steps=2)
    assert largest_difference(trainable(plain), trainable(by_loss)) < 1e-5


@pytest.mark.parametrize(("recipe", "kind"), IN_MODELS)
def test_accumulation_combines_each_micro_batch_alone(recipe, kind):
    if "clip" in recipe:
        pytest.skip("clipping acts on the accumulated gradient instead")
    deltas = []
    for step in range(2):
        model = kind.compiled(recipe, keras.optimizers.SGD(0.1))
        before = trainable(model)
        # Methods learn from each micro-batch.
        if step == 1:
            single = kind.compiled(recipe, keras.optimizers.SGD(0.0))
            kind.train(single)
            for target, value in zip(
                model.recipe_state.state_variables,
                single.recipe_state.state_variables,
                strict=True,
            ):
                target.assign(value)
        model.recipe_state.combiner.step.assign(step)
        kind.train(model)
        deltas.append(
            [a - b for a, b in zip(trainable(model), before, strict=True)]
        )
    model = kind.compiled(
        recipe, keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    )
    kind.train(model)
    assert largest_difference(trainable(model), before) == 0
    kind.train(model)
    expected = [
        w + (a + b) / 2 for w, a, b in zip(before, *deltas, strict=True)
    ]
    assert largest_difference(trainable(model), expected) < 1e-6


@keras.saving.register_keras_serializable("graddrop_tf_tests")
def second_is_nan(y_true, y_pred):
    poison = tf.constant([1.0, float("nan"), 1.0])
    return tf.square(y_true - y_pred) * poison


def nan_loss(y_true, y_pred):
    return tf.reduce_mean(tf.square(y_pred), axis=-1) * float("nan")


def poisoned(kind, recipe, optimizer):
    model = kind.build(recipe)
    loss = ["mse", nan_loss, "mse"]
    if kind is VECTOR:
        loss = gd.VectorLoss(second_is_nan)
    model.compile(optimizer, loss=loss)
    return model


@pytest.mark.parametrize(("recipe", "kind"), cases())
def test_nan_in_one_loss_is_seen(recipe, kind):
    model = poisoned(kind, recipe, keras.optimizers.SGD(0.1))
    kind.train(model)
    kernel = model.get_layer("trunk_dense") if kind is LAYER else model.trunk
    assert np.all(np.isnan(kernel.get_weights()[0]))


@pytest.mark.parametrize(("recipe", "kind"), IN_MODELS)
def test_loss_scaling_skips_a_step_with_nan(recipe, kind):
    keras.config.set_dtype_policy("mixed_float16")
    model = poisoned(kind, recipe, keras.optimizers.SGD(0.1))
    before = trainable(model)
    kind.train(model)
    assert largest_difference(trainable(model), before) == 0
    for variable in model.recipe_state.state_variables:
        assert np.all(np.isfinite(variable))


def operations(path):
    """Returns the operations that a saved model serves with."""
    served = tf.saved_model.load(path).signatures["serving_default"]
    names = []
    graphs = [served.graph.as_graph_def()]
    for graph in graphs:
        nodes = list(graph.node)
        for function in graph.library.function:
            nodes.extend(function.node_def)
        names.extend(node.op for node in nodes)
    return sorted(names)


def without_methods(kind):
    """Builds the same model from Keras alone."""
    inputs = keras.Input([6], name="x")
    features = keras.layers.Dense(8, activation="tanh")(inputs)
    if kind is LAYER:
        return keras.Model(inputs, kind.heads_on([features] * NUM_LOSSES))
    trunk = keras.Model(inputs, features)
    shared = keras.Input([8])
    if kind is HEADS:
        heads = keras.Model(shared, kind.heads_on([shared] * NUM_LOSSES))
    else:
        hidden = keras.layers.Dense(5, activation="tanh")(shared)
        heads = keras.Model(shared, keras.layers.Dense(NUM_LOSSES)(hidden))
    return keras.Model(inputs, heads(trunk(inputs)))


@pytest.mark.parametrize("kind", [LAYER, HEADS, VECTOR])
def test_export_serves_the_operations_of_the_plain_model(kind, tmp_path):
    model = kind.compiled("mgda+graddrop")
    kind.train(model)
    plain = without_methods(kind)
    model.export(tmp_path / "ours", verbose=False)
    plain.export(tmp_path / "plain", verbose=False)
    assert operations(str(tmp_path / "ours")) == operations(
        str(tmp_path / "plain")
    )
    x, _ = batch(5)
    served = tf.saved_model.load(str(tmp_path / "ours"))
    for a, b in zip(
        keras.tree.flatten(served.serve(x)),
        keras.tree.flatten(model.predict(x, verbose=0)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
