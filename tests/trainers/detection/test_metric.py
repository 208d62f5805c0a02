import numpy as np
import pytest

from data.lidar import labels
from tests.trainers.detection import waymo
from trainers.benchmarks import random_scenes
from trainers.detection import boxes, breakdowns, metric

_VEHICLE_1 = "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"
_VEHICLE_2 = "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_2"
_COLUMNS = ("x", "y", "z", "length", "width", "height", "heading")
_BOX = [10.0, 0.0, 1.0, 4.0, 2.0, 1.5, 0.0]


def _measure(predictions, ground_truths, box_type="3d", **kwargs):
    measured = metric.DetectionMetric(box_type, **kwargs)
    measured.update(predictions, ground_truths)
    return measured.result()


def _counts(results, breakdown, cutoff):
    row = breakdowns.BREAKDOWNS.index(breakdown)
    column = round(cutoff * 100)
    return tuple(
        int(values[row, column])
        for values in (
            results.true_positives,
            results.false_positives,
            results.false_negatives,
        )
    )


def _ap(results, breakdown):
    return results.by_name()[breakdown]["ap"]


def _changed(**columns):
    """The box with other values in some columns."""
    box = np.array(_BOX)
    for name, value in columns.items():
        box[_COLUMNS.index(name)] = value
    return box


@pytest.mark.parametrize("scene", waymo.SCENES)
@pytest.mark.parametrize("box_type", boxes.BOX_TYPES)
def test_equals_the_official_op(scene, box_type):
    predictions, ground_truths, arrays = waymo.load(scene)
    found = _measure(predictions, ground_truths, box_type)
    assert tuple(arrays["names"]) == breakdowns.BREAKDOWNS
    np.testing.assert_array_equal(metric.CUTOFFS, arrays["score_cutoffs"])
    kind = f"TYPE_{box_type.upper()}"
    pr, prh = arrays[f"{kind}/pr"], arrays[f"{kind}/prh"]
    np.testing.assert_array_equal(found.true_positives, pr[..., 2])
    np.testing.assert_array_equal(found.false_positives, pr[..., 3])
    np.testing.assert_array_equal(found.false_negatives, pr[..., 4])
    for values, expected in (
        (found.precision, pr[..., 0]),
        (found.recall, pr[..., 1]),
        (found.heading_precision, prh[..., 0]),
        (found.ap, arrays[f"{kind}/ap"]),
        (found.aph, arrays[f"{kind}/aph"]),
    ):
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_hand_checked_pair_of_predictions():
    # IoU .9 with score 0, and IoU .6 (too little for a vehicle, so .8 here)
    # with score .5.
    predictions = waymo.predictions(
        [_changed(length=3.6), _changed(length=3.2)], [0.0, 0.5]
    )
    found = _measure(predictions, waymo.ground_truths([_BOX]))
    assert _counts(found, _VEHICLE_1, 0.0) == (1, 1, 0)
    assert _counts(found, _VEHICLE_1, 0.5) == (1, 0, 0)
    assert _counts(found, _VEHICLE_1, 0.51) == (0, 0, 1)
    assert _counts(found, _VEHICLE_1, 1.0) == (0, 0, 1)
    assert _ap(found, _VEHICLE_1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("type_", "share", "is_matched"),
    [
        (1, 0.71, True),
        (1, 0.7, True),
        (1, 0.6999, False),
        # Compared in float32, in which these are equal.
        (1, 0.7 - 1e-9, True),
        (2, 0.5 - 1e-9, True),
        (2, 0.5, True),
        (2, 0.4999, False),
        (3, 0.51, True),
        (3, 0.49, False),
        (4, 0.51, True),
        (4, 0.49, False),
    ],
)
def test_thresholds_by_type(type_, share, is_matched):
    found = _measure(
        waymo.predictions([_changed(length=4.0 * share)], 1.0, type=type_),
        waymo.ground_truths([_BOX], type=type_),
    )
    name = f"OBJECT_TYPE_TYPE_{labels.TYPES[type_]}_LEVEL_1"
    expected = (1, 0, 0) if is_matched else (0, 1, 1)
    assert _counts(found, name, 1.0) == expected
    assert found.true_positives.any(axis=1).sum() == (4 if is_matched else 0)


def test_types_have_to_match_and_unknown_ones_count_nowhere():
    found = _measure(
        waymo.predictions([_BOX, _BOX], 1.0, type=[2, 0]),
        waymo.ground_truths([_BOX, _BOX], type=[4, 0]),
    )
    pedestrian = "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_1"
    cyclist = "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_1"
    assert _counts(found, pedestrian, 0.0) == (0, 1, 0)
    assert _counts(found, cyclist, 0.0) == (0, 0, 1)
    assert found.false_positives[:, 0].sum() == 4
    assert found.false_negatives[:, 0].sum() == 4


