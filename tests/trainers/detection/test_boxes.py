import numpy as np
import pytest

from tests.trainers.detection import waymo
from trainers.detection import boxes

_BBOX = np.arange(21.0).reshape(3, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"bbox": np.where(_BBOX == 9.0, np.nan, _BBOX)},
            r"prediction_bbox\[1\]: got \[7.0, 8.0, nan, .*\], expected finite",
        ),
        (
            {"bbox": np.where(_BBOX > 9.0, np.inf, _BBOX)},
            r"prediction_bbox\[1\] \(and 1 more\): got",
        ),
        (
            {"score": np.array([0.5, 0.5, np.nan])},
            r"prediction_score\[2\]: got nan, expected finite numbers",
        ),
        ({"bbox": _BBOX[:2]}, r"prediction_bbox: got shape \(2, 7\).*\(3, 7\)"),
        ({"bbox": _BBOX[:, :6]}, r"got shape \(3, 6\), expected \(3, 7\) or"),
        ({"score": np.zeros((3, 1))}, r"prediction_score: got shape \(3, 1\)"),
        ({"frame_id": np.array(3)}, r"prediction_frame_id: got shape \(\)"),
        ({"type": np.array([1, 5, 1])}, r"type\[1\]: got 5.*4 \(CYCLIST\)"),
        ({"type": np.array([1, -1, 1])}, r"prediction_type\[1\]: got -1"),
        ({"type": np.ones(3)}, "prediction_type: got dtype float64"),
        ({"overlap_nlz": np.ones(3)}, "overlap_nlz: got dtype float64.*bool"),
    ],
)
def test_predictions_that_cannot_be_measured(change, message):
    fine = waymo.predictions(_BBOX, 0.5)
    boxes.checked(fine)
    with pytest.raises(ValueError, match=message):
        boxes.checked(fine._replace(**change))


def test_true_boxes_that_cannot_be_measured():
    fine = waymo.ground_truths(_BBOX, difficulty=2)
    boxes.checked(fine._replace(type=np.array([-1, 0, -4])))
    with pytest.raises(ValueError, match=r"ground_truth_type\[1\]: got -5"):
        boxes.checked(fine._replace(type=np.array([1, -5, 1])))
    with pytest.raises(
        ValueError, match=r"ground_truth_difficulty\[0\].*got 3"
    ):
        boxes.checked(fine._replace(difficulty=np.array([3, 1, 1])))


def test_checked_boxes_have_one_set_of_dtypes():
    narrow = boxes.Predictions(
        np.array([2**31 - 1], np.int32),
        _BBOX[:1].astype(np.float32),
        np.array([1], np.uint8),
        np.array([0.1]),
        np.array([True]),
    )
    found = boxes.checked(narrow)
    assert [values.dtype for values in found] == [
        np.int64, np.float64, np.int64, np.float32, np.bool_,
    ]  # fmt: skip
    assert found.frame_id[0] == 2**31 - 1
    np.testing.assert_array_equal(found.bbox, _BBOX[:1])
    empty = boxes.Predictions([], np.zeros((0, 7)), [], [], [])
    assert boxes.checked(empty).overlap_nlz.dtype == np.bool_


def test_box_types():
    solid, flat = waymo.ground_truths(_BBOX), waymo.ground_truths(_BBOX[:, :5])
    assert boxes.convert_box_type(solid, "3d") is solid
    np.testing.assert_array_equal(
        boxes.convert_box_type(solid, "2d").bbox[0], [0.0, 1.0, 3.0, 4.0, 6.0]
    )
    np.testing.assert_array_equal(
        boxes.convert_box_type(flat, "2d").bbox, flat.bbox
    )
    with pytest.raises(ValueError, match="5 values a box, expected 7"):
        boxes.convert_box_type(flat, "3d")
    with pytest.raises(ValueError, match="'4d', expected one of 3d, 2d"):
        boxes.check_box_type("4d")


def test_batches_hold_whole_frames_in_their_order():
    rng = np.random.default_rng(0)
    frames = rng.integers(-5, 5, 200), rng.integers(0, 9, 100)
    predictions = waymo.predictions(
        rng.normal(size=(200, 7)), np.arange(200), frame_id=frames[0]
    )
    truths = waymo.ground_truths(
        rng.normal(size=(100, 7)), frame_id=frames[1]
    )._replace(difficulty=np.arange(100))
    found = list(boxes.batches(predictions, truths, 500))
    assert len(found) > 2
    ids = [
        set(np.concatenate([first.frame_id, second.frame_id]).tolist())
        for first, second in found
    ]
    assert sum(map(len, ids)) == len(set().union(*ids)) == 14
    for index, (whole, name) in enumerate(
        ((predictions, "score"), (truths, "difficulty"))
    ):
        order = np.argsort(whole.frame_id, kind="stable")
        np.testing.assert_array_equal(
            np.concatenate([getattr(part[index], name) for part in found]),
            order,
        )
    nothing = [boxes.select(both, slice(0)) for both in (predictions, truths)]
    assert list(boxes.batches(*nothing, 500)) == []
