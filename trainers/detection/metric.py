"""The Waymo Open Dataset's detection metric: AP and APH by breakdown.

Sun et al., "Scalability in Perception for Autonomous Driving: Waymo Open
Dataset", CVPR 2020, section 5; in its details as the official op of release
1.6.7 computes it with the official configuration: predictions are matched to
boxes of their own type from an IoU of 0.7 (vehicles) or 0.5 (all others) on,
anew at each of 101 score cutoffs, over all ranges together and within each.
Neighbours of a type, which Waymo does not have, are matched as its boxes are:
their predictions are left out, as in KITTI's evaluation.
"""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from data.lidar import labels
from trainers.detection import average_precision, boxes, geometry, matching
from trainers.detection.breakdowns import (
    BREAKDOWNS,
    LEVELS,
    OFFICIAL_IOU_THRESHOLDS,
    RANGE_BOUNDS,
    RANGES,
)

# In float32, as the op compares scores and overlaps.
CUTOFFS = np.linspace(0.0, 1.0, 101).astype(np.float32)
_IOU_STEPS = np.float32(1e6)
PAIRS_AT_ONCE = 2**18


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """The metric of all frames; rows are `BREAKDOWNS`, columns `CUTOFFS`.

    Attributes:
        ap: Average precision, `[32]`.
        aph: The same of `heading_precision`, `[32]`.
        precision: `[32, 101]`.
        heading_precision: The same with each true positive counting as much
            as its heading is right, `[32, 101]`.
        recall: `[32, 101]`.
        true_positives: Matched predictions, `[32, 101]`.
        false_positives: Predictions that match neither a box nor a neighbour
            and are not in a no-label zone, `[32, 101]`.
        false_negatives: Boxes of up to this level that are not matched,
            `[32, 101]`.
    """

    ap: np.ndarray
    aph: np.ndarray
    precision: np.ndarray
    heading_precision: np.ndarray
    recall: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray

    def by_name(self) -> dict[str, dict[str, float]]:
        """Returns AP and APH by the official name of the breakdown."""
        return {
            name: {"ap": float(ap), "aph": float(aph)}
            for name, ap, aph in zip(BREAKDOWNS, self.ap, self.aph, strict=True)
        }


