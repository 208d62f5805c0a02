"""A run of each method, killed and resumed. A line in METHODS enrols it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import VECTOR, batch
from trainers import config
from trainers.training import loop, progress

STEPS, EPOCH = 6, 2


class KilledError(Exception):
    pass


class Kill(keras.callbacks.Callback):
    """Ends a run after a number of steps, as a lost machine does."""

    def __init__(self, after):
        super().__init__()
        self.steps_left = after

    def on_train_batch_end(self, batch, logs=None):
        self.steps_left -= 1
        if not self.steps_left:
            raise KilledError


def fit(method, directory, more=()):
    """Trains a new model in a directory, from its checkpoint if it has one."""
    keras.backend.clear_session()
    model = VECTOR.compiled(method, keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)
    examples = tf.data.Dataset.from_tensor_slices(batch(size=8 * STEPS))
    loop.fit(
        model,
        lambda start: examples.batch(8).skip(start),
        examples.batch(8),
        config=config.FitConfig(steps=STEPS, steps_per_epoch=EPOCH),
        directory=directory,
        progress=progress.Progress(),
        more=more,
    )
    return [np.array(variable) for variable in model.variables]


def seeded(method):
    """Returns the recipe of a method whose draws a new process repeats."""
    draws = issubclass(gd.METHODS[method], gd.RandomDraws)
    return f"{method}(seed=1)" if draws else method


@pytest.mark.parametrize("method", gd.METHODS)
def test_a_killed_run_resumes_bit_for_bit(method, tmp_path):
    recipe = seeded(method)
    whole = fit(recipe, tmp_path / "whole")
    with pytest.raises(KilledError):
        fit(recipe, tmp_path / "killed", [Kill(after=5)])
    resumed = fit(recipe, tmp_path / "killed")
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
