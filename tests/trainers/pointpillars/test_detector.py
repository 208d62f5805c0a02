import numpy as np
import pytest
import tensorflow as tf

from tests.data import lidar_frames
from tests.trainers.pointpillars import cases
from trainers.pointpillars import anchors, detector, losses

_BOX = np.array([6.5, 0.5, 0.5, 4.0, 2.0, 1.5, 0.0], np.float32)
# Along x by a fifth of the length: an IoU of 0.8 / 1.2.
_SHIFTED = _BOX + np.array([0.8, 0, 0, 0, 0, 0, 0], np.float32)


class _Fixed:
    """A model that finds `_BOX` in every frame.

    It is the surer the higher the frame's number is, which it reads from the
    intensity of a point.
    """

    def __init__(self, strategy=None):
        self.distribute_strategy = strategy or tf.distribute.get_strategy()
        targets = anchors.assign(_BOX[None], cases.ROOMY)
        is_best = targets["class"] == 1.0
        outputs = {
            name: tf.where(is_best, targets[name], 0.0)[None]
            for name in losses.LOSS_NAMES
        }
        outputs["class"] = tf.where(is_best, 2.0, -9.0)[None]
        outputs["direction"] = tf.one_hot(
            tf.cast(outputs["direction"], tf.int32), 2
        )
        self._outputs = outputs

    def __call__(self, inputs, training):
        assert not training
        numbers = tf.reduce_max(inputs["points"][..., 3], axis=1)
        outputs = {
            name: tf.repeat(values, tf.size(numbers), axis=0)
            for name, values in self._outputs.items()
        }
        outputs["class"] += numbers[:, None, None, None] / 2
        return outputs


def _frames(examples):
    signature = {
        name: tf.TensorSpec([None, *np.shape(value)[1:]], value.dtype)
        if isinstance(value, np.ndarray)
        else tf.TensorSpec([], tf.string)
        for name, value in examples[0].items()
    }
    return tf.data.Dataset.from_generator(
        lambda: iter(examples), output_signature=signature
    )


def _batches(examples, batch_size=2):
    return detector.encode_frames(_frames(examples), cases.ROOMY, batch_size)


def _examples():
    return [
        lidar_frames.example(0, [_BOX]),
        lidar_frames.example(1, [_BOX, _SHIFTED], types=[1, 2]),
        # Where the box is found, nothing is labelled.
        lidar_frames.example(2, unlabelled=[_BOX[:3], (0, 0, 0)]),
        lidar_frames.example(3, unlabelled=[_BOX[:3] + [0, 0, 9]]),
        lidar_frames.example(4, [_BOX, _SHIFTED], num_points=0),
    ]


def _detect(batches, strategy=None):
    finder = detector.Detector(_Fixed(strategy), cases.ROOMY)
    return detector.join(list(finder.detect(batches)))


def test_predictions_and_truth_of_each_frame():
    found = _detect(_batches(_examples()))
    assert found.frames == {n: ("tiny", str(1000 + n)) for n in range(5)}
    predictions, truths = found.predictions, found.ground_truths
    # The two anchors on the box's place both find it; one is suppressed.
    assert predictions.frame_id.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(
        predictions.bbox, np.tile(_BOX, (5, 1)), atol=1e-5
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


@pytest.mark.parametrize("batch_size", [1, 3])
def test_replicas_share_the_frames(mirrored, batch_size):
    alone = _detect(_batches(_examples(), batch_size))
    shared = _detect(_batches(_examples(), batch_size), mirrored(2))
    assert shared.frames == alone.frames
    for left, right in zip(shared[:2], alone[:2]):
        for values, expected in zip(left, right):
            np.testing.assert_array_equal(values, expected)


def test_ap_of_each_epoch():
    # Found; found at an IoU of 2 / 3 only; missed and a false alarm.
    far = _BOX + np.array([5, 4, 0, 0, 0, 0, 0], np.float32)
    few = lidar_frames.example(2, [far], num_points=3)
    examples = [
        lidar_frames.example(0, [_BOX]),
        lidar_frames.example(1, [_SHIFTED]),
        few,
    ]
    callback = detector.MeasureDetections(cases.ROOMY, _batches(examples))
    callback.set_model(_Fixed())
    callback.on_train_begin()
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert logs.pop("loss") == 1.0
    # From an IoU of 0.7 on one of three is right, and one of two found: the
    # area is recall x precision. The box with few points is of LEVEL_2 only.
    expected = {
        "3d": 1 / 2 * 1 / 3,
        "bev": 1 / 2 * 1 / 3,
        "3d_level_2": 1 / 3 * 1 / 3,
        "3d_iou_50": 1 * 2 / 3,
    }
    names = [
        f"val_{kind}_{name}" for name in expected for kind in ("ap", "aph")
    ]
    assert sorted(logs) == sorted(names)
    for name, value in expected.items():
        assert logs[f"val_ap_{name}"] == pytest.approx(value, abs=1e-6)
        assert logs[f"val_aph_{name}"] == pytest.approx(value, abs=1e-6)


def test_a_picture_has_all_points_and_both_kinds_of_boxes():
    examples = _examples()[2:4]
    frames = _frames(examples)
    seen = detector.draw_frames(_Fixed(), cases.ROOMY, frames)
    assert [picture.title for picture in seen] == ["tiny, 1002", "tiny, 1003"]
    for picture, example in zip(seen, examples):
        np.testing.assert_array_equal(picture.points, example["points"][:, :3])
        np.testing.assert_allclose(picture.predicted_boxes, [_BOX], atol=1e-5)
        assert picture.true_boxes.shape == (0, 7)
        assert picture.x_range == (0.0, 16.0)
        assert picture.y_range == (-8.0, 8.0)
