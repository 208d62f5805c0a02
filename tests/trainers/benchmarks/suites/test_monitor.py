"""Steps with and without the monitor."""

import keras

import graddrop_tf as gd
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
    monkeypatch.setattr(monitor, "_STEPS", 4)
    sample, samples = gd.GradientMonitor._sample, []

    def counted(self):
        samples.append(self._steps_taken())
        sample(self)

    monkeypatch.setattr(gd.GradientMonitor, "_sample", counted)
    (row,) = monitor.SUITE.measure(3, measuring.Progress("monitor"))
    assert (row.case, row.against) == (
        "gd.GradientMonitor",
        "without the monitor",
    )
    # One to begin with; then turns of four steps without and with, with and
    # without, without and with the monitor.
    assert samples == [1, 8, 12, 24]
