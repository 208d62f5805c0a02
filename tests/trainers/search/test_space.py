import dataclasses
import types

import keras_tuner
import pytest

from trainers import config, errors
from trainers.experiments import registry
from trainers.search import space as search_space

_DIGITS = registry.EXPERIMENTS["digits"]


def _make(method, **texts):
    return search_space.make(_DIGITS, method, texts)


def _draw(space, **values):
    """Draws with the given values; dots in their names are written `__`."""
    hyperparameters = space.hyperparameters()
    for name, value in values.items():
        name = name.replace("__", ".")
        assert name in hyperparameters.values
        hyperparameters.values[name] = value
    return space.draw(hyperparameters)


def test_ranges_become_values_of_four_digits():
    space = _make(
        "gradnorm(alpha=uniform(0, 3))+graddrop(k=0.5, leak=0.0)",
        learning_rate="log_uniform(1e-4, 1e-1)",
        batch_size="integer(8, 64)",
    )
    sample = _draw(
        space, gradnorm__alpha=1.23456, learning_rate=0.00123456, batch_size=24
    )
    assert (
        str(sample.recipe) == "gradnorm(alpha=1.235)+graddrop(leak=0.0, k=0.5)"
    )
    assert sample.config == dataclasses.replace(
        _DIGITS.defaults, learning_rate=0.001235, batch_size=24
    )
    assert sample.values == {
        "gradnorm.alpha": 1.235,
        "learning_rate": 0.001235,
        "batch_size": 24,
    }


def test_ranges_have_the_bounds_and_scales_that_are_written():
    space = _make(
        "graddrop(k=uniform(0.5, 1.5), leak=log_uniform(0.01, 1.0))",
        learning_rate="0.1",
        batch_size="integer(8, 11)",
    )
    described = {
        parameter.name: parameter.get_config()
        for parameter in space.hyperparameters().space
    }
    parts = "min_value", "max_value", "sampling"
    assert {
        name: tuple(config[part] for part in parts)
        for name, config in described.items()
    } == {
        "graddrop.k": (0.5, 1.5, "linear"),
        "graddrop.leak": (0.01, 1.0, "log"),
        "batch_size": (8, 11, "linear"),
    }


@pytest.mark.parametrize(
    ("method", "completed"),
    [
        ("baseline", "baseline"),
        ("mgda + pcgrad(iterative=True)", "mgda+pcgrad(iterative=True)"),
        (
            "graddrop",
            "graddrop(k=uniform(0.0, 2.0), leak=uniform(0.0, 1.0))",
        ),
        ("graddrop(leak=0.5, k=1.0)", "graddrop(leak=0.5, k=1.0)"),
        (
            "graddrop(leak=0.5)",
            "graddrop(leak=0.5, k=uniform(0.0, 2.0))",
        ),
        ("graddrop(0.5)", "graddrop(0.5)"),
        ("gradnorm+clip", None),
    ],
)
def test_open_arguments_get_the_declared_ranges(method, completed):
    completed = completed or (
        "gradnorm(alpha=uniform(0.0, 3.0))+clip(norm=log_uniform(0.1, 10.0))"
    )
    assert _make(method).method == completed


@pytest.mark.parametrize(
    ("method", "texts", "searched"),
    [
        (
            "graddrop(leak=[0, uniform(0, 1)])",
            {},
            "graddrop.leak[1] in [0.0, 1.0] (given)",
        ),
        (
            "graddrop",
            {"learning_rate": "log_uniform(1e-3, 1e-1)"},
            "learning_rate in [0.001, 0.1], in the logarithm (given)",
        ),
        (
            "graddrop(k=1.0)",
            {"batch_size": "choice(8, 16)"},
            "batch_size in {8, 16} (given)",
        ),
        (
            "graddrop(k=1.0)",
            {"batch_size": "8"},
            "graddrop.leak in [0.0, 1.0], learning_rate in [0.001, 0.03], in "
            "the logarithm (declared, as none are given)",
        ),
    ],
)
def test_given_ranges_are_searched_alone(method, texts, searched):
    space = _make(method, **texts)
    assert str(space) == searched


