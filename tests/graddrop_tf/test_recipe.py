import keras
import pytest

import graddrop_tf as gd
from tests.graddrop_tf.models import RECIPES


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("baseline", "baseline"),
        (" graddrop ", "graddrop"),
        ("graddrop(k=0.25, leak=[1, 0])", "graddrop(leak=[1, 0], k=0.25)"),
        ("graddrop(leak={'a': .5})", "graddrop(leak={'a': 0.5})"),
        ("mgda+graddrop", "mgda+graddrop"),
        ("clip(1e+3)+pcgrad", "pcgrad+clip(1000.0)"),
        ("penalty(0.1)", "penalty(0.1)"),
        (
            "graddrop+gradnorm(1.5, 1e-2)",
            "gradnorm(alpha=1.5, learning_rate=0.01)+graddrop",
        ),
    ],
)
def test_parse_and_text(text, canonical):
    recipe = gd.Recipe.parse(text)
    assert str(recipe) == canonical
    assert gd.Recipe.parse(str(recipe)) == recipe


def test_parse_equals_the_constructor():
    assert gd.Recipe.parse(
        "gradnorm(alpha=1.0)+mgda+graddrop(leak=0.2)+clip(2.0)+penalty(0.5)"
    ) == gd.Recipe(
        weighting=gd.GradNorm(alpha=1.0),
        combiners=[gd.MGDA(), gd.GradDrop(leak=0.2)],
        global_clipnorm=2.0,
        gradient_penalty=0.5,
    )
    assert gd.Recipe.parse("mgda+graddrop") != gd.Recipe.parse("graddrop+mgda")
    assert gd.Recipe.parse("baseline") == gd.Recipe()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gradrop", "famo, geometric_mean, graddrop, gradient_dropout"),
        ("graddrop(lek=0.1)", "Known arguments: leak, k"),
        ("graddrop(num_losses=2)", "Known arguments: leak, k"),
        ("graddrop(0.1, leak=0.2)", "Known arguments"),
        ("mgda(1, 2, 3)", "Known arguments: sync_replicas"),
        ("graddrop(leak=2.0)", r"\[0, 1\]"),
        ("graddrop(k=-1)", "at least 0"),
        ("graddrop(k='x')", "at least 0"),
        ("gradnorm(alpha=None)", "at least 0"),
        ("graddrop(leak=open('x'))", "plain values"),
        ("graddrop(**{'k': 1})", "no such arguments"),
        ("graddrop-mgda", "joined"),
        ("graddrop+", "joined"),
        ("", "joined"),
        (None, "joined"),
        ("baseline+graddrop", "stands alone"),
        ("clip", "needs a value"),
        ("clip(-1)", "above 0"),
        ("clip('a')", "above 0"),
        ("clip(1)+clip(2)", "one global_clipnorm"),
        ("penalty(-1)", "at least 0"),
        ("gradnorm+gradnorm", "one weighting"),
    ],
)
def test_bad_text_is_told_in_a_line(text, said):
    with pytest.raises(ValueError, match=said) as error:
        gd.Recipe.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"weighting": gd.GradDrop},
        {"weighting": gd.GradDrop()},
        {"combiners": [gd.GradNorm()]},
        {"combiners": ["graddrop"]},
        {"global_clipnorm": 0.0},
        {"global_clipnorm": True},
        {"gradient_penalty": float("nan")},
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="Received"):
        gd.Recipe(**arguments)


def test_a_recipe_is_a_frozen_value():
    recipe = gd.Recipe.parse("graddrop(k=0.5)")
    with pytest.raises(AttributeError):
        recipe.gradient_penalty = 1.0
    assert len({recipe, gd.Recipe.parse("graddrop(k=0.5)")}) == 1


def test_each_model_has_layers_of_its_own():
    recipe = gd.Recipe(combiners=gd.GradDrop(), weighting=gd.GradNorm())
    first, second = recipe.build(2), recipe.build(3)
    assert first.combiner.combiners[0] is not second.combiner.combiners[0]
    assert first.combiner.combiners[0].seed != second.combiner.combiners[0].seed
    assert first.weighting.current_weights().shape == (2,)
    assert second.weighting.current_weights().shape == (3,)


@pytest.mark.parametrize("text", [*RECIPES, *gd.METHODS])
def test_the_recipe_of_a_saved_model_has_a_text(text):
    """It makes the same methods, with the seeds that were drawn."""
    state = gd.Recipe.parse(text).build(3)
    saved = keras.saving.serialize_keras_object(state)
    loaded = keras.saving.deserialize_keras_object(saved)
    recipe = gd.Recipe.from_state(loaded)
    parsed = gd.Recipe.parse(str(recipe))
    assert parsed.method_names == gd.Recipe.parse(text).method_names
    again = gd.Recipe.from_state(parsed.build(3))
    assert str(again) == str(recipe)


@pytest.mark.parametrize("text", RECIPES)
def test_state_survives_its_config(text):
    state = gd.Recipe.parse(text).build(3)
    config = keras.saving.serialize_keras_object(state)
    rebuilt = keras.saving.deserialize_keras_object(config)
    assert rebuilt.get_config() == state.get_config()
    assert rebuilt.global_clipnorm == state.global_clipnorm
    assert [w.shape for w in rebuilt.weights] == [
        w.shape for w in state.weights
    ]


@pytest.mark.parametrize("num_losses", [0, -1, 2.0, True, None])
def test_build_needs_a_number_of_losses(num_losses):
    with pytest.raises(ValueError, match="positive integer"):
        gd.Recipe().build(num_losses)


def test_build_checks_leaks():
    with pytest.raises(ValueError, match="2 values for 3 losses"):
        gd.Recipe.parse("graddrop(leak=[1, 0])").build(3)


def test_method_names_are_those_of_the_text_in_order():
    recipe = gd.Recipe.parse(
        "mgda+clip(1.0)+graddrop(k=0.5)+gradnorm+penalty(0.1)"
    )
    assert recipe.method_names == ("gradnorm", "mgda", "graddrop")
    assert gd.Recipe().method_names == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "baseline"),
        ("graddrop(leak=0.2)+clip(1.0)", "graddrop(leak=0.2)+clip(1.0)"),
        (gd.GradDrop(leak=0.2), "graddrop(leak=0.2)"),
        (gd.GradNorm(alpha=1.0), "gradnorm(alpha=1.0)"),
        (gd.Recipe.parse("mgda"), "mgda"),
    ],
)
def test_a_model_takes_a_recipe_its_text_or_a_method(value, text):
    assert str(gd.Recipe.of(value)) == text
    inputs, shared = keras.Input([3]), keras.Input([2])
    model = gd.MultiLossModel(
        keras.Model(inputs, keras.layers.Dense(2)(inputs)),
        keras.Model(shared, [keras.layers.Dense(1)(shared) for _ in "ab"]),
        recipe=value,
    )
    assert str(model.recipe) == text


@pytest.mark.parametrize("value", [0.5, ["graddrop"], gd.GradDrop])
def test_what_is_not_a_recipe_is_told(value):
    with pytest.raises(ValueError, match="A recipe is a gd.Recipe, its text"):
        gd.Recipe.of(value)
