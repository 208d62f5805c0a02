import numpy as np
import pytest
import tensorflow as tf

from graddrop_tf import random


def draw(step, shape=(1000,), seed=5, **scope):
    with random.drawing(step, **scope):
        return random.uniform(shape, seed)


def test_the_interval_is_open_and_the_draw_uniform():
    u = draw(0, [200_000]).numpy()
    assert u.dtype == np.float32
    assert 0 < u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    # Five standard deviations of the mean and of each of ten bins.
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
    counts, _ = np.histogram(u, bins=10, range=(0, 1))
    assert np.all(np.abs(counts - 20_000) < 5 * np.sqrt(18_000))


def test_the_smallest_and_largest_bits_stay_inside(monkeypatch):
    extremes = tf.constant([0, 2**32 - 1], tf.uint32)
    monkeypatch.setattr(random, "bits", lambda *_: extremes)
    u = random.uniform([2], 0).numpy()
    assert u[0] == np.float32(2.0**-24)
    assert u[1] == np.float32(1 - 2.0**-24)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_eager_graph_and_xla_draw_the_same(jit_compile):
    function = tf.function(draw, jit_compile=jit_compile)
    np.testing.assert_array_equal(function(tf.constant(3)), draw(3))


def test_seed_step_and_order_make_the_draw():
    with random.drawing(tf.constant(1, tf.int64)):
        first = random.uniform([100], 5)
        second = random.uniform([100], 5)
        other = random.uniform([100], 6)
    np.testing.assert_array_equal(first, draw(1, [100]))
    draws = [first, second, other, draw(2, [100])]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.5


def test_lanes_are_slices_of_one_draw():
    whole = draw(4, [3, 10]).numpy()
    lanes = [draw(4, [10], lane=(tf.constant(i), 3)).numpy() for i in range(3)]
    np.testing.assert_array_equal(np.stack(lanes), whole)

    def one(index):
        return draw(4, [10], lane=(index, 3))

    mapped = tf.function(lambda: tf.vectorized_map(one, tf.range(3)))()
    np.testing.assert_array_equal(mapped, whole)


def test_permutations_are_permutations():
    with random.drawing(tf.constant(0, tf.int64)):
        orders = random.permutations(500, 4, seed=1).numpy()
    assert np.all(np.sort(orders, axis=1) == np.arange(4))
    # All 24 orders, none of them rare: 500 / 24 = 21 each.
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 24 and counts.min() >= 5


def test_a_draw_needs_its_step():
    with pytest.raises(ValueError, match="drawing"):
        random.uniform([2], 0)
