import math

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import METHODS
from tests.trainers import small_runs
from trainers.experiments import registry
from trainers.experiments.toy import descent, landscape


def _descend(method, starts, num_steps=12, rate=0.2, jit_compile=False):
    """Returns the weights and the curve `[num_steps, starts]`."""
    config = small_runs.small_config(
        "toy", num_starts=len(starts), jit_compile=jit_compile
    )
    runs = descent.Descent(gd.Recipe.parse(method), config)
    weights, _, curve = runs.advance(
        tf.constant(starts, tf.float32),
        runs.initial_state(),
        0,
        rate,
        num_steps,
    )
    return weights.numpy(), curve.numpy()


def _losses(w):
    return [
        math.sin(a * w + b) + 1.0
        for a, b in zip(landscape.SLOPES, landscape.OFFSETS, strict=True)
    ]


def _derivatives(w):
    return [
        a * math.cos(a * w + b)
        for a, b in zip(landscape.SLOPES, landscape.OFFSETS, strict=True)
    ]


def _assert_reached(method, starts, slope, num_steps=12, rate=0.05):
    """Compares with a loop over runs and steps; `slope` maps w to dL/dw."""
    weights, curve = _descend(method, starts, num_steps, rate)
    for column, w in enumerate(starts):
        for step in range(num_steps):
            assert curve[step, column] == pytest.approx(
                sum(_losses(w)), abs=1e-3
            )
            w -= rate * slope(w)
        assert weights[column] == pytest.approx(w, abs=1e-3)


def test_the_losses_are_the_papers():
    assert landscape.losses(tf.constant(0.3)).numpy() == pytest.approx(
        _losses(0.3)
    )
    assert landscape.derivatives(tf.constant(0.3)).numpy() == pytest.approx(
        _derivatives(0.3), abs=1e-5
    )
    grid = tf.constant(np.linspace(-10.0, 10.0, 200_001), tf.float32)
    lowest = tf.reduce_min(tf.reduce_sum(landscape.losses(grid), axis=1))
    assert float(lowest) == pytest.approx(landscape.GLOBAL_MINIMUM, abs=1e-4)


def test_the_baseline_is_plain_descent():
    _assert_reached(
        "baseline", [-3.0, 0.1, 8.5], lambda w: sum(_derivatives(w))
    )


def test_clipping_bounds_the_step():
    _assert_reached(
        "clip(0.5)",
        [-3.0, 0.1],
        lambda w: min(0.5, max(-0.5, sum(_derivatives(w)))),
    )


def test_pcgrad_keeps_only_losses_without_conflict():
    def slope(w):
        grads = _derivatives(w)
        return sum(g for g in grads if all(g * other >= 0 for other in grads))

    starts = [-0.2, 0.1, 2.0]
    assert slope(starts[0]) != 0.0 or slope(starts[1]) != 0.0
    _assert_reached("pcgrad", starts, slope)


def test_runs_do_not_see_each_other():
    starts = [-3.0, 0.1, 8.5]
    together, _ = _descend("gradnorm", starts, rate=0.05)
    alone = [_descend("gradnorm", [w], rate=0.05)[0][0] for w in starts]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    plain, _ = _descend("baseline", starts, rate=0.05)
    assert np.abs(together - plain).max() > 1e-2


def test_runs_draw_independently():
    weights, _ = _descend("graddrop", [2.0] * 50)
    assert len(np.unique(weights)) > 25


def test_steps_draw_independently():
    # One draw for all steps would keep or drop the same side throughout.
    _, curve = _descend("random_graddrop", [0.5], num_steps=40, rate=1e-3)
    assert {-1.0, 1.0} <= set(np.sign(np.diff(curve[:, 0])))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(method):
    starts = descent.draw_starts(small_runs.small_config("toy"), 0)
    weights, curve = _descend(method, starts, num_steps=3)
    assert np.isfinite(weights).all()
    assert curve.shape == (3, 4)


def test_the_compiled_step_is_the_same():
    plain = _descend("graddrop", [-3.0, 0.1], rate=0.05)[0]
    compiled = _descend("graddrop", [-3.0, 0.1], rate=0.05, jit_compile=True)
    assert not np.array_equal(plain, [-3.0, 0.1])
    # The seed of the draws differs from one `Descent` to the next.
    assert np.isfinite(compiled[0]).all()


def test_a_solver_is_compiled_for_all_runs_at_once():
    starts = np.linspace(-3.0, 3.0, 4)
    plain = _descend("mgda", starts, num_steps=3)[0]
    compiled = _descend("mgda", starts, num_steps=3, jit_compile=True)[0]
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


def test_a_whole_run_halves_the_rate_and_keeps_its_curves(tmp_path):
    run = small_runs.small_run(
        "toy", tmp_path / "run", steps=25, learning_rate=0.005
    )
    record = small_runs.finish(run)
    arrays = np.load(run.directory / "curves.npz")
    starts = arrays["starts"]
    assert np.abs(starts).max() <= 10.0
    finals = []
    for w in starts.astype(float):
        for step in range(25):
            w -= 0.005 * 0.5 ** (step // 10) * sum(_derivatives(w))
        finals.append(sum(_losses(w)))
    np.testing.assert_allclose(arrays["final_losses"], finals, atol=1e-3)
    assert arrays["first_curve"].shape == arrays["mean_curve"].shape == (26,)
    assert arrays["first_curve"][0] == pytest.approx(sum(_losses(starts[0])))
    assert arrays["mean_curve"][-1] == pytest.approx(np.mean(finals), abs=1e-3)
    metrics = record.results["metrics"]
    assert metrics["mean_loss"] == pytest.approx(np.mean(finals), abs=1e-3)
    assert metrics["deviation"] == pytest.approx(
        np.std(finals, ddof=1), abs=1e-3
    )
    assert metrics["median"] == pytest.approx(np.median(finals), abs=1e-3)
    samples = registry.EXPERIMENTS["toy"].samples(record)
    np.testing.assert_array_equal(samples["final_loss"], arrays["final_losses"])


def test_all_methods_start_at_the_same_points():
    first = descent.draw_starts(descent.ToyConfig(), 0)
    np.testing.assert_array_equal(
        first, descent.draw_starts(descent.ToyConfig(), 0)
    )
    assert first.shape == (200,)
    assert not np.array_equal(
        first, descent.draw_starts(descent.ToyConfig(), 1)
    )
