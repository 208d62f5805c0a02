"""Every argument of every method acts, or is refused."""

import keras
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.bases.configuration import constructor_arguments
from graddrop_tf.methods import METHODS
from tests.graddrop_tf import models

T = 3
COMBINERS = [n for n, m in METHODS.items() if issubclass(m, gd.Combiner)]
# They draw alone, and compute nothing of the batch.
DRAWS = ["gradient_dropout"]
# Those of `gd.Combiner` have tests of their own below.
OF_EVERY_COMBINER = {"num_losses", "sync_replicas", "separate"}


@keras.saving.register_keras_serializable("graddrop_tf_tests")
def steep(p):
    return 0.5 + 0.5 * tf.sign(p - 0.5)


# For each argument that is no number two values, and what gives it a meaning.
VALUES = {
    ("graddrop", "purity_transform"): (None, steep, {"seed": 1}),
    ("graddrop", "marginalize_batch"): (True, False, {"seed": 1}),
    ("graddrop", "renormalize"): (False, True, {"seed": 1}),
    ("graddrop", "seed"): (1, 2, {}),
    ("random_graddrop", "marginalize_batch"): (True, False, {"seed": 1}),
    ("random_graddrop", "renormalize"): (False, True, {"seed": 1}),
    ("random_graddrop", "seed"): (1, 2, {}),
    ("pcgrad", "iterative"): (False, True, {"seed": 1}),
    ("pcgrad", "seed"): (1, 2, {"iterative": True}),
    ("aligned_mtl", "mode"): ("min", "rmse", {}),
    ("pcd", "primary"): (0, 1, {}),
    ("gradient_dropout", "seed"): (1, 2, {}),
    ("uncertainty", "kind"): ("regression", "classification", {}),
    ("uncertainty", "initial"): (0.0, 1.0, {}),
    ("imtl_l", "initial"): (0.0, 1.0, {}),
    ("stch", "log"): (True, False, {}),
    ("stch", "warmup"): (1, 2, {}),
    ("famo", "optimizer"): ("adam", "sgd", {"learning_rate": 0.5}),
    ("famo", "lagged"): (False, True, {"learning_rate": 0.5}),
    ("dwa", "window"): (1, 2, {}),
    ("rlw", "seed"): (1, 2, {}),
}


def _trained(model, size=16):
    """Returns the weights after three epochs of batches of eight."""
    x, y = models.batch(size)
    y = models.HEADS.labels(y)
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    return models.trainable(model)


def _trained_by(method, **arguments):
    model = models.HEADS.build("baseline")
    model.recipe = METHODS[method](**arguments)
    return _trained(models.HEADS.compile(model))


def test_every_argument_has_a_test():
    listed = {
        (name, argument)
        for name, method in METHODS.items()
        for argument in constructor_arguments(method)
        if argument not in method.declared_numbers()
        and argument not in OF_EVERY_COMBINER
    }
    assert listed == {*VALUES}


@pytest.mark.parametrize(("method", "argument"), VALUES)
def test_an_argument_acts(method, argument):
    first, second, others = VALUES[method, argument]
    weights = [
        _trained_by(method, **others, **{argument: value})
        for value in (first, second)
    ]
    assert models.largest_difference(*weights) > 1e-6


@pytest.mark.parametrize("method", COMBINERS)
def test_the_number_of_losses_is_checked(method):
    made = METHODS[method](num_losses=T + 1)
    with pytest.raises(ValueError, match=f"num_losses={T + 1}"):
        _trained_by(method, num_losses=T + 1)
    a = tf.ones([2, 4])
    assert len(made(a)) == T + 1
    with pytest.raises(ValueError, match="needs `num_losses`"):
        METHODS[method]()(a)


@pytest.mark.parametrize("method", COMBINERS)
def test_a_list_is_separate_or_shared_as_one_says(method):
    given = [tf.ones([2, 4]), tf.ones([3, 4])]
    make = METHODS[method]
    apart = make()(given)
    assert [t.shape for t in apart] == [t.shape for t in given]
    shared = make(num_losses=3, separate=False)(given)
    assert len(shared) == 3
    assert [t.shape for t in shared[2]] == [t.shape for t in given]
    with pytest.raises(ValueError, match="needs a list"):
        make(num_losses=2, separate=True)(tf.ones([2, 4]))
    with pytest.raises(ValueError, match="act where it does"):
        gd.Chain([make(separate=False)])


def _on_two_replicas(strategy, method, sync):
    """Returns the weights after training on unlike halves."""
    seeded = "seed" in constructor_arguments(METHODS[method])
    seed = {"seed": 1} if seeded else {}
    with strategy.scope():
        model = models.HEADS.build("baseline")
        model.recipe = METHODS[method](sync_replicas=sync, **seed)
        # The sum of the gradients raises a loss.
        weights = {"a": 1.0, "b": 3.0, "c": 0.01}
        models.HEADS.compile(model, loss_weights=weights)
    return _trained(model, size=8)


@pytest.mark.parametrize("method", [c for c in COMBINERS if c not in DRAWS])
def test_replicas_are_synchronized_or_not(method, mirrored):
    """Each decides by the global batch, or by its own part."""
    found = [_on_two_replicas(mirrored(2), method, s) for s in (True, False)]
    assert models.largest_difference(*found) > 1e-6


@pytest.mark.parametrize("method", DRAWS)
def test_a_method_without_sums_has_nothing_to_synchronize(method):
    METHODS[method](sync_replicas=True)
    with pytest.raises(ValueError, match="nothing to synchronize"):
        METHODS[method](sync_replicas=False)