class DetectionMetric:
    """Accumulates frames and computes the metric of all of them.

    Only counts are kept, so memory does not grow with the number of frames.

    Args:
        box_type: "3d", or "2d" for bird's eye view.
        num_workers: How many threads share the frames of one update.
        iou_thresholds: From which IoU on boxes match, by type, where that is
            not to be one of `OFFICIAL_IOU_THRESHOLDS`.

    Attributes:
        counts: Sums over all frames so far, float64. Where several processes
            each see a part of the frames, the sum of theirs is that of all.

    Raises:
        ValueError: For another box type, or a type that does not exist.

    Example:
        >>> metric = DetectionMetric()
        >>> for predictions, ground_truths in frames:
        ...     metric.update(predictions, ground_truths)
        >>> metric.result().by_name()["OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"]
        {'ap': 0.72, 'aph': 0.71}
    """

    def __init__(
        self,
        box_type: str = "3d",
        num_workers: int = 1,
        iou_thresholds: Mapping[str, float] | None = None,
    ):
        boxes.check_box_type(box_type)
        thresholds = {
            **OFFICIAL_IOU_THRESHOLDS,
            **(iou_thresholds or {}),
        }
        if unknown := thresholds.keys() - OFFICIAL_IOU_THRESHOLDS.keys():
            raise ValueError(
                f"iou_thresholds: got {', '.join(sorted(unknown))}, expected "
                f"some of {', '.join(OFFICIAL_IOU_THRESHOLDS)}."
            )
        # In float32, as the op compares; unknown types match nothing.
        self._iou_thresholds = np.array(
            [thresholds.get(name, np.inf) for name in labels.TYPES], np.float32
        )
        self._box_type = box_type
        self._num_workers = num_workers
        self.reset()

    def reset(self) -> None:
        """Forgets all frames."""
        self.counts = np.zeros((len(BREAKDOWNS), CUTOFFS.size, 4))

    def update(
        self, predictions: boxes.Predictions, ground_truths: boxes.GroundTruths
    ) -> None:
        """Adds frames.

        Args:
            predictions: Predicted boxes; those below all cutoffs are optional.
            ground_truths: All ground-truth boxes of the same frames that hold
                lidar points, and neighbours. A frame's boxes have to come in
                one update.

        Raises:
            ValueError: For what cannot be measured, see `boxes.checked`.
        """
        predictions, ground_truths = (
            boxes.convert_box_type(boxes.checked(values), self._box_type)
            for values in (predictions, ground_truths)
        )
        parts = boxes.batches(predictions, ground_truths, PAIRS_AT_ONCE)
        with concurrent.futures.ThreadPoolExecutor(self._num_workers) as pool:
            for counts in pool.map(
                lambda part: _count(*part, self._iou_thresholds), parts
            ):
                self.counts += counts

    def result(self, ap_rule: str = "2022") -> Results:
        """Computes the metric of all frames so far.

        Args:
            ap_rule: See `average_precision.average_precision`.

        Raises:
            ValueError: For another rule.
        """
        hits, false_alarms, misses, headings = np.moveaxis(self.counts, -1, 0)
        detected = hits + false_alarms
        recall = _ratio(hits, hits + misses)
        precision, heading_precision = (
            np.where(recall == 0.0, 1.0, _ratio(part, detected))
            for part in (hits, headings)
        )
        ap, aph = (
            np.array(
                [
                    average_precision.average_precision(*curve, ap_rule)
                    for curve in zip(values, recall, strict=True)
                ]
            )
            for values in (precision, heading_precision)
        )
        return Results(
            ap=ap,
            aph=aph,
            precision=precision,
            heading_precision=heading_precision,
            recall=recall,
            true_positives=hits.astype(np.int64),
            false_positives=false_alarms.astype(np.int64),
            false_negatives=misses.astype(np.int64),
        )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divides counts; 0 / 0 is 0."""
    return part / np.maximum(whole, 1.0)


def _count(
    predictions: boxes.Predictions,
    ground_truths: boxes.GroundTruths,
    iou_thresholds: np.ndarray,
) -> np.ndarray:
    """Counts over some frames.

    Returns:
        True positives, false positives, false negatives and the sum of the
        true positives' heading accuracies, `[32, 101, 4]`.
    """
    predictions = boxes.select(predictions, predictions.type > 0)
    ground_truths = boxes.select(ground_truths, ground_truths.type != 0)
    overlaps = _overlaps(predictions, ground_truths, iou_thresholds)
    num_types = len(labels.TYPES) - 1
    return np.concatenate(
        [
            _count_shards(predictions, ground_truths, overlaps, *shards)
            for shards in (
                (_type_shard, num_types),
                (_range_shard, num_types * len(RANGES)),
            )
        ]
    )


def _type_shard(values: boxes.Boxes) -> np.ndarray:
    return np.abs(values.type) - 1


def _range_shard(values: boxes.Boxes) -> np.ndarray:
    distance = geometry.distance(values.bbox)
    place = np.searchsorted(RANGE_BOUNDS, distance, "right")
    return _type_shard(values) * len(RANGES) + place


def _overlaps(
    predictions: boxes.Predictions,
    ground_truths: boxes.GroundTruths,
    iou_thresholds: np.ndarray,
) -> matching.Overlaps:
    """Finds the pairs that may match at some cutoff."""
    first, second = _close_pairs(predictions, ground_truths)
    iou = geometry.iou(
        predictions.bbox[first], ground_truths.bbox[second]
    ).astype(np.float32)
    enough = iou >= iou_thresholds[predictions.type[first]]
    first, second, iou = first[enough], second[enough], iou[enough]
    return matching.Overlaps(
        first,
        second,
        np.floor(iou * _IOU_STEPS + np.float32(0.5)).astype(np.int64),
        _num_cutoffs(predictions)[first],
    )


def _close_pairs(
    predictions: boxes.Predictions, ground_truths: boxes.GroundTruths
) -> tuple[np.ndarray, np.ndarray]:
    """Lists pairs of one frame and type whose circumcircles meet.

    Neighbours pair with predictions of the type that they neighbour.
    """
    both = (predictions, ground_truths)
    ids = np.concatenate([values.frame_id for values in both])
    _, frame = np.unique(ids, return_inverse=True)
    group = frame * len(labels.TYPES) + np.concatenate(
        [np.abs(values.type) for values in both]
    )
    pairs = matching.pairs_within_groups(
        *np.split(group, [predictions.type.size])
    )
    ends = [
        geometry.birds_eye_view(values.bbox)[index]
        for values, index in zip(both, pairs, strict=True)
    ]
    apart = np.hypot(*(ends[0][:, :2] - ends[1][:, :2]).T)
    reach = sum(np.hypot(*values[:, 2:4].T) / 2.0 for values in ends)
    return tuple(index[apart <= reach] for index in pairs)


def _num_cutoffs(predictions: boxes.Predictions) -> np.ndarray:
    """Counts how many of the lowest cutoffs keep each prediction."""
    return np.searchsorted(CUTOFFS, predictions.score, "right")


def _count_shards(
    predictions: boxes.Predictions,
    ground_truths: boxes.GroundTruths,
    overlaps: matching.Overlaps,
    shard_of: Callable[[boxes.Boxes], np.ndarray],
    num_shards: int,
) -> np.ndarray:
    """Counts within each shard, `[2 num_shards, 101, 4]`."""
    of_predictions = shard_of(predictions)
    of_ground_truths = shard_of(ground_truths)
    matches = matching.match(
        overlaps.select(
            of_predictions[overlaps.prediction]
            == of_ground_truths[overlaps.ground_truth]
        )
    )

    def matched(weights: np.ndarray) -> np.ndarray:
        return _sums(
            of_predictions[matches.prediction],
            matches.start,
            matches.stop,
            weights,
            num_shards,
        )

    in_labelled_zone = ~predictions.overlap_nlz
    kept = _sums(
        of_predictions,
        np.zeros_like(of_predictions),
        _num_cutoffs(predictions),
        in_labelled_zone,
        num_shards,
    )
    is_real = ground_truths.type > 0
    hits = matched(is_real[matches.ground_truth])
    false_alarms = kept - matched(in_labelled_zone[matches.prediction])
    headings = matched(
        is_real[matches.ground_truth]
        * geometry.heading_accuracy(
            predictions.bbox[matches.prediction, -1],
            ground_truths.bbox[matches.ground_truth, -1],
        )
    )
    counts = []
    for level in LEVELS:
        counted = is_real & (ground_truths.difficulty <= level)
        total = np.bincount(of_ground_truths, counted, num_shards)
        misses = total[:, None] - matched(counted[matches.ground_truth])
        counts.append(np.stack([hits, false_alarms, misses, headings], axis=-1))
    return np.stack(counts, axis=1).reshape(-1, CUTOFFS.size, 4)


def _sums(
    shard: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
    weights: np.ndarray,
    num_shards: int,
) -> np.ndarray:
    """Sums weights that hold for a range of cutoffs, `[num_shards, 101]`."""
    size = CUTOFFS.size + 1
    changes = np.bincount(
        shard * size + start, weights, num_shards * size
    ) - np.bincount(shard * size + stop, weights, num_shards * size)
    return np.cumsum(changes.reshape(num_shards, size), axis=1)[:, :-1]