def test_frames_do_not_mix():
    types = np.repeat([1, 2, 3, 4], 3)
    found = _measure(
        waymo.predictions([_BOX] * 12, 1.0, types, frame_id=[3, 5, 7] * 4),
        waymo.ground_truths([_BOX] * 12, types, frame_id=[4, 6, 8] * 4),
    )
    assert not found.true_positives.any()
    assert _counts(found, _VEHICLE_1, 0.0) == (0, 3, 3)


def test_each_box_is_in_its_own_range():
    # At 29.9 m and 30.1 m: a match over all ranges, none within one.
    found = _measure(
        waymo.predictions([_changed(x=29.9, y=0.0, z=0.0, length=4.2)], 1.0),
        waymo.ground_truths([_changed(x=30.1, y=0.0, z=0.0, length=4.2)]),
    )
    assert _counts(found, _VEHICLE_1, 0.0) == (1, 0, 0)
    name = "RANGE_TYPE_VEHICLE_{}_LEVEL_1".format
    assert _counts(found, name("[0, 30)"), 0.0) == (0, 1, 0)
    assert _counts(found, name("[30, 50)"), 0.0) == (0, 0, 1)
    assert _counts(found, name("[50, +inf)"), 0.0) == (0, 0, 0)


@pytest.mark.parametrize(
    ("x", "z", "place_3d", "place_2d"),
    [
        (29.0, 10.0, "[30, 50)", "[0, 30)"),
        (30.0, 0.0, "[30, 50)", "[30, 50)"),
        (50.0, 0.0, "[50, +inf)", "[50, +inf)"),
        (49.0, 10.1, "[50, +inf)", "[30, 50)"),
    ],
)
def test_height_counts_for_the_range_in_3d_only(x, z, place_3d, place_2d):
    truths = waymo.ground_truths([_changed(x=x, z=z)])
    nothing = boxes.select(waymo.predictions([_BOX], 1.0), slice(0))
    for box_type, place in (("3d", place_3d), ("2d", place_2d)):
        found = _measure(nothing, truths, box_type)
        rows = np.flatnonzero(found.false_negatives[:, 0])
        assert [breakdowns.BREAKDOWNS[row] for row in rows] == [
            _VEHICLE_1,
            _VEHICLE_2,
            f"RANGE_TYPE_VEHICLE_{place}_LEVEL_1",
            f"RANGE_TYPE_VEHICLE_{place}_LEVEL_2",
        ]


def test_levels_are_cumulative():
    places = np.array([_changed(x=10.0 * i) for i in range(4)])
    found = _measure(
        waymo.predictions(places[:2], 1.0),
        waymo.ground_truths(places, difficulty=[1, 2, 1, 2]),
    )
    # A match of a LEVEL_2 box is a true positive of LEVEL_1 too.
    assert _counts(found, _VEHICLE_1, 0.0) == (2, 0, 1)
    assert _counts(found, _VEHICLE_2, 0.0) == (2, 0, 2)


def test_no_label_zones_forgive_false_positives_only():
    found = _measure(
        waymo.predictions(
            [_BOX, _changed(x=20.0), _changed(x=30.0)],
            1.0,
            overlap_nlz=[True, True, False],
        ),
        waymo.ground_truths([_BOX]),
    )
    assert _counts(found, _VEHICLE_1, 0.0) == (1, 1, 0)


@pytest.mark.parametrize("box_type", boxes.BOX_TYPES)
def test_what_matches_a_neighbour_is_left_out(box_type):
    predictions = waymo.predictions(
        # On a neighbour, twice; too little of it; of another type; a vehicle.
        [
            _changed(length=3.6),
            _changed(length=3.2),
            _changed(x=40.0, length=2.4),
            _changed(x=60.0),
            _changed(x=80.0),
        ],
        [0.9, 0.6, 0.9, 0.9, 0.5],
        type=[1, 1, 1, 2, 1],
    )
    found = _measure(
        predictions,
        waymo.ground_truths(
            [_BOX, *(_changed(x=x) for x in (40.0, 60.0, 80.0, 100.0))],
            type=[-1, -1, -1, 1, -2],
        ),
        box_type,
    )
    assert _counts(found, _VEHICLE_1, 0.7) == (0, 1, 1)
    # The neighbour excuses one detection, as in KITTI's evaluation.
    assert _counts(found, _VEHICLE_1, 0.6) == (0, 2, 1)
    assert _counts(found, _VEHICLE_2, 0.5) == (1, 2, 0)
    row = breakdowns.row("VEHICLE", 1)
    assert found.heading_precision[row, 50] == pytest.approx(1 / 3)
    pedestrian = "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_1"
    assert _counts(found, pedestrian, 0.5) == (0, 1, 0)


def test_a_vehicle_is_preferred_to_a_neighbour_that_overlaps_less():
    for length, expected in ((3.9, (1, 0, 0)), (3.1, (0, 0, 1))):
        found = _measure(
            waymo.predictions([_BOX], 1.0),
            waymo.ground_truths(
                [_changed(length=3.5), _changed(length=length)], type=[-1, 1]
            ),
        )
        assert _counts(found, _VEHICLE_1, 1.0) == expected