def test_an_experiment_declares_ranges_of_its_own():
    class Own(type(_DIGITS)):
        search_space = types.MappingProxyType(
            {
                "batch_size": "integer(8, 16)",
                "graddrop.leak": "[uniform(0, 1), 0.0]",
            }
        )

    space = search_space.make(Own(), "graddrop", {})
    assert _draw(space, batch_size=9).values == {
        "graddrop.k": 0.0,
        "graddrop.leak[0]": 0.0,
        "batch_size": 9,
    }
    fixed = search_space.make(Own(), "graddrop(k=1.0)", {"batch_size": "8"})
    assert list(_draw(fixed).values) == ["graddrop.leak[0]"]


def test_ranges_are_named_by_their_place():
    space = _make(
        "graddrop(leak=[uniform(0, 1), 0.5], k=1.0)+mgda"
        "+graddrop(leak={'a b': uniform(0, 1)}, k=uniform(0, 1))"
        "+clip(uniform(1, 2))"
    )
    values = {
        "graddrop.leak[0]": 0.25,
        "graddrop2.leak['a b']": 0.5,
        "graddrop2.k": 0.75,
        "clip[0]": 1.5,
    }
    hyperparameters = space.hyperparameters()
    hyperparameters.values.update(values)
    sample = space.draw(hyperparameters)
    assert values.items() <= sample.values.items()
    assert str(sample.recipe) == (
        "graddrop(leak=[0.25, 0.5], k=1.0)+mgda"
        "+graddrop(leak={'a b': 0.5}, k=0.75)+clip(1.5)"
    )


def test_choices_may_be_of_any_kind():
    space = _make(
        "graddrop(k=1.0, leak=choice(0.5, [1, 0]))",
        learning_rate="choice(0.1, 1e-3)",
        jit_compile="choice(True, False)",
    )
    samples = space.corners()
    assert [str(sample.recipe) for sample in samples] == [
        "graddrop(leak=0.5, k=1.0)",
        "graddrop(leak=[1, 0], k=1.0)",
    ]
    assert [sample.config.learning_rate for sample in samples] == [0.1, 1e-3]
    assert [sample.config.jit_compile for sample in samples] == [True, False]
    celeba = registry.EXPERIMENTS["celeba"]
    space = search_space.make(
        celeba,
        "baseline",
        {"dataset": "choice('celeb_a', 'cmu_faces')", "labels": "a (b), c"},
    )
    assert [one.config.dataset for one in space.corners()] == [
        "celeb_a",
        "cmu_faces",
    ]
    assert space.corners()[0].config.labels == "a (b), c"


def test_corners_hold_both_ends_and_every_choice():
    space = _make(
        "graddrop(k=uniform(0, 2), leak=choice(0.0, 0.5, 1.0))",
        steps="choice(100, 200, 300, 400, 500)",
        batch_size="integer(8, 64)",
        learning_rate="log_uniform(1e-4, 1e-2)",
    )
    seen = {}
    for sample in space.corners():
        for name, value in sample.values.items():
            seen.setdefault(name, []).append(value)
    assert seen["steps"] == [100, 200, 300, 400, 500]
    assert set(seen["graddrop.leak"]) == {0.0, 0.5, 1.0}
    for name, low, high in (
        ("graddrop.k", 0.0, 2.0),
        ("batch_size", 8, 64),
        ("learning_rate", 1e-4, 1e-2),
    ):
        assert (seen[name][0], seen[name][-1]) == (low, high)


def test_a_point_is_the_same_after_a_journey_to_a_worker():
    space = _make(
        "graddrop(leak=choice([1, 0], 0.5))", batch_size="integer(8, 64)"
    )
    for corner in 0.0, 0.37, 0.99:
        hyperparameters = space.hyperparameters()
        hyperparameters.values = {
            parameter.name: parameter.prob_to_value(corner)
            for parameter in hyperparameters.space
        }
        received = keras_tuner.HyperParameters.from_proto(
            hyperparameters.to_proto()
        )
        sample = space.draw(hyperparameters)
        assert space.draw(received) == sample
        restored = keras_tuner.HyperParameters.from_config(
            hyperparameters.get_config()
        )
        assert space.draw(restored) == sample


