"""What is drawn fits together."""

import numpy as np
import pytest

from data.lidar.simulation import scenes


def _draw(seed=0, **changes):
    values = {"extent": 60.0, "occupancy": 0.6, "duration": 2.0, **changes}
    return scenes.draw(np.random.default_rng(seed), **values)


def _corners(box):
    x, y, _, length, width, _, heading = box
    cos, sin = np.cos(heading), np.sin(heading)
    offsets = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
    return offsets * [length, width] @ [[cos, sin], [-sin, cos]] + [x, y]


def test_a_label_surrounds_its_parts_and_the_cabin_sits_behind():
    for label in _draw().vehicles[:20]:
        hull, cabin = scenes.vehicle_parts(label)
        for part in hull, cabin:
            corners = _corners(part) - label[:2]
            cos, sin = np.cos(label[6]), np.sin(label[6])
            along = corners @ [cos, sin]
            across = corners @ [-sin, cos]
            assert np.abs(along).max() <= label[3] / 2 - 0.079
            assert np.abs(across).max() <= label[4] / 2 - 0.079
            assert part[2] - part[5] / 2 >= label[2] - label[5] / 2 + 0.079
            assert part[2] + part[5] / 2 <= label[2] + label[5] / 2 - 0.079
        np.testing.assert_allclose(
            hull[2] + hull[5] / 2, cabin[2] - cabin[5] / 2
        )
        ahead = (cabin[:2] - hull[:2]) @ [np.cos(label[6]), np.sin(label[6])]
        assert ahead < -0.5
        # The ground stays out of the label.
        assert label[2] - label[5] / 2 > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_vehicles_do_not_meet_us_or_each_other(seed):
    scene = _draw(seed)
    assert len(scene.vehicles) > 40
    for time in 0.0, 2.0:
        boxes = scene.boxes(time)
        ours = np.array([scene.our_speed * time, 0.0])
        assert np.linalg.norm(boxes[:, :2] - ours, axis=1).min() > 3.5
        for lane in -3.6, 0.0, 3.6, 7.2:
            x = np.sort(boxes[np.abs(boxes[:, 1] - lane) < 1.0][:, 0])
            assert (np.diff(x) > 10.0).all()
    moving = scene.speeds > 0.0
    assert moving.any()
    assert not moving.all()


def test_a_scene_is_a_function_of_the_generator():
    first, again, other = _draw(3), _draw(3), _draw(4)
    np.testing.assert_array_equal(first.vehicles, again.vehicles)
    np.testing.assert_array_equal(first.walls, again.walls)
    assert first.vehicles.shape != other.vehicles.shape or not np.array_equal(
        first.vehicles, other.vehicles
    )


def test_an_empty_road():
    scene = _draw(occupancy=0.0)
    assert scene.boxes(1.0).shape == (0, 7)
    assert len(scene.solids(0.0)) == len(scene.walls) > 4


def test_vehicles_move_along_their_headings():
    scene = _draw()
    moved = scene.boxes(1.5) - scene.boxes(0.0)
    lengths = np.linalg.norm(moved[:, :2], axis=1)
    np.testing.assert_allclose(lengths, 1.5 * scene.speeds, atol=1e-9)
    fast = scene.speeds > 1.0
    headings = np.arctan2(moved[fast, 1], moved[fast, 0])
    turned = headings - scene.vehicles[fast, 6]
    np.testing.assert_allclose(np.cos(turned), 1.0, atol=1e-9)
    np.testing.assert_array_equal(moved[:, 2:], 0.0)


def test_we_move_along_the_road():
    scene = _draw()
    start, end = scene.our_pose(np.array([0.0, 2.0]))
    along = np.array([np.cos(scene.road_yaw), np.sin(scene.road_yaw), 0.0])
    np.testing.assert_allclose(
        end[3:] - start[3:], 2.0 * scene.our_speed * along, atol=1e-9
    )
    np.testing.assert_allclose(start[3:], scene.road_origin)
    assert np.abs(start[:2]).max() < 0.01


def test_pose_matrices_turn_about_x_then_y_then_z():
    quarter = np.pi / 2
    for pose, point, want in (
        ([quarter, 0, 0, 1, 2, 3], [0, 1, 0], [1, 2, 4]),
        ([0, quarter, 0, 0, 0, 0], [0, 0, 1], [1, 0, 0]),
        ([0, 0, quarter, 0, 0, 0], [1, 0, 0], [0, 1, 0]),
        ([0, 0, quarter, 0, 0, 0], [0, 1, 0], [-1, 0, 0]),
        ([quarter, quarter, 0, 0, 0, 0], [0, 1, 0], [1, 0, 0]),
        ([quarter, 0, quarter, 0, 0, 0], [0, 0, 1], [1, 0, 0]),
    ):
        got = scenes.pose_matrix(np.array(pose, float)) @ [*point, 1.0]
        np.testing.assert_allclose(got, [*want, 1.0], atol=1e-12)
