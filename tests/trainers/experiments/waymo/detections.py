"""A detector that is known to find one box, and frames to find it in."""

import numpy as np
import tensorflow as tf

from tests.data.lidar import frames as lidar_frames
from tests.trainers.models.pointpillars import cases
from trainers.experiments.waymo import evaluation
from trainers.experiments.waymo import frames as waymo_frames
from trainers.models.pointpillars import anchors, losses

BOX = np.array([6.5, 0.5, 0.5, 4.0, 2.0, 1.5, 0.0], np.float32)
# Along x by a fifth of the length: an IoU of 0.8 / 1.2.
SHIFTED = BOX + np.array([0.8, 0, 0, 0, 0, 0, 0], np.float32)


class Fixed:
    """A model that finds `BOX` in every frame.

    It is the surer the higher the frame's number is, which it reads from the
    intensity of a point.
    """

    def __init__(self, strategy=None):
        self.distribute_strategy = strategy or tf.distribute.get_strategy()
        targets = anchors.assign(BOX[None], cases.ROOMY)
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


def frames(examples):
    """Makes a dataset of examples."""
    signature = {
        name: tf.TensorSpec([None, *np.shape(value)[1:]], value.dtype)
        if isinstance(value, np.ndarray)
        else tf.TensorSpec([], tf.string)
        for name, value in examples[0].items()
    }
    return tf.data.Dataset.from_generator(
        lambda: iter(examples), output_signature=signature
    )


def batches(examples, batch_size=2):
    """Makes batches to detect in."""
    return waymo_frames.evaluation_batches(
        frames(examples), cases.ROOMY, batch_size
    )


def logs_of_an_epoch(worker=None):
    """Measures `Fixed` on three frames, as training does after an epoch.

    Its box is found in the first; in the second at an IoU of 2 / 3 only; in
    the third it is a false alarm, and a box of few points is missed.

    Args:
        worker: Which of several processes this is.

    Returns:
        The logs.
    """
    far = BOX + np.array([5, 4, 0, 0, 0, 0, 0], np.float32)
    examples = [
        lidar_frames.example(0, [BOX]),
        lidar_frames.example(1, [SHIFTED]),
        lidar_frames.example(2, [far], num_points=3),
    ]
    # A frame a batch: of two workers one has a batch more.
    return evaluation.Evaluation(
        Fixed(), cases.ROOMY, batches(examples, 1), worker=worker
    )()