@pytest.mark.parametrize("name", registry.EXPERIMENTS)
def test_what_experiments_declare_can_be_drawn(name):
    experiment = registry.EXPERIMENTS[name]
    space = search_space.make(experiment, "graddrop", {})
    for sample in space.corners():
        fields = {
            name: getattr(sample.config, name)
            for name in space.config
            if space.varies(name)
        }
        assert fields.items() <= sample.values.items()
        assert {"graddrop.k"} <= sample.values.keys()


@pytest.mark.parametrize("name", search_space.method_ranges())
def test_declared_ranges_of_methods_can_be_drawn(name):
    low, *_, high = _make(name.split(".")[0]).corners()
    assert low.values[name] < high.values[name]
    assert low.recipe != high.recipe


def test_only_ranges_vary():
    space = _make("baseline", steps="choice(100, 200)", batch_size="8")
    assert space.varies("steps")
    assert not space.varies("learning_rate")
    assert not space.varies("batch_size")
    assert _make("baseline", batch_size="8").varies("learning_rate")
    assert not space.varies("canvas")


def test_ranges_are_described():
    text = search_space.describe(registry.EXPERIMENTS)
    assert "any experiment: graddrop.k=uniform(0.0, 2.0), " in text
    assert "\ndigits: learning_rate=log_uniform(1e-3, 3e-2)" in text
    assert "toy" not in text


@pytest.mark.parametrize(
    ("method", "texts", "message"),
    [
        ("graddrop(", {}, "a recipe is one or more"),
        ("graddrap", {}, "there is no method 'graddrap'"),
        ("graddrop(q=uniform(0, 1))", {}, "no such arguments"),
        (
            "graddrop(k=unifrom(0, 1))",
            {},
            r"graddrop.k: got 'unifrom\(0, 1\)', expected a value or one of "
            r"uniform\(low, high\)",
        ),
        ("graddrop(k=uniform(1, 0))", {}, "with low < high"),
        ("graddrop(k=uniform(1))", {}, r"got 'uniform\(1\)', expected uni"),
        ("graddrop(k=uniform(x, 1))", {}, r"got 'uniform\(x, 1\)'"),
        ("graddrop(k=log_uniform(0, 1))", {}, "0 < low < high"),
        ("graddrop(k=integer(0.5, 2))", {}, "integer.* whole"),
        ("graddrop(k=choice())", {}, "choice.value"),
        ("graddrop(leak=uniform(0, 2))", {}, r"`leak` must be in \[0, 1\]"),
        ("baseline", {"learning_rate": "0.1"}, "nothing to search with"),
        ("baseline", {"learning_rate": "uniform(1)"}, "learning_rate: got"),
        ("baseline", {"learning_rate": "range(1)"}, "learning_rate: got"),
        ("baseline", {"batch_size": "uniform(8, 16)"}, "got '8.0', expec"),
        ("baseline", {"steps": "integer(100, 150)"}, "multiple of"),
        ("baseline", {"stepz": "integer(100, 200)"}, "stepz: unknown"),
        ("baseline", {"steps": "choice(100, 200, 250)"}, "got 250"),
    ],
)
def test_mistakes_get_one_line(method, texts, message):
    with pytest.raises(errors.UserError, match=f"(?i){message}") as caught:
        _make(method, **texts).corners()
    assert "\n" not in str(caught.value)


def test_texts_that_are_no_ranges_stay_as_they_are():
    @dataclasses.dataclass(frozen=True)
    class Config(config.Config):
        name: str = ""

    class Named(type(_DIGITS)):
        defaults = Config()
        search_space = types.MappingProxyType({})

    for text in "a/b", "mgda=0.01, x=1", "(", "", "\0", "9" * 5000:
        space = search_space.make(Named(), "graddrop", {"name": text})
        assert space.corners()[0].config.name == text
