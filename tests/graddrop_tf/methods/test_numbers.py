"""Numbers of methods change while they train, without a new trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from graddrop_tf.places import Shared
from graddrop_tf.step.gradients import KnownGradients
from tests.graddrop_tf import models

T = 3
# A first and a second value of every number; both inside of its range.
VALUES = {
    "alpha": (0.5, 5.0),
    "c": (0.4, 0.8),
    "decay": (0.9, 0.5),
    "epsilon": (1e-8, 5.0),
    "ideal": (0.0, [-1.0, 0.1, 0.0]),
    "k": (0.0, 5.0),
    "leak": (0.0, [1.0, 0.5, 0.0]),
    "learning_rate": (0.025, 0.5),
    "minimum_losses": (0.0, 0.3),
    "mu": (1.0, 0.2),
    "nadir": (1.0, [2.0, 1.0, 0.5]),
    "preference": (1.0, [0.2, 0.3, 0.5]),
    "purity": (0.9, 0.1),
    "rate": (0.1, 0.6),
    "tau": (0.02, 0.9),
    "temperature": (2.0, 0.3),
    "values": (1.0, [0.5, 2.0, 1.0]),
    "weight_decay": (1e-3, 10.0),
}
# What a number needs to have a meaning, or to act at once.
OTHERS = {
    ("stch", "ideal"): {"log": False},
    ("stch", "mu"): {"nadir": 1.0},
    ("stch", "preference"): {"nadir": 1.0},
    ("dwa", "temperature"): {"window": 1},
    ("famo", "learning_rate"): {"lagged": True},
    ("famo", "weight_decay"): {"lagged": True},
    ("gradnorm", "alpha"): {"learning_rate": 0.2},
}
NUMBERS = [
    (method, name)
    for method, make in METHODS.items()
    for name in make.declared_numbers()
]


class Steps:
    """Steps of a recipe on random gradients, in one traced function."""

    def __init__(self, method, name, value):
        arguments = {**OTHERS.get((method, name), {}), name: value}
        made = METHODS[method](**arguments)
        if "seed" in made.get_config():
            made = METHODS[method](**arguments, seed=3)
        self.state = gd.Recipe.of(made).build(T)
        (self.method,) = self.state.list_methods()
        self.num_traces = 0
        self._step = tf.function(self._take)

    def _take(self, gradients, losses):
        self.num_traces += 1
        state = self.state
        with state.drawing():
            weights = state.loss_weights(losses)
            weighted = gradients * weights[:, None, None]
            norms = tf.norm(tf.reshape(gradients, [T, -1]), axis=1)
            place = Shared(tf.ones_like(gradients[0]))
            known = KnownGradients(tf.unstack(weighted), place, norms)
            combined, norms = state.combine(known)
            state.update(losses, norms)
            state.update_after(losses, 0.9 * losses)
        return weights if combined is None else combined

    def run(self, steps):
        """Returns the result of the last of some numbered steps."""
        for step in steps:
            rng = np.random.default_rng(step)
            gradients = rng.normal(size=[T, 4, 5]).astype("float32")
            losses = rng.uniform(0.5, 2.0, [T]).astype("float32")
            result = self._step(tf.constant(gradients), tf.constant(losses))
        return result.numpy()


@pytest.mark.parametrize(("method", "name"), NUMBERS)
def test_a_number_acts_on_the_next_step_without_a_trace(method, name):
    """As in one that had the number from the start, in the same state."""
    first, second = VALUES[name]
    stays, changes = Steps(method, name, first), Steps(method, name, first)
    stays.run([0, 1, 2])
    changes.run([0, 1, 2])
    setattr(changes.method, name, second)
    assert getattr(changes.method, name) == second
    begins = Steps(method, name, second)
    numbers = {id(v) for v in begins.method.number_variables.values()}
    pairs = zip(begins.state.variables, stays.state.variables, strict=True)
    for own, other in pairs:
        if id(own) not in numbers:
            own.assign(other)
    # Some act on what is remembered, which the step after shows.
    found = [s.run([3, 4]) for s in (changes, begins, stays)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-6
    assert changes.num_traces == 1


@pytest.mark.parametrize(("method", "name"), NUMBERS)
def test_a_schedule_is_a_function_of_the_step(method, name):
    first, second = VALUES[name]
    if isinstance(second, list):
        second = second[0]
    assigned = Steps(method, name, first)
    assigned.run([0, 1, 2])
    setattr(assigned.method, name, second)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [2], [float(first), float(second)]
    )
    follows = Steps(method, name, schedule)
    follows.run([0, 1, 2])
    np.testing.assert_allclose(
        follows.run([3, 4]), assigned.run([3, 4]), rtol=1e-5, atol=1e-6
    )
    assert follows.num_traces == 1
    assert getattr(follows.method, name) is schedule


def test_every_number_has_two_values():
    assert {name for _, name in NUMBERS} == {*VALUES}


SCHEDULE = keras.optimizers.schedules.PolynomialDecay(2.0, 8, 0.5)
KINDS = {name: models.Kind(name) for name in ("layer", "shared")}


def _compiled(kind, recipe):
    """Returns a model that counts the traces of its train step."""
    return _counting(KINDS[kind].compiled(recipe))


def _counting(model):
    model.num_traces = 0
    step = model.train_step

    def counted(data):
        model.num_traces += 1
        return step(data)

    model.train_step = counted
    return model


def _graddrop(model):
    if isinstance(model, gd.MultiLossModel):
        return model.method("graddrop")
    chain = next(x for x in model.layers if isinstance(x, gd.Chain))
    return chain.combiners[-1]


def _fit(model, epochs=1, initial_epoch=0, **kwargs):
    x, y = models.batch()
    model.fit(
        x, [*y.T[..., None]], batch_size=8, shuffle=False, verbose=0,
        epochs=epochs, initial_epoch=initial_epoch, **kwargs,
    )  # fmt: skip
    return model.get_weights()


def _at_epoch(number, act):
    def begin(epoch, logs=None):
        if epoch == number:
            act()

    return keras.callbacks.LambdaCallback(on_epoch_begin=begin)


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_changes_the_leak(kind):
    """With all leaks 1 the step is that of the plain sum."""
    model = _compiled(kind, "graddrop(seed=1)")
    drop = _graddrop(model)

    def act():
        drop.leak = 1.0

    plain = _compiled(kind, "baseline")
    _fit(model)
    plain.set_weights(model.get_weights())
    num_traces = model.num_traces
    _fit(model, 2, 1, callbacks=[_at_epoch(1, act)])
    expected = _fit(plain)
    for ours, right in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)
    assert model.num_traces == num_traces


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_see_a_changed_leak(kind, mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        model = _compiled(kind, "graddrop(seed=1)")
        plain = _compiled(kind, "baseline")
        gd.train_on_replicas(model)
        gd.train_on_replicas(plain)
    _fit(model)
    plain.set_weights(model.get_weights())
    _graddrop(model).leak = 1.0
    expected = _fit(plain)
    for ours, right in zip(_fit(model), expected, strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_schedule_resumes_at_its_step(kind, ending, tmp_path):
    def scheduled():
        model = KINDS[kind].build("baseline") if kind == "shared" else None
        drop = gd.GradDrop(k=SCHEDULE, seed=1)
        if kind == "layer":
            inputs = keras.Input([6])
            features = keras.layers.Dense(8, activation="tanh")(inputs)
            chain = gd.Chain([drop], num_losses=T)
            outputs = KINDS[kind].heads_on(chain(features))
            model = keras.Model(inputs, outputs)
        else:
            model.recipe = drop
        return KINDS[kind].compile(model)

    model = scheduled()
    _fit(model, 2)
    path = tmp_path / f"model{ending}"
    if ending == ".keras":
        model.save(path)
        resumed = keras.models.load_model(path)
    else:
        model.save_weights(path)
        keras.utils.set_random_seed(5)
        resumed = scheduled()
        resumed.load_weights(path)
    schedule = _graddrop(resumed).k
    assert schedule.get_config() == SCHEDULE.get_config()
    ours, right = _fit(resumed, 4, 2), _fit(model, 4, 2)
    for one, other in zip(ours, right, strict=True):
        np.testing.assert_array_equal(one, other)


def _layer(**kwargs):
    layer = gd.GradDrop(num_losses=2, **kwargs)
    layer(tf.ones([3, 4]), training=True)
    return layer


def test_files_hold_changed_numbers(tmp_path):
    model = _compiled("shared", "gradnorm+graddrop(leak=0.25)")
    _fit(model)
    gradnorm, drop = (model.method(n) for n in ("gradnorm", "graddrop"))
    drop.leak, gradnorm.alpha = [0.5, 0.75, 1.0], 0.5
    text = "gradnorm(alpha=0.5)+graddrop(leak=[0.5, 0.75, 1.0])"
    assert str(model.recipe) == text
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.method("gradnorm").alpha == 0.5
    assert _graddrop(loaded).leak == [0.5, 0.75, 1.0]
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = _compiled("shared", "gradnorm+graddrop(leak=0.25)")
    with pytest.warns(
        UserWarning, match="GradDrop goes on with leak=.0.5, 0.75"
    ):
        fresh.load_weights(tmp_path / "model.weights.h5")
    assert _graddrop(fresh).leak == [0.5, 0.75, 1.0]
    tf.train.Checkpoint(model).write(tmp_path / "checkpoint")
    other = _compiled("shared", "gradnorm+graddrop(leak=0.25)")
    tf.train.Checkpoint(other).read(tmp_path / "checkpoint").expect_partial()
    assert other.method("gradnorm").alpha == 0.5


def test_a_file_without_numbers_leaves_them(tmp_path):
    plain, model = (
        _compiled("shared", text) for text in ("baseline", "graddrop(k=1.5)")
    )
    _graddrop(model).leak = 0.5
    plain.save_weights(tmp_path / "plain.weights.h5")
    model.load_weights(tmp_path / "plain.weights.h5")
    assert _graddrop(model).leak == 0.5
    assert _graddrop(model).k == 1.5


def test_state_of_another_method_is_no_state(tmp_path):
    """Before, GradNorm's weights became the first means of DWA."""
    first = _compiled("shared", "gradnorm")
    _fit(first)
    first.save_weights(tmp_path / "first.weights.h5")
    second = _compiled("shared", "dwa")
    second.load_weights(tmp_path / "first.weights.h5")
    state = second.recipe_state.weighting.state
    np.testing.assert_array_equal(state["last"], np.zeros(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: setattr(layer, "k", None), "must be a number of at"),
        (lambda layer: setattr(layer, "k", -1.0), "`k` must be a number of at"),
        (lambda layer: setattr(layer, "leak", 1.5), r"must be in \[0, 1\]"),
        (lambda layer: setattr(layer, "leak", [0.5] * 3), "3 values for 2"),
        (lambda layer: setattr(layer, "leak", {"a": 1.0}), "by name needs"),
    ],
)
def test_values_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        change(_layer())


