"""What a user sets acts, or is refused in a line."""

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf import models

KIND = models.Kind("shared")


class HandsOn(keras.optimizers.Optimizer):
    """Gives the first variables to one optimizer, the others to another."""

    def __init__(self, first, second, count=2):
        super().__init__(learning_rate=0.1)
        self.first, self.second, self.count = first, second, count

    def build(self, variables):
        super().build(variables)
        self.first.build(variables[: self.count])
        self.second.build(variables[self.count :])

    def apply(self, grads, trainable_variables=None):
        self.first.apply(grads[: self.count], trainable_variables[: self.count])
        self.second.apply(
            grads[self.count :], trainable_variables[self.count :]
        )


class Descends(keras.optimizers.SGD):
    """Updates the variables by itself."""

    def apply_gradients(self, grads_and_vars):
        for gradient, variable in grads_and_vars:
            variable.assign_sub(self.learning_rate * gradient)


class Doubles(keras.optimizers.SGD):
    """Changes the gradients, and leaves the rest to Keras."""

    def apply(self, grads, trainable_variables=None):
        super().apply([2.0 * g for g in grads], trainable_variables)


def _sgd(**kwargs):
    return keras.optimizers.SGD(0.1, **kwargs)


def _length_of_a_step(model):
    before = models.trainable(model)
    KIND.train(model)
    pairs = zip(models.trainable(model), before, strict=True)
    return np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))


OPTIMIZERS = {
    "keras": _sgd,
    "hands_on": lambda: HandsOn(_sgd(), _sgd()),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        HandsOn(_sgd(), _sgd()), initial_scale=64.0
    ),
    "scaled_by_a_number": lambda: Doubles(0.05, loss_scale_factor=64.0),
    "descends": lambda: Descends(0.1),
}
if hasattr(keras.optimizers, "MultiOptimizer"):
    OPTIMIZERS["multi"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(_sgd(), {".*kernel": _sgd()})
    )


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_recipe_clips_with_every_optimizer(name, eagerly):
    """A step is the rate times the norm: 0.1 * 0.01."""
    model = KIND.build("graddrop(seed=1)+clip(0.01)")
    KIND.compile(model, OPTIMIZERS[name](), run_eagerly=eagerly)
    assert _length_of_a_step(model) == pytest.approx(0.001, rel=1e-4)
    model = KIND.build("graddrop(seed=1)")
    KIND.compile(model, OPTIMIZERS[name](), run_eagerly=eagerly)
    assert _length_of_a_step(model) > 0.01


def test_a_recipe_clips_the_accumulated_gradient_under_a_loss_scale():
    """Not that of each micro-batch, whose directions differ."""
    weights = []
    for scaled in (False, True):
        optimizer = _sgd(gradient_accumulation_steps=2)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=64.0
            )
        model = KIND.compiled("clip(0.01)", optimizer)
        for seed in (0, 1):
            KIND.train(model, seed=seed)
        weights.append(models.trainable(model))
    assert models.largest_difference(*weights) < 1e-7
    start = models.trainable(KIND.build("clip(0.01)"))
    assert models.largest_difference(weights[0], start) > 1e-5


@pytest.mark.parametrize("name", ["keras", "hands_on"])
def test_a_recipe_clips_on_replicas(name, mirrored):
    """The clipped sum of all replicas' gradients, not that of clipped ones."""
    with mirrored(2).scope():
        model = KIND.build("clip(0.01)")
        KIND.compile(model, OPTIMIZERS[name]())
    before = models.trainable(model)
    x, y = models.batch()
    model.fit(x, KIND.labels(y), batch_size=16, shuffle=False, verbose=0)
    alone = KIND.compiled("clip(0.01)", _sgd())
    alone.fit(x, KIND.labels(y), batch_size=16, shuffle=False, verbose=0)
    assert models.largest_difference(before, models.trainable(model)) > 1e-4
    assert (
        models.largest_difference(
            models.trainable(alone), models.trainable(model)
        )
        < 1e-7
    )


def test_a_recipe_clips_with_an_optimizer_that_is_set_later():
    model = KIND.compiled("clip(0.01)")
    model.optimizer = _sgd()
    assert _length_of_a_step(model) == pytest.approx(0.001, rel=1e-4)


def test_clipping_is_refused_where_it_could_not_act():
    with pytest.raises(ValueError, match=r"`apply` of its own.*HandsOn"):
        gd.clip_after_reduction(OPTIMIZERS["hands_on"](), 1.0)
    gd.clip_after_reduction(OPTIMIZERS["hands_on"](), None)
    inputs, shared = keras.Input([6]), keras.Input([4])
    regularized = keras.layers.Dense(4, kernel_regularizer="l2")
    model = gd.MultiLossModel(
        keras.Model(inputs, regularized(inputs)),
        keras.Model(shared, keras.layers.Dense(1)(shared)),
        recipe="clip(0.01)",
    )
    with pytest.raises(ValueError, match="needs a `loss`"):
        model.compile(OPTIMIZERS["hands_on"]())
    model.compile(_sgd())
    before = models.trainable(model)
    x, _ = models.batch()
    model.train_on_batch(x)
    pairs = zip(models.trainable(model), before, strict=True)
    length = np.sqrt(sum(np.sum((a - b) ** 2) for a, b in pairs))
    assert length == pytest.approx(0.001, rel=1e-4)


