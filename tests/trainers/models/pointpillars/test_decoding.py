"""Detections from outputs, and suppression against brute force."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.models.pointpillars import anchors, decoding

detect = tf.function(decoding.detect)


def slow_nms(boxes, scores, iou_threshold, score_threshold, limit):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < score_threshold or len(kept) == limit:
            continue
        if all(
            cases.slow_iou(boxes[i], boxes[j]) <= iou_threshold for j in kept
        ):
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("limit", [5, 60])
def test_suppression_against_brute_force(limit):
    rng = np.random.default_rng(0)
    boxes = np.stack([cases.random_boxes(40, 0), cases.random_boxes(40, 1)])
    boxes[:, 20:] = boxes[:, :20] + rng.normal(0, 0.3, [2, 20, 7])
    scores = rng.random([2, 40]).astype(np.float32)
    kept = decoding.rotated_nms(
        boxes,
        scores,
        iou_threshold=0.3,
        score_threshold=0.2,
        max_detections=limit,
    ).numpy()
    assert kept.shape == (2, limit)
    for example in range(2):
        want = slow_nms(boxes[example], scores[example], 0.3, 0.2, limit)
        assert len(want) < 40
        want += [-1] * (limit - len(want))
        assert kept[example].tolist() == want


def test_suppression_is_rotated():
    """Crossed boxes overlap little, though their outlines are one square."""
    boxes = np.float32([[0, 0, 0, 6, 1, 1, 0.785], [0, 0, 0, 6, 1, 1, -0.785]])
    arguments = {"score_threshold": 0.1, "max_detections": 3}
    scores = np.float32([[0.5, 0.9]])
    kept = decoding.rotated_nms(
        boxes[None], scores, iou_threshold=0.3, **arguments
    )
    assert kept.numpy().tolist() == [[1, 0, -1]]
    # 1 / 11 of both.
    kept = decoding.rotated_nms(
        boxes[None], scores, iou_threshold=0.09, **arguments
    )
    assert kept.numpy().tolist() == [[1, -1, -1]]


def perfect_outputs(boxes, logit=3.0):
    """What a network would say that knows the targets."""
    targets = anchors.assign(boxes, TINY)
    known = {k: tf.where(np.isnan(v), 0.0, v) for k, v in targets.items()}
    backwards = known.pop("direction")
    known["direction"] = tf.stack([1 - backwards, backwards], axis=-1)
    positive = targets["class"] == 1
    known["class"] = tf.where(positive, logit, -20.0)
    return {k: v[None] for k, v in known.items()}


def test_targets_come_back_as_boxes():
    boxes = np.float32(
        [
            [4, -5, 0.5, 4.2, 1.9, 1.5, 0.3],
            [8.3, 0.2, 0.7, 3.8, 2, 1.4, -1.4],
            [12, 5, 0.1, 4, 2.1, 1.6, 3.0],
        ]
    )
    found = detect(perfect_outputs(boxes), TINY)
    assert found["num_detections"] == [3]
    order = np.argsort(found["boxes"][0, :3, 0])
    np.testing.assert_allclose(
        found["boxes"].numpy()[0, order], boxes, atol=1e-4
    )
    np.testing.assert_allclose(
        found["scores"][0],
        [1 / (1 + np.exp(-3.0))] * 3 + [0] * 5,
        rtol=1e-6,
    )
    assert not found["boxes"][0, 3:].numpy().any()
    assert found["boxes"].shape == [1, 8, 7]


def test_scores_decide():
    """Best first, none below the threshold, no more than asked for."""
    box = np.float32([[4, -5, 0.5, 4, 2, 1.5, 0]])
    outputs = perfect_outputs(box)
    logits = np.full([1, 16, 16, 2], -20.0, np.float32)
    logits[0, 2, 3, 0], logits[0, 10, 3, 0] = 0.0, 1.0
    # Of scores below 5 %.
    logits[0, 14, 10, 0] = -3.0
    found = detect({**outputs, "class": logits}, TINY)
    assert found["num_detections"] == [2]
    np.testing.assert_allclose(
        found["scores"][0, :3], [1 / (1 + np.exp(-1)), 0.5, 0], rtol=1e-6
    )
    assert found["boxes"][0, 0, 1] > 0 > found["boxes"][0, 1, 1]
    single = dataclasses.replace(TINY, max_detections=1, max_candidates=9999)
    found = detect({**outputs, "class": logits}, single)
    assert found["boxes"].shape == [1, 1, 7]


def test_boxes_are_not_clipped_to_the_grid():
    outputs = perfect_outputs(np.float32([[15.5, 7.5, 0, 4, 2, 1.5, 0]]))
    outputs["x"] = outputs["x"] + 1.0
    found = detect(outputs, TINY)
    assert found["boxes"][0, 0, 0] > 18


def test_nothing():
    outputs = {
        k: tf.repeat(v, 2, axis=0)
        for k, v in perfect_outputs(tf.zeros([0, 7])).items()
    }
    found = detect(outputs, TINY)
    assert found["num_detections"].numpy().tolist() == [0, 0]
    assert not found["scores"].numpy().any()
