import numpy as np
import pytest

from tests.trainers.detection import waymo
from trainers.detection import average_precision

_AP = average_precision.average_precision


@pytest.mark.parametrize("scene", waymo.SCENES)
@pytest.mark.parametrize("box_type", ["TYPE_3D", "TYPE_2D"])
def test_equals_the_official_area_of_the_official_curves(scene, box_type):
    *_, arrays = waymo.load(scene)
    for curves, expected in (("pr", "ap"), ("prh", "aph")):
        found = [
            _AP(curve[:, 0], curve[:, 1])
            for curve in arrays[f"{box_type}/{curves}"]
        ]
        np.testing.assert_allclose(
            found, arrays[f"{box_type}/{expected}"], atol=1e-6
        )


@pytest.mark.parametrize(
    ("precision", "recall", "expected"),
    [
        # One point: its precision, down to recall 0.
        ([0.8], [0.04], 0.8 * 0.04),
        # Nothing detected.
        ([1.0, 1.0], [0.0, 0.0], 0.0),
        # .45 at .5, a slope over .05, .5 at 1.
        ([0.5, 1.0], [1.0, 0.5], 0.45 * 0.5 + 0.05 * 0.75 + 0.5),
        # A gap of .05 is a slope as a whole.
        ([0.5, 1.0], [0.55, 0.5], 0.05 * 0.75 + 0.5),
        # A gap of .06: .05 at .5, a slope over .01.
        ([0.5, 1.0], [0.56, 0.5], 0.05 * 0.5 + 0.01 * 0.75 + 0.5),
        # The best precision of a recall counts, and that of higher recalls.
        ([0.2, 0.9, 0.1], [0.5, 0.5, 0.25], 0.9 * 0.5),
    ],
)
def test_hand_checked_areas(precision, recall, expected):
    found = _AP(np.array(precision), np.array(recall))
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("precision", "recall", "beyond"),
    [
        # From recall 1 down, precision is 0 until .05 above the point.
        ([1.0], [0.5], 0.05 * 1.0 / 2),
        ([0.8], [0.98], 0.02 * 0.8 / 2),
        ([0.8], [1.0], 0.0),
        ([1.0], [0.0], 0.0),
    ],
)
def test_the_rule_of_2020_adds_a_triangle(precision, recall, beyond):
    curve = np.array(precision), np.array(recall)
    found = _AP(*curve, rule="2020") - _AP(*curve, rule="2022")
    assert found == pytest.approx(beyond, abs=1e-9)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="'2021', expected one of 2022, 2020"):
        _AP(np.ones(1), np.ones(1), rule="2021")
