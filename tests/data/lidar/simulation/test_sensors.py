"""Where the lidars are, and where they look."""

import numpy as np
import pytest

from data.lidar.simulation import sensors
from data.lidar.waymo import range_images


@pytest.mark.parametrize("name", sorted(sensors.SENSORS))
def test_five_lidars_of_which_four_look_to_the_sides(name):
    lidars = sensors.SENSORS[name]
    assert [lidar.name for lidar in lidars] == [1, 2, 3, 4, 5]
    ahead = [lidar.calibration.extrinsic[:2, 0] for lidar in lidars[1:]]
    np.testing.assert_allclose(
        ahead, [[1, 0], [0, 1], [0, -1], [-1, 0]], atol=1e-12
    )
    for lidar, way in zip(lidars[1:], ahead):
        # Each is mounted on the side that it looks to, as seen from TOP.
        mounted = lidar.calibration.extrinsic[:2, 3]
        assert (mounted - [1.43, 0.0]) @ way > 0.9
        assert lidar.max_range == 20.0
    assert lidars[0].max_range == 75.0


def test_beams_as_in_waymo():
    shapes = [(r.num_rows, r.num_columns) for r in sensors.SENSORS["waymo"]]
    assert shapes == [(64, 2650)] + [(200, 600)] * 4
    top, side = sensors.SENSORS["waymo"][:2]
    beams = range_images.row_inclinations(top.calibration, 64)
    apart = -np.diff(beams)
    assert np.degrees(beams[0]) < 2.4
    assert np.degrees(beams[-1]) > -17.6
    # The highest first, and closer together towards the horizon.
    assert (apart > 0.0).all()
    assert apart[0] < 0.3 * apart[-1]
    beams = np.degrees(range_images.row_inclinations(side.calibration, 200))
    np.testing.assert_allclose([beams[0], beams[-1]], [29.7, -89.7], atol=0.01)
