"""Rays to boxes and the ground, by hand and face by face."""

import numpy as np
import pytest

from data.lidar.simulation import ray_casting

_INF = np.inf


def _cast(origins, directions, solids, max_distance=100.0):
    directions = np.array(directions, float)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    solids = [np.array(boxes, float) for boxes in solids]
    return ray_casting.cast(
        np.array(origins, float), directions, solids, max_distance
    )


def face_distances(origins, directions, box):
    """How far each of a box's six faces is along each ray, `[6, R]`."""
    x, y, z, length, width, height, heading = box
    axes = [
        np.array([np.cos(heading), np.sin(heading), 0.0]),
        np.array([-np.sin(heading), np.cos(heading), 0.0]),
        np.array([0.0, 0.0, 1.0]),
    ]
    halves = [length / 2, width / 2, height / 2]
    found = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            on_face = np.array([x, y, z]) + side * halves[axis] * axes[axis]
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (on_face - origins) @ axes[axis] / (directions @ axes[axis])
                met = origins + t[:, None] * directions - [x, y, z]
            inside = t > 0.0
            for other in range(3):
                if other != axis:
                    inside &= np.abs(met @ axes[other]) <= halves[other]
            found.append(np.where(inside, t, _INF))
    return np.array(found)


def test_by_hand():
    car = [[10.0, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0]]
    wall = [[20.0, 0.0, 2.5, 0.5, 10.0, 5.0, 0.0]]
    hits = _cast(
        [[0.0, 0.0, 1.5]] * 5,
        [[1, 0, 0], [1, 0, 0.05], [0, 1, 0], [-1, 0, -1], [1, 0.05, 0]],
        [car, wall],
    )
    np.testing.assert_allclose(hits.distances[0], 8.0)
    np.testing.assert_allclose(hits.distances_behind[0], 19.75)
    assert hits.solids.tolist() == [
        0, 0, ray_casting.NOTHING, ray_casting.GROUND, 0
    ]  # fmt: skip
    np.testing.assert_allclose(hits.distances[3], 1.5 * np.sqrt(2))
    assert hits.distances[2] == hits.distances_behind[2] == _INF
    assert hits.distances_behind[3] == _INF


def test_a_solid_is_behind_others_but_never_behind_itself():
    two = [
        [10.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0],
        [14.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0],
    ]
    other = [[30.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0]]
    for solids, first in (([two, other], 0), ([other, two], 1)):
        hits = _cast([[0.0, 0.0, 1.0]], [[1, 0, 0]], solids)
        assert hits.solids.tolist() == [first]
        assert hits.parts.tolist() == [0]
        np.testing.assert_allclose(hits.distances, 9.0)
        np.testing.assert_allclose(hits.distances_behind, 29.0)
    hits = _cast([[40.0, 0.0, 1.0]], [[-1, 0, 0]], [two])
    assert hits.parts.tolist() == [1]
    np.testing.assert_allclose(hits.distances, 25.0)


def test_along_a_face_and_away():
    box = [[10.0, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0]]
    hits = _cast(
        [[0.0, 0.0, 1.0]] * 3, [[-1, 0, 0], [0, 0, 1], [0, 1, 0]], [box]
    )
    assert (hits.solids == ray_casting.NOTHING).all()


def test_beside_a_long_wall():
    wall = [[0.0, 3.0, 1.0, 20.0, 2.0, 2.0, 0.0]]
    hits = _cast([[0.0, 0.0, 1.0]] * 2, [[0, 1, 0], [0, -1, 0]], [wall])
    np.testing.assert_allclose(hits.distances, [2.0, _INF])
    assert hits.solids.tolist() == [0, ray_casting.NOTHING]


def test_the_ground_hides_nothing_before_it():
    box = [[6.0, 0.0, 1.0, 2.0, 2.0, 2.0, 0.0]]
    hits = _cast([[0.0, 0.0, 2.0]] * 2, [[1, 0, -0.2], [1, 0, -0.5]], [box])
    assert hits.solids.tolist() == [0, ray_casting.GROUND]
    # Behind the box comes the ground; behind the ground, oddly, the box.
    np.testing.assert_allclose(hits.distances_behind[0], np.hypot(10, 2))


@pytest.mark.parametrize("seed", range(3))
def test_against_every_face(seed):
    rng = np.random.default_rng(seed)
    num_rays = 400
    origins = [0.0, 0.0, 2.0] + rng.uniform(-0.5, 0.5, (num_rays, 3))
    directions = rng.normal(size=(num_rays, 3)) * [1.0, 1.0, 0.2]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    solids = []
    for _ in range(12):
        angle, away = rng.uniform(-np.pi, np.pi), rng.uniform(6.0, 20.0)
        center = [away * np.cos(angle), away * np.sin(angle)]
        boxes = np.concatenate(
            [
                center + rng.uniform(-1.0, 1.0, (2, 2)),
                rng.uniform(1.0, 3.0, (2, 1)),
                rng.uniform(1.0, 4.0, (2, 3)),
                rng.uniform(-np.pi, np.pi, (2, 1)),
            ],
            axis=1,
        )
        solids.append(boxes)
    hits = ray_casting.cast(origins, directions, solids, 100.0)
    ground = np.where(
        directions[:, 2] < 0.0, -origins[:, 2] / directions[:, 2], _INF
    )
    every = [ground] + [
        np.min(
            [face_distances(origins, directions, box).min(0) for box in s], 0
        )
        for s in solids
    ]
    nearest = np.sort(every, axis=0)
    np.testing.assert_allclose(hits.distances, nearest[0], rtol=1e-9)
    np.testing.assert_allclose(hits.distances_behind, nearest[1], rtol=1e-9)
    met = nearest[0] < _INF
    np.testing.assert_array_equal(
        hits.solids[met], np.argmin(every, axis=0)[met] - 1
    )
    assert (hits.solids[met] >= 0).sum() > 50


def test_what_is_out_of_reach_may_be_overlooked():
    near, far = ([[x, 0.0, 1.0, 4.0, 2.0, 2.0, 0.0]] for x in (10.0, 60.0))
    hits = _cast([[0.0, 0.0, 1.0]], [[1, 0, 0]], [far, near], 20.0)
    assert hits.solids.tolist() == [1]
    np.testing.assert_allclose(hits.distances, 8.0)
    # Its middle is out of reach, its face is not.
    long = [[24.0, 0.0, 1.0, 10.0, 2.0, 2.0, 0.0]]
    hits = _cast([[0.0, 0.0, 1.0]], [[1, 0, 0]], [long], 20.0)
    np.testing.assert_allclose(hits.distances, 19.0)
