"""Steps with and without the monitor."""

import keras

from graddrop_tf.monitor import samples
from trainers.benchmarks import measuring, methods
from trainers.benchmarks.suites import monitor


def tiny_network():
    inputs, activations = keras.Input([3]), keras.Input([2])
    return (
        keras.Model(inputs, keras.layers.Dense(2)(inputs)),
        keras.Model(activations, keras.layers.Dense(3)(activations)),
    )


def test_one_sample_in_each_monitored_turn(eager, monkeypatch):
    monkeypatch.setattr(methods, "make", tiny_network)
    monkeypatch.setattr(monitor, "STEPS", 4)
    get, numbers = samples.Batches.get, []

    def counted(self, number):
        numbers.append(number)
        return get(self, number)

    monkeypatch.setattr(samples.Batches, "get", counted)
    (row,) = monitor.SUITE.measure(3, measuring.Progress("monitor"))
    assert (row.case, row.against) == (
        "gd.GradientMonitor",
        "without the monitor",
    )
    # One to begin with; then turns of four steps without and with, with and
    # without, without and with the monitor: after 1, 8, 12 and 24 steps.
    assert numbers == [0, 1, 2, 5]
