"""Decodes the nine outputs to detections."""

from collections.abc import Mapping

import tensorflow as tf

from trainers.models.pointpillars import anchors, box_tensors
from trainers.models.pointpillars.presets import Preset


def detect(
    outputs: Mapping[str, tf.Tensor], preset: Preset
) -> dict[str, tf.Tensor]:
    """Decodes the network's outputs to detections, best first.

    Args:
        outputs: The nine outputs by name, `[batch, rows, columns, 2, ...]`.
        preset: Values of the detector.

    Returns:
        `boxes` `[batch, max_detections, 7]` and `scores`
        `[batch, max_detections]`, float32, zeros beyond the last one;
        `num_detections` `[batch]` int32.
    """
    count = anchors.num_anchors(preset)
    logits = tf.reshape(outputs["class"], [-1, count])
    logits, indices = tf.math.top_k(logits, min(count, preset.max_candidates))
    codes = {}
    for name in box_tensors.RESIDUALS:
        values = tf.reshape(outputs[name], [-1, count])
        values = tf.gather(values, indices, batch_dims=1)
        codes[name] = tf.cast(values, tf.float32)
    directions = tf.reshape(outputs["direction"], [-1, count, 2])
    directions = tf.gather(directions, indices, batch_dims=1)
    backwards = directions[..., 1] > directions[..., 0]
    codes["direction"] = tf.cast(backwards, tf.float32)
    boxes = box_tensors.decode(codes, anchors.anchors_at(indices, preset))
    scores = tf.sigmoid(tf.cast(logits, tf.float32))
    kept = rotated_nms(
        boxes,
        scores,
        iou_threshold=preset.nms_iou,
        score_threshold=preset.score_threshold,
        max_detections=preset.max_detections,
    )
    found = kept >= 0
    rows = tf.maximum(kept, 0)
    boxes = tf.gather(boxes, rows, batch_dims=1)
    return {
        "boxes": tf.where(found[..., None], boxes, 0.0),
        "scores": tf.where(found, tf.gather(scores, rows, batch_dims=1), 0.0),
        "num_detections": tf.reduce_sum(tf.cast(found, tf.int32), axis=1),
    }


def rotated_nms(
    boxes,
    scores,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_detections: int,
) -> tf.Tensor:
    """Suppresses boxes that overlap a better one, best first.

    Args:
        boxes: `[batch, K, 7]`.
        scores: `[batch, K]`.
        iou_threshold: A box is dropped where its overlap with a kept one,
            seen from above, has a higher IoU.
        score_threshold: Boxes with lower scores are dropped.
        max_detections: How many are kept at most.

    Returns:
        Indices `[batch, max_detections]` int32 of the kept boxes, then -1.
    """
    nothing = tf.constant(-1.0)
    left = tf.where(scores >= score_threshold, scores, nothing)
    kept = tf.fill([max_detections, tf.shape(scores)[0]], -1)

    def any_left(number, left, _):
        return (number < max_detections) & tf.reduce_any(left > nothing)

    def keep_best(number, left, kept):
        best = tf.argmax(left, axis=1, output_type=tf.int32)
        box = tf.gather(boxes, best, batch_dims=1)[:, None]
        covered = box_tensors.bev_iou(boxes, box) > iou_threshold
        is_best = tf.range(tf.shape(left)[1]) == best[:, None]
        found = tf.reduce_max(left, axis=1) > nothing
        kept = tf.tensor_scatter_nd_update(
            kept, [[number]], tf.where(found, best, -1)[None]
        )
        return number + 1, tf.where(covered | is_best, nothing, left), kept

    _, _, kept = tf.while_loop(any_left, keep_best, (0, left, kept))
    return tf.transpose(kept)