def test_a_schedule_that_leaves_the_range():
    rising = keras.optimizers.schedules.PolynomialDecay(0.0, 10_000, 1.5)
    with pytest.raises(ValueError, match=r"leak=PolynomialDecay\(initial_"):
        gd.GradDrop(leak=rising)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda layer: setattr(layer, "k", SCHEDULE), "not from or to a sched"),
        (lambda layer: setattr(layer, "purity", 0.5), "to a schedule or None"),
        (lambda layer: setattr(layer, "renormalize", True), "cannot change"),
        (lambda layer: setattr(layer, "seed", 7), "`seed` of GradDrop cannot"),
        (lambda layer: setattr(layer, "sync_replicas", False), "cannot change"),
    ],
)
def test_what_cannot_change(change, message):
    with pytest.raises(AttributeError, match=message):
        change(_layer(seed=1))


def test_a_method_that_described_a_recipe_cannot_change():
    drop = gd.GradDrop()
    drop.leak = 0.5
    assert str(gd.Recipe.of(drop)) == "graddrop(leak=0.5)"
    with pytest.raises(AttributeError, match="only describes a recipe"):
        drop.leak = 0.75


def test_a_leak_by_name_follows_the_names():
    model = models.Kind("shared").build("graddrop(leak={'a': 0.5, 'b': 0.25})")
    drop = _graddrop(model)

    def leaks(**losses):
        model.compile("sgd", {**dict.fromkeys("abc"), **losses})
        return drop.number_variables["leak"].numpy().tolist()

    assert leaks(a="mse", b="mse") == [0.5, 0.25]
    assert drop.leak == {"a": 0.5, "b": 0.25}
    assert leaks(a="mse", b="mse", c="mse") == [0.5, 0.25, 0.0]
    drop.leak = {"b": 1.0}
    assert leaks(b="mse", c="mse") == [1.0, 0.0]
    assert leaks(a="mse", b="mse") == [0.0, 1.0]