def test_a_heading_counts_in_precision_and_not_in_recall():
    found = _measure(
        waymo.predictions([_changed(width=4.0, heading=np.pi / 2)], 1.0),
        waymo.ground_truths([_changed(width=4.0)]),
    )
    row = breakdowns.BREAKDOWNS.index(_VEHICLE_1)
    assert found.precision[row, 0] == found.recall[row, 0] == 1.0
    assert found.heading_precision[row, 0] == pytest.approx(0.5)
    assert found.aph[row] == pytest.approx(0.5)


def test_a_score_equal_to_a_cutoff_is_kept():
    scores = metric.CUTOFFS[[0, 29, 57, 58, 100]]
    predictions = waymo.predictions(
        [_changed(x=10.0 * i) for i in range(5)], scores
    )
    nothing = boxes.select(waymo.ground_truths([_BOX]), slice(0))
    found = _measure(predictions, nothing)
    kept = found.false_positives[breakdowns.BREAKDOWNS.index(_VEHICLE_1)]
    expected = [
        sum(score >= cutoff for score in scores) for cutoff in metric.CUTOFFS
    ]
    np.testing.assert_array_equal(kept, expected)
    assert kept[[0, 1, 29, 30, 57, 58, 59, 100]].tolist() == [
        5,
        4,
        4,
        3,
        3,
        2,
        1,
        1,
    ]


def test_frames_may_come_one_by_one(monkeypatch):
    predictions, ground_truths, _ = waymo.load("all_types")
    whole = _measure(predictions, ground_truths)
    streamed = metric.DetectionMetric()
    for frame in np.unique(predictions.frame_id)[::-1]:
        streamed.update(
            boxes.select(predictions, predictions.frame_id == frame),
            boxes.select(ground_truths, ground_truths.frame_id == frame),
        )
    monkeypatch.setattr(metric, "PAIRS_AT_ONCE", 1000)
    split = _measure(predictions, ground_truths, num_workers=2)
    for other in (streamed.result(), split):
        np.testing.assert_array_equal(
            other.true_positives, whole.true_positives
        )
        np.testing.assert_array_equal(
            other.false_negatives, whole.false_negatives
        )
        np.testing.assert_allclose(other.aph, whole.aph, atol=1e-12)
    streamed.reset()
    assert not streamed.result().ap.any()


def test_the_rule_of_2020_is_lower_nowhere():
    predictions, ground_truths, _ = waymo.load("vehicle_basic")
    measured = metric.DetectionMetric()
    measured.update(predictions, ground_truths)
    new, old = measured.result(), measured.result("2020")
    gain = old.ap - new.ap
    reached = new.recall.max(axis=1) > 0.0
    assert (gain[reached] > 0.0).all()
    assert (gain < 0.05).all()
    assert not gain[~reached].any()


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="box_type: got 'bev'"):
        metric.DetectionMetric("bev")
    measured = metric.DetectionMetric()
    with pytest.raises(ValueError, match=r"ground_truth_bbox\[0\]"):
        measured.update(
            waymo.predictions([_BOX], 1.0),
            waymo.ground_truths([_changed(x=np.nan)]),
        )
    with pytest.raises(ValueError, match="ap_rule"):
        measured.result("new")


def test_random_scenes_are_worth_measuring():
    predictions, ground_truths = random_scenes.random_scenes(
        20, 900, 600, seed=1
    )
    again = random_scenes.random_scenes(20, 900, 600, seed=1)
    np.testing.assert_array_equal(predictions.bbox, again[0].bbox)
    assert (len(predictions.score), len(ground_truths.type)) == (900, 600)
    found = _measure(predictions, ground_truths)
    assert (found.ap[:4] > 0.3).all()
    assert (found.ap < 0.95).all()
    assert (found.aph[:4] < found.ap[:4]).all()


@pytest.mark.parametrize(
    ("threshold", "counts"), [(0.5, (1, 0, 0)), (0.7, (0, 1, 1))]
)
def test_another_overlap_may_be_enough(threshold, counts):
    # Shortened from one end: an IoU of 0.6.
    found = _measure(
        waymo.predictions([_changed(length=2.4)], [0.5]),
        waymo.ground_truths([_BOX]),
        iou_thresholds={"VEHICLE": threshold},
    )
    assert _counts(found, _VEHICLE_1, 0.5) == counts


def test_an_overlap_for_a_type_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"iou_thresholds: got CAR"):
        metric.DetectionMetric(iou_thresholds={"CAR": 0.5})


def test_counts_of_parts_add_up_to_those_of_all():
    predictions, ground_truths, _ = waymo.load("all_types")
    parts = []
    for odd in (0, 1):
        part = metric.DetectionMetric()
        part.update(
            *(
                boxes.select(both, both.frame_id % 2 == odd)
                for both in (predictions, ground_truths)
            )
        )
        assert part.counts.any()
        parts.append(part)
    parts[0].counts = parts[0].counts + parts[1].counts
    whole = _measure(predictions, ground_truths)
    np.testing.assert_allclose(parts[0].result().ap, whole.ap, atol=1e-12)
