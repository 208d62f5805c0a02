"""Losses and average precision on held-out frames."""

import os

import keras
import numpy as np
import tensorflow as tf

from trainers.detection import breakdowns, metric
from trainers.experiments.waymo import detector
from trainers.models.pointpillars import losses
from trainers.models.pointpillars.presets import Preset
from trainers.training import exchange, workers

_VEHICLE = "VEHICLE"
# The names of AP and APH in logs: box type, level and the vehicles' IoU.
_MEASURED = {
    "3d": ("3d", 1, 0.7),
    "bev": ("2d", 1, 0.7),
    "3d_level_2": ("3d", 2, 0.7),
    "3d_iou_50": ("3d", 1, 0.5),
}


class Evaluation:
    """Measures a detector in one pass over the frames.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
        batches: The frames, as from `frames.evaluation_batches`.
        ap_rule: See `detection.average_precision`.
        worker: This worker; by default the only one.
    """

    def __init__(
        self,
        model: keras.Model,
        preset: Preset,
        batches: tf.data.Dataset,
        ap_rule: str = "2022",
        worker: workers.Worker | None = None,
    ):
        worker = worker or workers.Worker()
        self._detector = detector.Detector(model, preset, worker)
        self._gather = exchange.Gathering(model.distribute_strategy, worker)
        self._batches = batches
        self._ap_rule = ap_rule

    def __call__(self) -> dict[str, float]:
        """Measures the model as it is now, over all workers.

        Returns:
            `loss`, `NAME_loss` of each loss, and `ap_NAME` and `aph_NAME` of
            vehicles, NAME being `3d`, `bev` (bird's eye view), `3d_level_2`,
            or `3d_iou_50`, for which boxes match from an IoU of 0.5 on.
        """
        metrics = {
            (box_type, iou): metric.DetectionMetric(
                box_type, os.cpu_count(), {_VEHICLE: iou}
            )
            for box_type, _, iou in _MEASURED.values()
        }
        # The number of frames, and the sum of each loss.
        sums = np.zeros([1 + len(losses.LOSS_NAMES)])
        for found in self._detector.detect(self._batches):
            sums += [len(found.losses), *found.losses.sum(axis=0)]
            for each in metrics.values():
                each.update(found.predictions, found.ground_truths)
        count, *totals = self._gather.sum(sums)
        for each in metrics.values():
            each.counts = self._gather.sum(each.counts)
        return {
            **_mean_losses(np.divide(totals, count)),
            **_average_precisions(metrics, self._ap_rule),
        }


def _mean_losses(means: np.ndarray) -> dict[str, float]:
    named = dict(zip(losses.LOSS_NAMES, means.tolist(), strict=True))
    total = sum(
        losses.LOSS_WEIGHTS[name] * value for name, value in named.items()
    )
    logs = {f"{name}_loss": value for name, value in named.items()}
    return dict(sorted({**logs, "loss": total}.items()))


def _average_precisions(metrics, ap_rule: str) -> dict[str, float]:
    logs = {}
    for name, (box_type, level, iou) in _MEASURED.items():
        results = metrics[box_type, iou].result(ap_rule).by_name()
        values = results[breakdowns.breakdown(_VEHICLE, level)]
        logs[f"ap_{name}"] = values["ap"]
        logs[f"aph_{name}"] = values["aph"]
    return logs
