"""Frames as inputs and targets."""

import numpy as np
import tensorflow as tf

from tests.trainers.models.pointpillars import cases
from tests.trainers.models.pointpillars.cases import TINY
from trainers.models.pointpillars import anchors, encoding, pillars


def test_inputs_and_targets_are_those_of_the_parts():
    frame = cases.random_frame(0)
    inputs, targets = encoding.encode_frame(frame, TINY, (3, 4))
    want = pillars.pillarize(frame["points"], TINY, (3, 4))
    for name, value in want.items():
        np.testing.assert_array_equal(inputs[name], value)
    for name, value in anchors.assign(frame["boxes"], TINY).items():
        np.testing.assert_array_equal(targets[name], value)


def test_boxes_that_are_not_trained_on():
    """Five points are too few; a centre outside of the grid is outside."""
    frame = cases.random_frame(0)
    sizes = [0.5, 4, 2, 1.5, 0]
    places = [[4, 0], [4, 5], [-0.1, 0], [16, 0], [8, -8.1], [8, 8], [0, -8]]
    frame["boxes"] = tf.constant([[*p, *sizes] for p in places])
    frame["num_points"] = tf.constant([6, 5, 9, 9, 9, 9, 9])
    _, targets = encoding.encode_frame(frame, TINY, (0, 0))
    kept = tf.gather(frame["boxes"], [0, 6])
    for name, value in anchors.assign(kept, TINY).items():
        np.testing.assert_array_equal(targets[name], value)


def test_in_a_pipeline():
    """Frames of any size become batches of static shapes."""
    signature = {
        "points": tf.TensorSpec([None, 4]),
        "boxes": tf.TensorSpec([None, 7]),
        "num_points": tf.TensorSpec([None], tf.int32),
    }
    some = [
        cases.random_frame(0),
        cases.random_frame(1, 7),
        cases.empty_frame(),
    ]
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(some), output_signature=signature
    )
    dataset = dataset.map(lambda f: encoding.encode_frame(f, TINY, (0, 0)))
    ((inputs, targets),) = dataset.batch(3, drop_remainder=True)
    assert inputs["points"].shape == [3, 48, 4]
    assert targets["rotation"].shape == [3, 16, 16, 2]
    want = cases.encode_batch(some)
    for found, value in zip(
        tf.nest.flatten((inputs, targets)), tf.nest.flatten(want)
    ):
        np.testing.assert_array_equal(found, value)
