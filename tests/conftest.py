"""One TensorFlow start for all tests, with four logical devices."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf

NUM_DEVICES = 4

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Gives each test the same seeds and Keras' own defaults."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def refused(capsys):
    """Returns a function that looks at how a command refuses something.

    It has to do so in one line, and say some things in it.
    """
    # The tests of the library run where `launch` does not.
    from launch import command

    def look(main, arguments, parts):
        assert command.guarded(main, arguments) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        for part in parts:
            assert part in printed.err
        return printed

    return look


@pytest.fixture(scope="session")
def mirrored():
    """Returns a function that makes a strategy of some replicas."""
    made = {}

    def make(num_replicas: int) -> tf.distribute.Strategy:
        if num_replicas not in made:
            made[num_replicas] = tf.distribute.MirroredStrategy(
                [f"CPU:{i}" for i in range(num_replicas)],
                # Two strategies in one process fail with the default.
                cross_device_ops=tf.distribute.ReductionToOneDevice(),
            )
        return made[num_replicas]

    return make