@keras.saving.register_keras_serializable("graddrop_tf_tests")
class Shrink(gd.Combiner):
    factor = gd.Number("[0, 1]")

    def __init__(self, num_losses=None, *, factor=0.5, **kwargs):
        super().__init__(num_losses, **kwargs)
        self.factor = factor

    def combine(self, gradients, activations):
        factor = self.number("factor", gradients[0].dtype)
        return [factor * g for g in gradients]


def test_a_number_of_ones_own_method():
    model = models.Kind("shared").build("baseline")
    model.recipe = Shrink()
    models.Kind("shared").compile(model)
    model = _counting(model)
    before = _fit(model)[0]
    num_traces = model.num_traces
    model.method("Shrink").factor = 0.0
    np.testing.assert_array_equal(_fit(model)[0], before)
    assert model.num_traces == num_traces


def test_a_subclassed_model_makes_its_numbers_in_fit():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk = keras.layers.Dense(3)
            self.drop = gd.GradDrop(num_losses=2, leak=[0.5, 1.0])
            self.heads = [keras.layers.Dense(1), keras.layers.Dense(1)]

        def call(self, x, training=False):
            branches = self.drop(self.trunk(x), training=training)
            return [head(b) for head, b in zip(self.heads, branches)]

    model = Model()
    model.compile("sgd", ["mse", "mse"])
    x = np.ones([8, 2], np.float32)
    model.fit(x, [x[:, :1], -x[:, :1]], batch_size=4, verbose=0)
    model.drop.leak = 0.25
    model.fit(x, [x[:, :1], -x[:, :1]], batch_size=4, verbose=0)
    variable = model.drop.number_variables["leak"]
    np.testing.assert_array_equal(variable.numpy(), [0.25, 0.25])


def test_numbers_are_exact_in_float64():
    cagrad = gd.CAGrad(num_losses=2, c=0.4)
    assert float(cagrad.number("c")) == 0.4
    cagrad(tf.ones([1, 2]), training=True)
    assert float(cagrad.number("c")) == 0.4
