"""Turns and statistics."""

import keras
import numpy as np

from trainers.benchmarks import measuring


def test_ratios_are_those_of_each_round():
    times = {"a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 2.0]}
    speed = measuring.speed_row(times, "b", "a", target=0.9)
    np.testing.assert_allclose(
        [speed.median, speed.low, speed.high], [1.0, 0.6, 1.8]
    )
    assert speed.verdict == "met"
    duration = measuring.time_row(times, "b", "a", target=0.9)
    assert (duration.median, duration.verdict) == (1.0, "missed")
    np.testing.assert_allclose([duration.low, duration.high], [0.6, 1.8])
    assert measuring.time_row(times, "b", "a").verdict == ""


def test_rates_and_milliseconds_by_hand():
    times = {"a": [1.0, 2.0, 4.0]}
    rate = measuring.rate_row(times, "a", 8, "images")
    # Percentiles lie a fifth of the way from 2 to 4, and from 8 to 4.
    np.testing.assert_allclose(
        [rate.median, rate.low, rate.high], [4.0, 2.4, 7.2]
    )
    assert (rate.quantity, rate.against, rate.verdict) == ("images/s", "", "")
    row = measuring.milliseconds_row(times, "a", target=1999.0)
    np.testing.assert_allclose(
        [row.median, row.low, row.high], [2000.0, 1200.0, 3600.0]
    )
    assert (row.quantity, row.verdict) == ("ms", "missed")


def test_cases_take_turns_and_each_round_starts_with_another():
    order, seconds = [], iter(range(100))
    done = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    times = measuring.take_turns(
        steps,
        4,
        warm_up=2,
        clock=lambda: float(next(seconds)),
        progress=done.append,
    )
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert times == {name: [1.0] * 4 for name in "abc"}
    assert done == [1, 2, 3, 4]


def test_a_suite_of_long_rounds_has_fewer():
    suite = measuring.Suite("", lambda rounds, progress: [], pairs_per_round=8)
    assert [suite.rounds(pairs) for pairs in (1, 8, 15, 40)] == [1, 1, 1, 5]


def test_a_step_trains_on_its_batch():
    model = keras.Sequential(
        [keras.Input([1]), keras.layers.Dense(1, use_bias=False)]
    )
    model.layers[0].set_weights([np.zeros([1, 1])])
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    step = measuring.training_step(model, np.ones([2, 1]), np.ones([2, 1]))
    step()
    # w - 0.5 * 2 (w - 1) = 1, where it stays.
    np.testing.assert_allclose(model.get_weights()[0], [[1.0]])
    step()
    np.testing.assert_allclose(model.get_weights()[0], [[1.0]])
