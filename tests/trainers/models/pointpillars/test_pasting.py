"""Objects cut out of frames and pasted into others."""

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from trainers.models.pointpillars import augmentation, box_tensors, pasting


def paster(store, count):
    """Pastes as in a pipeline: in a graph, into frames of any size."""
    return tf.function(
        lambda frame, seed: pasting.paste_objects(frame, store, count, seed),
        reduce_retracing=True,
    )


def framed(boxes, points):
    boxes = np.float32(boxes).reshape(-1, 7)
    points = np.float32(points).reshape(-1, 4)
    inside = box_tensors.points_in_boxes(points, boxes).numpy()
    return {
        "points": tf.constant(points),
        "boxes": tf.constant(boxes),
        "num_points": tf.constant(inside.sum(axis=0), tf.int32),
    }


FIRST = framed(
    [[4, 0, 0, 4, 2, 2, 0], [10, 4, 0, 2, 2, 2, 0]],
    [[3, 0, 0, 1], [5, 0.5, 0, 2], [10, 4, 0, 3], [10, 4.5, 0, 4],
     [10, 3.5, 0, 5], [0, 0, 0, 6]],
)  # fmt: skip
SECOND = framed([[4, 6, 0, 4, 1, 2, 0.1]], [[4, 6, 0, 7], [4.5, 6, 0, 8]])


def test_collecting():
    store = pasting.collect_objects([FIRST, SECOND], 1, 10)
    np.testing.assert_array_equal(
        store.boxes, tf.concat([FIRST["boxes"], SECOND["boxes"]], 0)
    )
    marks = [row[:, 3].numpy().tolist() for row in store.points]
    assert marks == [[1, 2], [3, 4, 5], [7, 8]]
    assert pasting.collect_objects([FIRST], 3, 10).points.nrows() == 1
    assert pasting.collect_objects([FIRST, SECOND], 1, 2).points.nrows() == 2
    dataset = tf.data.Dataset.from_tensors(FIRST)
    assert pasting.collect_objects(dataset, 1, 9).points.nrows() == 2


def test_nothing_to_collect():
    with pytest.raises(ValueError, match="got no box with 4 points or more"):
        pasting.collect_objects([FIRST, SECOND], 4, 10)


def test_pasting_by_hand():
    """The far object fits; the one in the way of a box does not."""
    store = pasting.collect_objects([FIRST], 1, 10)
    frame = framed(
        [[5, 1, 0, 3, 2, 2, 0]],
        [[5, 1, 0, 50], [10.5, 4, 0.5, 51], [10.5, 4, 1.5, 52]],
    )
    pasted = paster(store, 20)(frame, (0, 0))
    np.testing.assert_array_equal(
        pasted["boxes"], tf.concat([frame["boxes"], FIRST["boxes"][1:]], 0)
    )
    # What was inside the pasted box is gone, what is above it is not.
    assert pasted["points"][:, 3].numpy().tolist() == [50, 52, 3, 4, 5]
    assert pasted["num_points"].numpy().tolist() == [1, 3]
    assert pasted["num_points"].dtype == frame["num_points"].dtype


def test_nothing_overlaps():
    rng = np.random.default_rng(0)
    boxes = cases.random_boxes(30, 2)
    points = np.concatenate([boxes[:, :3], rng.random([30, 1])], axis=1)
    store = pasting.collect_objects([framed(boxes, points)], 1, 30)
    frame = cases.random_frame(0, 200)
    paste, sizes = paster(store, 8), set()
    for seed in range(10):
        pasted = paste(frame, tf.constant([seed, 0]))
        found = pasted["boxes"].numpy()
        np.testing.assert_array_equal(found[:2], frame["boxes"])
        for i in range(2, len(found)):
            assert max(cases.slow_iou(found[i], b) for b in found[:i]) < 1e-6
        inside = box_tensors.points_in_boxes(pasted["points"], found).numpy()
        np.testing.assert_array_equal(
            inside.sum(axis=0)[2:], pasted["num_points"][2:]
        )
        sizes.add(len(found))
    assert min(sizes) > 2 and len(sizes) > 1


def test_as_a_part_of_augmentation():
    still = augmentation.Augmentation((), 0.0, (1.0, 1.0), num_pasted=9)
    store = pasting.collect_objects([FIRST], 1, 10)
    frame = cases.empty_frame()
    pasted = augmentation.augment(frame, still, (0, 0), store)
    assert pasted["boxes"].shape == [2, 7]
    assert pasted["num_points"].numpy().sum() == 5
    without = augmentation.augment(frame, still, (0, 0))
    assert without["boxes"].shape == [0, 7]
