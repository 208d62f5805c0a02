"""Pillars against loops over points."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars.cases import ROOMY, TINY
from trainers.models.pointpillars import pillars, presets

pillarize = tf.function(pillars.pillarize)


def crowded_points(seed=0, count=300):
    """More points, more pillars and fuller pillars than the caps allow."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -9, -3, 0], [17, 9, 3, 1], (count, 4))
    # The last value tells the points apart.
    points[:, 3] = np.arange(count)
    points[: count // 3, :3] = rng.uniform(
        [3, 2, 0], [6, 4, 1], (count // 3, 3)
    )
    return points.astype(np.float32)


def by_cell(points):
    """The numbers of the points in each cell of the tiny grid."""
    cells = collections.defaultdict(set)
    for x, y, z, number in points:
        if 0 <= x < 16 and -8 <= y < 8 and -2 <= z < 2:
            cells[int(np.floor(y + 8)) * 16 + int(np.floor(x))].add(int(number))
    return dict(cells)


def content(result):
    """The numbers of the points in each pillar, by cell."""
    cells = result["cells"].numpy()
    found = {int(cell): set() for cell in cells if cell >= 0}
    for point, pillar in zip(
        result["points"].numpy(), result["pillars"].numpy()
    ):
        if pillar >= 0:
            assert cells[pillar] >= 0
            found[int(cells[pillar])].add(int(point[3]))
    return found


def test_contents_without_caps():
    points = crowded_points()
    result = pillarize(points, ROOMY, (0, 0))
    assert content(result) == by_cell(points)
    kept = result["pillars"].numpy() >= 0
    rows = result["points"].numpy()
    np.testing.assert_array_equal(
        rows[kept], points[rows[kept][:, 3].astype(int)]
    )
    assert not rows[~kept].any()
    cells = result["cells"].numpy()
    assert (cells[cells.max() == cells].size, cells.min()) == (1, -1)


def test_shapes_are_those_of_the_caps():
    wide = tf.TensorSpec([None, 6], tf.float32)
    result = pillarize.get_concrete_function(wide, TINY, (0, 0))
    found = {
        k: (v.dtype, v.shape) for k, v in result.structured_outputs.items()
    }
    assert found == {
        "points": (tf.float32, [48, 4]),
        "pillars": (tf.int32, [48]),
        "cells": (tf.int32, [12]),
    }


def test_caps():
    points = crowded_points()
    everything = by_cell(points)
    assert len(everything) > TINY.max_pillars
    chosen_pillars = collections.Counter()
    chosen_points = collections.Counter()
    num_draws = 60
    for seed in range(num_draws):
        found = content(pillarize(points, TINY, tf.constant([7, seed])))
        assert len(found) == TINY.max_pillars
        for cell, numbers in found.items():
            assert numbers <= everything[cell]
            assert len(numbers) == min(len(everything[cell]), 3)
        chosen_pillars.update(found.keys())
        chosen_points.update(set().union(*found.values()))
    # A pillar is kept with probability 12 / (number of pillars).
    expected = num_draws * TINY.max_pillars / len(everything)
    assert set(chosen_pillars) == set(everything)
    assert max(chosen_pillars.values()) < 4 * expected
    # And in a full pillar no point is better off than another.
    cell, numbers = max(everything.items(), key=lambda item: len(item[1]))
    counts = np.array([chosen_points[n] for n in numbers])
    assert counts.sum() == 3 * chosen_pillars[cell]
    assert counts.max() <= 0.5 * chosen_pillars[cell] + 3


def test_full_pillars_are_chosen_from_evenly():
    points = np.zeros([9, 4], np.float32)
    points[:, 3] = np.arange(9)
    counts = np.zeros(9)
    for seed in range(200):
        (numbers,) = content(
            pillarize(points, TINY, tf.constant([seed, 0]))
        ).values()
        assert len(numbers) == 3
        counts[list(numbers)] += 1
    # 200 draws of probability 1/3: 67 +- 4 x 6.7.
    assert counts.min() > 40 and counts.max() < 94


def test_cap_on_all_points():
    preset = dataclasses.replace(ROOMY, max_points=20)
    points = crowded_points()
    everything = by_cell(points)
    seen = set()
    for seed in range(40):
        found = content(pillarize(points, preset, tf.constant([seed, 1])))
        kept = set().union(*found.values())
        assert len(kept) == 20
        assert all(found[cell] <= everything[cell] for cell in found)
        seen |= kept
    assert len(seen) > 0.9 * len(set().union(*everything.values()))


def test_a_seed_repeats():
    points = crowded_points()
    first, again, other = (
        content(pillarize(points, TINY, tf.constant(seed)))
        for seed in ([1, 2], [1, 2], [1, 3])
    )
    assert first == again != other


def test_limits_of_the_grid():
    below = np.nextafter(np.float32(16), np.float32(0))
    inside = [[0, -8, -2, 0], [below, 7.5, 1.99, 1], [below, -8, 0, 2]]
    outside = [
        [16, 0, 0, 3], [-1e-6, 0, 0, 4], [1, 8, 0, 5], [1, -8.01, 0, 6],
        [1, 0, 2, 7], [1, 0, -2.01, 8], [np.nan, 0, 0, 9], [1, 0, np.inf, 10],
    ]  # fmt: skip
    points = np.array(inside + outside, np.float32)
    assert content(pillarize(points, TINY, (0, 0))) == {
        0: {0},
        15 * 16 + 15: {1},
        15: {2},
    }


def test_the_last_float_below_a_limit_stays_in_the_grid():
    """69.12 / 0.16 rounds up to 432 pillars, the last of which is 431."""
    kitti = presets.KITTI
    x = np.nextafter(np.float32(69.12), np.float32(0))
    y = np.nextafter(np.float32(39.68), np.float32(0))
    points = np.array([[x, y, 0, 0]], np.float32)
    cells = pillars.pillarize(points, kitti, (0, 0))["cells"].numpy()
    assert cells.max() == 496 * 432 - 1


def test_no_points():
    result = pillarize(np.zeros([0, 4], np.float32), TINY, (0, 0))
    assert content(result) == {}
    assert (
        set(result["pillars"].numpy()) == set(result["cells"].numpy()) == {-1}
    )
    described = pillars.describe_points(
        *(result[k][None] for k in ("points", "pillars", "cells")), TINY.grid
    )
    np.testing.assert_array_equal(described, np.zeros([1, 48, 9]))


def test_description_by_hand():
    """Two points of cell (x 3, y -5) and one of cell (x 0, y 7)."""
    points = [[3.25, -4.5, 1.0, 0.5], [0.5, 7.5, 0, 0], [3.75, -4.9, 0.0, 9.0]]
    described = pillars.describe_points(
        tf.constant([[*points, [9, 9, 9, 9]]]),
        tf.constant([[1, 0, 1, -1]]),
        tf.constant([[15 * 16, 3 * 16 + 3, -1]]),
        TINY.grid,
    )
    want = [
        [3.25, -4.5, 1.0, np.tanh(0.5), -0.25, 0.2, 0.5, -0.25, 0.0],
        [0.5, 7.5, 0, 0, 0, 0, 0, 0, 0],
        [3.75, -4.9, 0.0, np.tanh(9), 0.25, -0.2, -0.5, 0.25, -0.4],
        [0] * 9,
    ]
    np.testing.assert_allclose(described, [want], atol=1e-6)


@pytest.fixture(scope="module")
def batch():
    results = [
        pillars.pillarize(crowded_points(seed, count), TINY, (seed, 0))
        for seed, count in [(0, 300), (1, 9)]
    ]
    return {k: tf.stack([r[k] for r in results]) for k in results[0]}


def test_description_of_a_batch(batch):
    """Pillars of one example do not mix with those of another."""
    described = pillars.describe_points(
        batch["points"], batch["pillars"], batch["cells"], TINY.grid
    ).numpy()
    for example in range(2):
        points, ids, cells = (
            batch[k][example].numpy() for k in ("points", "pillars", "cells")
        )
        for row, pillar in zip(described[example], ids):
            if pillar < 0:
                assert not row.any()
                continue
            mean = points[ids == pillar, :3].mean(axis=0)
            centre = [cells[pillar] % 16 + 0.5, cells[pillar] // 16 - 7.5]
            np.testing.assert_allclose(row[4:7], row[:3] - mean, atol=1e-5)
            np.testing.assert_allclose(row[7:9], row[:2] - centre, atol=1e-5)


def test_maximum_and_scatter(batch):
    rng = np.random.default_rng(0)
    features = rng.normal(size=[2, 48, 5]).astype(np.float32)
    maxima = pillars.max_over_points(features, batch["pillars"], 12).numpy()
    laid = pillars.scatter(tf.nn.relu(maxima), batch["cells"], (16, 16)).numpy()
    want = np.zeros([2, 16, 16, 5])
    for example in range(2):
        ids, cells = batch["pillars"][example], batch["cells"][example].numpy()
        for pillar, cell in enumerate(cells):
            own = features[example][ids == pillar]
            if cell < 0:
                assert own.size == 0
                continue
            np.testing.assert_array_equal(
                maxima[example, pillar], own.max(axis=0)
            )
            want[example, cell // 16, cell % 16] = np.maximum(
                own.max(axis=0), 0
            )
    np.testing.assert_array_equal(laid, want)
