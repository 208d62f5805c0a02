import numpy as np
import pytest

from data.lidar import labels
from tests.data.lidar import frames as lidar_frames
from tests.trainers.experiments.waymo import detections
from tests.trainers.models.pointpillars import cases
from trainers.detection import breakdowns, metric
from trainers.experiments.waymo import detector, evaluation
from trainers.models.pointpillars import losses
from trainers.training import workers


def _examples():
    return [
        lidar_frames.example(0, [detections.BOX]),
        lidar_frames.example(
            1, [detections.BOX, detections.SHIFTED], types=[1, 2]
        ),
        # Where the box is found, nothing is labelled.
        lidar_frames.example(2, unlabelled=[detections.BOX[:3], (0, 0, 0)]),
        lidar_frames.example(3, unlabelled=[detections.BOX[:3] + [0, 0, 9]]),
        lidar_frames.example(
            4, [detections.BOX, detections.SHIFTED], num_points=0
        ),
    ]


def _detect(batches, strategy=None, worker=None):
    model = detections.Fixed(strategy)
    finder = detector.Detector(model, cases.ROOMY, worker)
    return detector.join(list(finder.detect(batches)))


def test_predictions_and_truth_of_each_frame():
    found = _detect(detections.batches(_examples()))
    assert found.frames == {n: ("tiny", str(1000 + n)) for n in range(5)}
    predictions, truths = found.predictions, found.ground_truths
    # The two anchors on the box's place both find it; one is suppressed.
    assert predictions.frame_id.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(
        predictions.bbox, np.tile(detections.BOX, (5, 1)), atol=1e-5
    )
    logits = 2.0 + np.arange(5) / 2
    np.testing.assert_allclose(
        predictions.score, 1 / (1 + np.exp(-logits)), rtol=1e-6
    )
    assert predictions.overlap_nlz.tolist() == [0, 0, 1, 0, 0]
    assert predictions.type.tolist() == [1] * 5
    # Of the second frame only the vehicle; of the last what has no point.
    assert truths.frame_id.tolist() == [0, 1]
    assert truths.difficulty.tolist() == [1, 1]
    assert found.num_left_out == 2


def test_what_matches_a_neighbour_is_left_out():
    # A van, a car, both, and a sitting person where the vehicle is found.
    places = [
        ([detections.BOX], [labels.VEHICLE_NEIGHBOUR]),
        ([detections.BOX], [labels.VEHICLE]),
        (
            [detections.BOX, detections.SHIFTED],
            [labels.VEHICLE, labels.VEHICLE_NEIGHBOUR],
        ),
        ([detections.BOX], [labels.PEDESTRIAN_NEIGHBOUR]),
    ]
    expected = [(0, 0, 0), (1, 0, 0), (1, 0, 0), (0, 1, 0)]
    for (bbox, types), counts in zip(places, expected):
        example = lidar_frames.example(0, bbox, types=types)
        found = _detect(detections.batches([example], 1))
        measured = metric.DetectionMetric()
        measured.update(found.predictions, found.ground_truths)
        row = measured.counts[breakdowns.row("VEHICLE", 2), 0, :3]
        assert tuple(row) == counts
        assert found.num_left_out == 0
        (picture,) = detector.draw_frames(
            detections.Fixed(), cases.ROOMY, detections.frames([example])
        )
        assert len(picture.true_boxes) == types.count(labels.VEHICLE)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_replicas_share_the_frames(mirrored, batch_size):
    alone = _detect(detections.batches(_examples(), batch_size))
    shared = _detect(detections.batches(_examples(), batch_size), mirrored(2))
    assert shared.frames == alone.frames
    for left, right in zip(shared[:2], alone[:2]):
        for values, expected in zip(left, right):
            np.testing.assert_array_equal(values, expected)


def test_workers_share_the_frames():
    shares = [
        _detect(
            detections.batches(_examples(), 1),
            worker=workers.Worker(index, ("a:1", "b:1")),
        )
        for index in range(2)
    ]
    assert [sorted(share.frames) for share in shares] == [[0, 2, 4], [1, 3]]


def test_ap_of_each_epoch():
    logs = detections.logs_of_an_epoch()
    # From an IoU of 0.7 on one of three is right, and one of two found: the
    # area is recall x precision. The box with few points is of LEVEL_2 only.
    expected = {
        "3d": 1 / 2 * 1 / 3,
        "bev": 1 / 2 * 1 / 3,
        "3d_level_2": 1 / 3 * 1 / 3,
        "3d_iou_50": 1 * 2 / 3,
    }
    for name, value in expected.items():
        assert logs[f"ap_{name}"] == pytest.approx(value, abs=1e-6)
        assert logs[f"aph_{name}"] == pytest.approx(value, abs=1e-6)
    names = [f"{kind}_{name}" for name in expected for kind in ("ap", "aph")]
    losses_ = [f"{name}_loss" for name in losses.LOSS_NAMES]
    assert sorted(logs) == sorted([*names, *losses_, "loss"])


def test_losses_are_means_over_the_frames():
    """Of two frames with the box in one: two anchors are positive there.

    By hand: the score's logit is 2 there and 2.5 in the second frame (it
    grows with the frame's number), at anchors that are all background.
    """
    examples = [
        lidar_frames.example(0, [detections.BOX]),
        lidar_frames.example(1),
    ]
    found = _detect(detections.batches(examples, 2))
    by_name = dict(zip(losses.LOSS_NAMES, found.losses.T))
    for name in losses.LOSS_NAMES[:7]:
        np.testing.assert_allclose(by_name[name], 0.0, atol=1e-12)
    assert by_name["class"][1] > by_name["class"][0] > 0.0
    logs = evaluation.Evaluation(
        detections.Fixed(), cases.ROOMY, detections.batches(examples, 1)
    )()
    mean = {name: np.mean(v) for name, v in by_name.items()}
    assert logs["class_loss"] == pytest.approx(mean["class"], rel=1e-6)
    total = mean["class"] + 0.2 * mean["direction"]
    assert logs["loss"] == pytest.approx(total, rel=1e-6)


def test_a_picture_has_all_points_and_both_kinds_of_boxes():
    examples = _examples()[2:4]
    frames = detections.frames(examples)
    seen = detector.draw_frames(detections.Fixed(), cases.ROOMY, frames)
    assert [picture.title for picture in seen] == ["tiny, 1002", "tiny, 1003"]
    for picture, example in zip(seen, examples):
        np.testing.assert_array_equal(picture.points, example["points"][:, :3])
        np.testing.assert_allclose(
            picture.predicted_boxes, [detections.BOX], atol=1e-5
        )
        assert picture.true_boxes.shape == (0, 7)
        assert picture.x_range == (0.0, 16.0)
        assert picture.y_range == (-8.0, 8.0)
