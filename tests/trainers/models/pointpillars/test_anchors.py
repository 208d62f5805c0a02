"""Anchors and their assignment against loops over all pairs."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.models.pointpillars import anchors, box_tensors, presets

assign = tf.function(anchors.assign)
CODES = (*box_tensors.RESIDUALS, "direction")


def test_places():
    found = anchors.anchors_at(tf.range(512), TINY)
    np.testing.assert_allclose(
        tf.reshape(found, [16, 16, 2, 7]), cases.tiny_anchors(), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("preset", "index", "want"),
    [
        (
            presets.GRADDROP_2020,
            (2 * 512 + 3) * 2 + 1,
            [-76.8 + 3.5 * 0.3, -76.8 + 2.5 * 0.3, 0.82, 4.73, 2.08, 1.77,
             math.pi / 2],
        ),
        (
            presets.KITTI,
            (247 * 216 + 215) * 2,
            [69.12 - 0.16, 39.68 - 0.16, -1.0, 3.9, 1.6, 1.56, 0.0],
        ),
    ],
)  # fmt: skip
def test_places_on_the_presets(preset, index, want):
    found = anchors.anchors_at(tf.constant([index]), preset)[0]
    np.testing.assert_allclose(found, want, rtol=1e-5)


def slow_overlaps(boxes):
    """IoU of all anchors with all boxes, `[512, M]`."""
    iou = np.zeros([512, len(boxes)])
    for i, anchor in enumerate(cases.tiny_anchors().reshape(-1, 7)):
        for j, b in enumerate(boxes):
            if math.hypot(*(anchor - b)[:2]) < 10:
                iou[i, j] = cases.slow_iou(anchor, b)
    return iou


@pytest.mark.parametrize("seed", range(4))
def test_assignment_against_all_pairs(seed):
    boxes = cases.random_boxes(3, seed)
    iou = slow_overlaps(boxes)
    targets = {k: v.numpy().ravel() for k, v in assign(boxes, TINY).items()}
    forced = {}
    for j in range(3):
        ranks = np.sort(iou[:, j])
        # Rounding must not decide: no ties.
        assert ranks[-1] - ranks[-2] > 1e-5
        forced[int(iou[:, j].argmax())] = j
    assert len(forced) == 3
    for i in range(512):
        best = iou[i].max()
        assert min(abs(best - 0.45), abs(best - 0.6)) > 1e-5
        codes = {name: targets[name][i] for name in CODES}
        if i in forced or best >= 0.6:
            assert targets["class"][i] == 1
            j = forced.get(i, int(iou[i].argmax()))
            want = box_tensors.encode(
                tf.constant(boxes[j]),
                tf.constant(cases.tiny_anchors().reshape(-1, 7)[i], tf.float32),
            )
            for name in CODES:
                np.testing.assert_allclose(codes[name], want[name], atol=1e-6)
            continue
        assert np.isnan(list(codes.values())).all()
        if best < 0.45:
            assert targets["class"][i] == 0
        else:
            assert np.isnan(targets["class"][i])


def test_a_box_on_an_anchor():
    """Hand-worked: neighbours along the length overlap by 3/5 of all."""
    box = np.float32([[8.5, 0.5, 0.5, 4, 2, 1.5, 0]])
    target = assign(box, TINY)["class"].numpy()
    # Shifted along x by 1: 6 / (16 - 6) = 0.6; by 2: 4 / 12. Along y by 1:
    # 4 / 12. Crosswise: 4 / 12.
    assert target[8, 8, 0] == 1
    assert target[8, 7, 1] == target[8, 6, 0] == target[7, 8, 0] == 0
    short = assign(box * np.float32([1, 1, 1, 0.999, 1, 1, 1]), TINY)["class"]
    # 5.996 / 9.996 is below 0.6: the neighbours do not count.
    assert np.isnan(short[8, 7, 0]) and np.isnan(short[8, 9, 0])
    assert np.nansum(short) == 1


def test_the_best_anchor_is_positive_in_any_case():
    """A truck and a pole, far below the threshold with every anchor."""
    boxes = np.float32([[4, -4, 0, 9, 2.5, 3, 0.7], [12, 4, 0, 0.5, 0.4, 1, 0]])
    targets = assign(boxes, TINY)
    positive = np.argwhere(targets["class"].numpy() == 1)
    assert len(positive) == 2
    for row, column, _ in positive:
        centre = np.array([column + 0.5, row - 7.5])
        assert min(np.abs(boxes[:, :2] - centre).max(axis=1)) < 3


def test_a_forced_anchor_leaves_its_better_box():
    """The pole's best anchor is one that a car overlaps by more."""
    car = [8.5, 0.5, 0.5, 4, 2, 1.5, 0]
    pole = [8.5, 0.5, 0.5, 3.9, 0.2, 1, 0.0]
    for boxes in ([car, pole], [pole, car]):
        targets = assign(np.float32(boxes), TINY)
        # Of boxes with one best anchor the last has it.
        width = math.log(boxes[1][4] / 2)
        np.testing.assert_allclose(targets["width"][8, 8, 0], width, atol=1e-6)


def test_boxes_beyond_the_map_match_what_reaches_in():
    boxes = np.float32([[16.4, 7.9, 0, 4, 2, 1.5, 0], [60, 0, 0, 4, 2, 1, 0]])
    target = assign(boxes, TINY)["class"].numpy()
    assert np.argwhere(target == 1).tolist() == [[15, 15, 0]]


@pytest.mark.parametrize("preset", [TINY, presets.SMALL])
def test_no_boxes(preset):
    targets = assign(tf.zeros([0, 7]), preset)
    assert targets.keys() == {*CODES, "class"}
    for name, target in targets.items():
        assert target.shape == [*preset.map_shape, 2]
        assert target.dtype == tf.float32
        if name == "class":
            assert not target.numpy().any()
        else:
            assert np.isnan(target).all()