def test_a_compute_loss_of_the_user_is_refused():
    class WithTerm(gd.MultiLossModel):
        def compute_loss(self, *args, **kwargs):
            return 1.0 + super().compute_loss(*args, **kwargs)

    like = KIND.build("graddrop")
    model = WithTerm(like.trunk, like.heads)
    with pytest.raises(ValueError, match=r"`compute_loss` takes no part"):
        model.compile("sgd", "mse")
    like.compute_loss = lambda *args, **kwargs: 1.0
    with pytest.raises(ValueError, match=r"`compute_loss` takes no part"):
        like.compile("sgd", "mse")


@pytest.mark.parametrize("trunk", ["functional", "built by a batch"])
def test_other_arguments_are_refused(trunk):
    like = KIND.build("graddrop")
    parts = [like.trunk, like.heads]
    if trunk != "functional":
        parts = [keras.layers.Dense(4), keras.layers.Dense(3)]
    with pytest.raises(ValueError, match=r"Unknown arguments.*'leak'"):
        gd.MultiLossModel(*parts, leak=0.5)
    with pytest.raises(ValueError, match=r"dtypes of their own.*'float16'"):
        gd.MultiLossModel(*parts, dtype="float16")
    model = gd.MultiLossModel(*parts, name="named", trainable=False)
    assert model.name == "named"
    model(np.ones([2, 6], np.float32))
    assert model.weights
    assert not model.trainable_variables


def test_a_clip_that_a_user_attaches_stays():
    model = KIND.build("graddrop(seed=1)")
    optimizer = _sgd()
    gd.clip_after_reduction(optimizer, 0.01)
    KIND.compile(model, optimizer)
    assert _length_of_a_step(model) == pytest.approx(0.001, rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (gd.GradDrop(leak=[0.1, 0.2]), "2 values for 3 losses"),
        (gd.GradDrop(leak={"zz": 1.0}), "names no such loss"),
        ("no_method", "no_method"),
    ],
)
def test_a_recipe_that_does_not_fit_changes_nothing(recipe, said):
    model = KIND.compiled("graddrop(seed=1)+clip(0.01)", _sgd())
    KIND.train(model)
    state = model.recipe_state
    with pytest.raises(ValueError, match=said):
        model.recipe = recipe
    assert model.recipe_state is state
    assert _length_of_a_step(model) == pytest.approx(0.001, rel=1e-4)
    assert int(state.combiner.step) == 2


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class WithoutShapes(keras.layers.Layer):
    """A layer of the user's own, whose output shape only a call tells."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(8)

    def call(self, inputs):
        return self.dense(inputs)


def test_a_trunk_without_output_shapes_is_saved_and_called(tmp_path):
    model = gd.MultiLossModel(
        WithoutShapes(), KIND.build("baseline").heads, recipe="graddrop"
    )
    KIND.compile(model)
    KIND.train(model)
    x, _ = models.batch()
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, right in zip(loaded.predict(x, verbose=0), expected, strict=True):
        np.testing.assert_array_equal(ours, right)
    clone = keras.models.clone_model(model)
    assert clone.recipe.method_names == ("graddrop",)
    assert [t.shape for t in model(keras.Input([6]))] == [(None, 1)] * 3
    assert model.compute_output_shape((5, 6)) == [(5, 1)] * 3


def test_outputs_have_their_own_dtypes_before_a_call():
    keras.config.set_dtype_policy("mixed_float16")
    heads = keras.layers.Dense(2, dtype="float32")
    model = gd.MultiLossModel(keras.Sequential([keras.layers.Dense(8)]), heads)
    assert model(keras.Input([6])).dtype == "float32"


@pytest.mark.parametrize("trunk", ["functional", "built by a batch"])
def test_the_shapes_of_the_outputs_are_known_before_a_call(trunk):
    model = KIND.build("graddrop")
    if trunk != "functional":
        layers = keras.Sequential([keras.layers.Dense(8)])
        model = gd.MultiLossModel(layers, model.heads, recipe="graddrop")
    assert model.compute_output_shape((None, 6)) == [(None, 1)] * 3
    assert model.compute_output_shape((5, 6)) == [(5, 1)] * 3


def test_what_would_be_ignored_later_cannot_be_assigned():
    model = KIND.compiled("gradnorm+clip(1.0)")
    for name, value in [
        ("trunk", model.heads),
        ("heads", model.trunk),
        ("separate", True),
    ]:
        with pytest.raises(AttributeError, match=f"`{name}`.*cannot change"):
            setattr(model, name, value)
        setattr(model, name, getattr(model, name))
    for name, value in [
        ("global_clipnorm", 2.0),
        ("gradient_penalty", 0.1),
        ("weighting", None),
        ("combiner", gd.Chain([])),
    ]:
        with pytest.raises(AttributeError, match=f"`{name}`.*model.recipe"):
            setattr(model.recipe_state, name, value)


def test_chunks_may_be_assigned():
    """As in a model that was made with them, from the next step on."""
    model = KIND.compiled("graddrop(seed=1)")
    KIND.train(model)
    model.loss_chunk_size = 2
    assert model.train_function is None
    assert model.get_config()["loss_chunk_size"] == 2
    KIND.train(model)
    other = KIND.build("graddrop(seed=1)", loss_chunk_size=2)
    KIND.train(KIND.compile(other), 2)
    difference = models.largest_difference(
        models.trainable(model), models.trainable(other)
    )
    assert difference < 1e-6
    with pytest.raises(ValueError, match="PCGrad"):
        model.recipe = "pcgrad"
    model.loss_chunk_size = None
    model.recipe = "pcgrad"
    with pytest.raises(ValueError, match="PCGrad"):
        model.loss_chunk_size = 2
    with pytest.raises(ValueError, match="loss_chunk_size"):
        model.loss_chunk_size = 0
