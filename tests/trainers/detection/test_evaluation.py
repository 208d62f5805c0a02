"""What is printed about predictions; `launch.evaluate` tests the rest."""

import re

import numpy as np
import pytest

from tests.trainers.detection import waymo
from trainers.detection import box_files, boxes, evaluation

_BOX = np.array([10.0, 0.0, 1.0, 4.0, 2.0, 1.5, 0.0])
_BESIDE = _BOX + [0.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0]
_BEHIND = _BOX * [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
_NOTHING = boxes.select(waymo.predictions([_BOX], 0.5), slice(0))


def _lines(predictions, ground_truths, **kwargs):
    scenes = box_files.Scenes(
        predictions, ground_truths, [box_files.Frame("", 0)], 0
    )
    printed = evaluation.Evaluation().compare_scenes(scenes, **kwargs)
    return printed.splitlines()


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        (_NOTHING, ": nothing found (0 false, 1 missed)"),
        (
            waymo.predictions([_BESIDE], 0.5),
            ": nothing found (1 false, 1 missed)",
        ),
        (
            waymo.predictions([_BOX, _BESIDE], 0.5),
            ", best F1 at scores from 0.00 on: precision 0.500, recall 1.000 "
            "(1 found, 1 false, 0 missed)",
        ),
    ],
)
def test_the_precision_is_that_of_what_is_found(predictions, said):
    lines = _lines(predictions, waymo.ground_truths([_BOX]))
    assert lines[-2:] == [f"VEHICLE LEVEL_{level}{said}" for level in (1, 2)]


def test_predictions_that_do_not_count_are_told():
    """One is on a neighbour, one in a no-label zone."""
    predictions = waymo.predictions(
        [_BOX, _BESIDE, _BOX + [0, 9, 0, 0, 0, 0, 0]], 0.5
    )
    predictions.overlap_nlz[2] = True
    truths = waymo.ground_truths([_BESIDE, _BEHIND], type=[-1, 1])
    lines = _lines(predictions, truths)
    assert lines[-1] == (
        "VEHICLE LEVEL_2: nothing found (1 false, 1 missed, 2 not counted: in "
        "a no-label zone or on a neighbour)"
    )


def test_ranges_without_ground_truth_get_no_rows():
    predictions = waymo.predictions([_BOX, _BOX + [50, 0, 0, 0, 0, 0, 0]], 0.5)
    lines = _lines(predictions, waymo.ground_truths([_BOX]))
    rows = [line.split("_LEVEL")[0] for line in lines if "_TYPE_" in line]
    assert rows == [
        *["OBJECT_TYPE_TYPE_VEHICLE"] * 2,
        *["RANGE_TYPE_VEHICLE_[0, 30)"] * 2,
    ]


def _types(lines):
    return {*re.findall(r"TYPE_([A-Z]+)_[L[]", "\n".join(lines))}


def test_rows_are_those_of_the_types_that_occur():
    predictions = waymo.predictions([_BOX, _BOX], 0.5, type=[4, 0])
    truths = waymo.ground_truths([_BOX] * 3, type=[-1, 0, 2])
    assert _types(_lines(predictions, truths)) == {"PEDESTRIAN", "CYCLIST"}
    lines = _lines(predictions, truths, type_names=["SIGN"])
    assert _types(lines) == {"SIGN"}
    assert sum("_TYPE_SIGN_" in line for line in lines) == 2


def test_neighbours_are_no_ground_truth():
    truths = waymo.ground_truths([_BOX, _BESIDE], type=[1, -1])
    lines = _lines(waymo.predictions([_BOX], 0.5), truths)
    assert lines[0].startswith("1 frames, 1 predictions, 1 ground-truth boxes")


def test_of_no_type_there_are_no_rows():
    nothing = boxes.select(waymo.ground_truths([_BOX]), slice(0))
    assert not _types(_lines(_NOTHING, nothing))
