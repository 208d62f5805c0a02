"""`keras.models.clone_model` makes a model with the same recipe."""

import gc
import weakref

import keras
import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf import models

L = keras.layers
RECIPE = "gradnorm(alpha=0.5)+graddrop(leak=0.25, seed=3)+clip(2.0)"


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Named(gd.MultiLossModel):
    """A subclass with an argument of its own."""

    def __init__(self, trunk, heads, recipe=None, note="none", **kwargs):
        super().__init__(trunk, heads, recipe, **kwargs)
        self.note = note

    def get_config(self):
        return {**super().get_config(), "note": self.note}


def _clone_as_one(layer):
    """Clones layers as Keras does by default."""
    return type(layer).from_config(layer.get_config())


def _halves():
    kind = models.Kind("shared").build("baseline")
    return kind.trunk, kind.heads


WAYS = {
    "functional": lambda cls: cls(*_halves(), recipe=RECIPE, name="named"),
    "sequential": lambda cls: cls(
        keras.Sequential([keras.Input([6]), L.Dense(8, activation="tanh")]),
        _halves()[1],
        recipe=RECIPE,
        name="named",
    ),
    "built by a batch": lambda cls: cls(
        keras.Sequential([L.Dense(8)]),
        _halves()[1],
        recipe=RECIPE,
        name="named",
    ),
    "reads its inputs": lambda cls: cls(
        *_with_inputs(), recipe=RECIPE, name="named"
    ),
}


def _with_inputs():
    inputs = keras.Input([6])
    trunk = keras.Model(inputs, [L.Dense(4)(inputs), inputs])
    shared = [keras.Input([4]), keras.Input([6])]
    both = L.Concatenate()(shared)
    return trunk, keras.Model(shared, [L.Dense(1, name=n)(both) for n in "abc"])


def _check_recipe(model):
    assert model.recipe.method_names == ("gradnorm", "graddrop")
    assert model.recipe.global_clipnorm == 2.0
    assert model.method("gradnorm").alpha == 0.5
    assert model.method("graddrop").leak == 0.25


def _train(model, steps=3):
    x, y = models.batch()
    y = [y[:, i : i + 1] for i in range(3)]
    for _ in range(steps):
        model.train_on_batch(x, y)
    return models.trainable(model)


@pytest.mark.parametrize("cls", [gd.MultiLossModel, Named])
@pytest.mark.parametrize("way", WAYS)
def test_a_clone_trains_like_a_new_model(way, cls):
    """Its recipe is the same, its weights and its state are its own."""
    model = WAYS[way](cls)
    model.compile(keras.optimizers.SGD(0.1), ["mse"] * 3)
    x, _ = models.batch()
    model(x)
    start = model.get_weights()
    trained = _train(model)
    clone = keras.models.clone_model(model)
    assert type(clone).__name__ == cls.__name__
    assert isinstance(clone, cls)
    assert clone.name == "named"
    _check_recipe(clone)
    clone(x)
    clone.set_weights(start)
    for ours, right in zip(_train(clone), trained, strict=True):
        np.testing.assert_array_equal(ours, right)
    for ours, right in zip(models.trainable(model), trained, strict=True):
        np.testing.assert_array_equal(ours, right)
    shared = {id(w) for w in model.variables} & {id(w) for w in clone.variables}
    assert not shared


def test_arguments_of_a_subclass_and_chunks_are_kept():
    model = Named(*_halves(), "graddrop", note="kept", loss_chunk_size=2)
    clone = keras.models.clone_model(model)
    assert clone.note == "kept"
    assert clone.loss_chunk_size == 2
    again = keras.models.clone_model(clone)
    assert again.note == "kept"
    assert again.recipe_state is not clone.recipe_state


def test_a_clone_does_not_keep_the_model_that_it_was_made_of():
    model = WAYS["functional"](gd.MultiLossModel)
    clone = keras.models.clone_model(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert clone.recipe.global_clipnorm == 2.0


def test_layers_come_from_the_functions_that_keras_is_given():
    model = WAYS["functional"](gd.MultiLossModel)
    made, called = [], []

    def clone(layer):
        made.append(_clone_as_one(layer))
        return made[-1]

    copy = keras.models.clone_model(model, clone_function=clone)
    assert [copy.trunk, copy.heads] == made

    def call(layer, *args, **kwargs):
        called.append(layer.name)
        return layer(*args, **kwargs)

    copy = keras.models.clone_model(
        model, clone_function=lambda layer: layer, call_function=call
    )
    assert called == [model.trunk.name, model.heads.name]
    assert copy.trunk is model.trunk
    _check_recipe(copy)


@pytest.mark.parametrize("way", ["functional", "sequential"])
def test_a_clone_on_inputs_that_are_given(way):
    model = WAYS[way](gd.MultiLossModel)
    inputs = keras.Input([6], batch_size=4, name="others")
    copy = keras.models.clone_model(model, input_tensors=inputs)
    _check_recipe(copy)
    assert copy.inputs[0].name == "others"
    assert copy.outputs[0].shape == (4, 1)
    copy.set_weights(model.get_weights())
    x, _ = models.batch(4)
    pairs = zip(copy(x), model(x), strict=True)
    for ours, right in pairs:
        np.testing.assert_allclose(ours, right, rtol=1e-6)
    behind = L.Dense(6)(keras.Input([2]))
    with pytest.raises(ValueError, match="`input_tensors` must be inputs"):
        keras.models.clone_model(model, input_tensors=behind)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_call_of_another_layer_has_no_place(num_outputs):
    inputs, shared = keras.Input([6]), keras.Input([4])
    outputs = [L.Dense(1)(shared) for _ in range(num_outputs)]
    trunk = keras.Model(inputs, L.Dense(4)(inputs), name="trunk")
    heads = keras.Model(shared, outputs, name="heads")
    model = gd.MultiLossModel(trunk, heads)

    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        relu = L.Activation("relu", name="relu")
        return keras.tree.map_structure(relu, outputs)

    with pytest.raises(
        ValueError, match=r"calls of \['trunk', 'relu', 'heads'"
    ):
        keras.models.clone_model(
            model, clone_function=lambda layer: layer, call_function=twice
        )


def test_models_that_are_no_clones_are_made_as_ever():
    """A model called on inputs marks its outputs, and that is all."""
    model = WAYS["functional"](gd.MultiLossModel)
    inputs = keras.Input([6])
    outer = keras.Model(inputs, model(inputs))
    assert type(outer) is type(keras.Model(inputs, L.Dense(1)(inputs)))
    cloned = keras.models.clone_model(outer)
    (inner,) = [m for m in cloned.layers if isinstance(m, gd.MultiLossModel)]
    _check_recipe(inner)
    again = type(model)(*_halves(), recipe="mgda")
    assert again.recipe.method_names == ("mgda",)
    with pytest.raises(ValueError, match="must be a Keras model"):
        type(model)(inputs, outer.outputs)
