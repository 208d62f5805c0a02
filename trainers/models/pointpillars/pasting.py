"""Ground-truth sampling: objects of other frames pasted into a frame.

Yan et al., "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from trainers.models.pointpillars import box_tensors


@dataclasses.dataclass(frozen=True)
class ObjectStore:
    """Objects cut out of frames.

    Attributes:
        boxes: `[S, 7]` float32.
        points: The points of each object, a ragged tensor `[S, (n), F]`.
    """

    boxes: tf.Tensor
    points: tf.RaggedTensor


def collect_objects(
    frames: Iterable[Mapping[str, np.ndarray]],
    min_num_points: int,
    max_objects: int,
) -> ObjectStore:
    """Collects objects from frames, until there are enough.

    Args:
        frames: Frames of arrays or tensors, such as a `tf.data.Dataset`.
        min_num_points: Objects with fewer points are left out.
        max_objects: How many objects to hold at most.

    Returns:
        The objects.

    Raises:
        ValueError: If there is no such object.
    """
    boxes, points = [], []
    for frame in frames:
        cloud = np.asarray(frame["points"])
        inside = box_tensors.points_in_boxes(cloud, frame["boxes"]).numpy()
        for box, members in zip(
            np.asarray(frame["boxes"]), inside.T, strict=True
        ):
            if members.sum() >= max(min_num_points, 1):
                boxes.append(box)
                points.append(cloud[members])
        if len(boxes) >= max_objects:
            break
    if not boxes:
        raise ValueError(
            f"got no box with {min_num_points} points or more, expected some "
            "to paste; lower min_num_points or give other frames."
        )
    boxes, points = boxes[:max_objects], points[:max_objects]
    return ObjectStore(
        tf.constant(np.stack(boxes), tf.float32),
        tf.RaggedTensor.from_row_lengths(
            tf.constant(np.concatenate(points), tf.float32),
            [len(p) for p in points],
        ),
    )


def paste_objects(
    frame: Mapping[str, tf.Tensor], store: ObjectStore, count: int, seed
) -> dict[str, tf.Tensor]:
    """Pastes objects where they stood in their own frames.

    What would overlap a box of the frame, or an object drawn before, seen
    from above, is left out. Points of the frame inside a pasted box give way.

    Args:
        frame: `points` `[N, F]`, `boxes` `[M, 7]`, `num_points` `[M]`.
        store: What to choose from.
        count: How many objects to draw.
        seed: Two integers, which decide the choice.

    Returns:
        The frame with the pasted points, boxes and numbers of points behind
        its own.
    """
    points, boxes = frame["points"], frame["boxes"]
    drawn = tf.random.stateless_uniform(
        [count], seed, 0, tf.shape(store.boxes)[0], tf.int32
    )
    candidates = tf.gather(store.boxes, drawn)
    in_the_way = tf.concat([boxes, candidates], axis=0)
    overlap = box_tensors.bev_iou(candidates[:, None], in_the_way) > 0
    order = tf.range(tf.shape(in_the_way)[0])
    is_before = order < (tf.shape(boxes)[0] + tf.range(count))[:, None]
    pasted = tf.boolean_mask(drawn, ~tf.reduce_any(overlap & is_before, axis=1))
    new_boxes = tf.gather(store.boxes, pasted)
    new_points = tf.gather(store.points, pasted)
    hidden = tf.reduce_any(
        box_tensors.points_in_boxes(points, new_boxes), axis=1
    )
    counts = frame["num_points"]
    new_counts = tf.cast(new_points.row_lengths(), counts.dtype)
    return {
        "points": tf.concat(
            [tf.boolean_mask(points, ~hidden), new_points.flat_values], axis=0
        ),
        "boxes": tf.concat([boxes, new_boxes], axis=0),
        "num_points": tf.concat([counts, new_counts], axis=0),
    }
