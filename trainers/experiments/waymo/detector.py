"""What a trained detector finds in frames, beside what is there."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.lidar import examples as lidar_examples
from data.lidar import sets
from trainers.detection import boxes as box_lib
from trainers.detection import metric, pictures
from trainers.models.pointpillars import decoding, pillars
from trainers.models.pointpillars.presets import Preset
from trainers.training import distribution, exchange, workers

_LABELS = ("boxes", "types", "difficulties", "num_points", "segment", "frame")
_SEED = (0, 0)
_VEHICLE = "VEHICLE"
# The names of AP and APH in logs: box type, level and the vehicles' IoU.
_MEASURED = {
    "3d": ("3d", 1, 0.7),
    "bev": ("2d", 1, 0.7),
    "3d_level_2": ("3d", 2, 0.7),
    "3d_iou_50": ("3d", 1, 0.5),
}


def encode_frames(
    examples: tf.data.Dataset, preset: Preset, batch_size: int
) -> tf.data.Dataset:
    """Makes batches for `Detector.detect` of examples.

    Args:
        examples: See `data.lidar_examples`.
        preset: Values of the detector.
        batch_size: Frames in a batch.

    Returns:
        Pairs of the network's inputs, and of what is known of the frames:
        their labels, `number`, and `unlabelled`, the points in no-label zones.
    """

    def encode(number, example):
        frame = sets.vehicles(example)
        unlabelled = tf.boolean_mask(
            example["points"][:, :3], example["in_no_label_zone"]
        )
        known = {name: example[name] for name in _LABELS}
        return (
            pillars.pillarize(frame["points"], preset, _SEED),
            {**known, "number": number, "unlabelled": unlabelled},
        )

    return (
        examples.enumerate()
        .map(encode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ragged_batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


class Found(NamedTuple):
    """Predicted and true boxes of some frames.

    Attributes:
        predictions: What was found; `frame_id` is the frame's number.
        ground_truths: The vehicles that hold lidar points.
        frames: Segment and frame of each number.
        num_left_out: How many true vehicles hold no lidar point.
    """

    predictions: box_lib.Predictions
    ground_truths: box_lib.GroundTruths
    frames: Mapping[int, tuple[str, str]]
    num_left_out: int


class Detector:
    """A model that detects vehicles, on all replicas of its strategy.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
        worker: Which of several processes this is; by default it is alone.
    """

    def __init__(
        self,
        model: keras.Model,
        preset: Preset,
        worker: workers.Worker | None = None,
    ):
        def find(inputs):
            return decoding.detect(model(inputs, training=False), preset)

        self._find = distribution.BatchFunction(
            model.distribute_strategy, worker or workers.Worker(), find
        )

    def detect(self, batches: tf.data.Dataset) -> Iterator[Found]:
        """Finds vehicles in this worker's share of the batches.

        Args:
            batches: As from `encode_frames`.

        Yields:
            What was found in each batch.
        """
        for known, found in self._find(batches):
            yield join(list(_compare(known, found)))


def _compare(
    known: Mapping[str, tf.Tensor | tf.RaggedTensor],
    found: Mapping[str, tf.Tensor],
) -> Iterator[Found]:
    """Takes a batch apart."""
    found = {name: values.numpy() for name, values in found.items()}
    for row, number in enumerate(known["number"].numpy()):
        frame = {name: values[row].numpy() for name, values in known.items()}
        count = found["num_detections"][row]
        bbox = found["boxes"][row, :count]
        unlabelled = lidar_examples.count_points(frame["unlabelled"], bbox)
        predictions = box_lib.Predictions(
            frame_id=np.full(count, number),
            bbox=bbox,
            type=np.full(count, lidar_examples.VEHICLE),
            score=found["scores"][row, :count],
            overlap_nlz=unlabelled > 0,
        )
        is_vehicle = frame["types"] == lidar_examples.VEHICLE
        counted = is_vehicle & (frame["num_points"] > 0)
        ground_truths = box_lib.GroundTruths(
            frame_id=np.full(counted.sum(), number),
            bbox=frame["boxes"][counted],
            type=frame["types"][counted],
            difficulty=frame["difficulties"][counted],
        )
        name = frame["segment"].decode(), frame["frame"].decode()
        left_out = int(is_vehicle.sum() - counted.sum())
        yield Found(predictions, ground_truths, {number: name}, left_out)


def join(parts: Sequence[Found]) -> Found:
    """Puts what was found in different frames together."""
    predictions, ground_truths, frames, num_left_out = zip(*parts, strict=True)
    return Found(
        _concatenated(predictions),
        _concatenated(ground_truths),
        {number: name for part in frames for number, name in part.items()},
        sum(num_left_out),
    )


def _concatenated(parts: Sequence[box_lib.Boxes]) -> box_lib.Boxes:
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def draw_frames(
    model: keras.Model, preset: Preset, examples: tf.data.Dataset
) -> list[pictures.Picture]:
    """Looks at frames, on one device.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
        examples: The frames, few enough to keep all their points.

    Returns:
        What is to be drawn of each.
    """
    detector = Detector(model, preset)
    found = detector.detect(encode_frames(examples, preset, batch_size=1))
    seen = []
    for example, (predictions, ground_truths, names, _) in zip(
        examples.as_numpy_iterator(), found, strict=True
    ):
        segment, frame = names[len(seen)]
        seen.append(
            pictures.Picture(
                title=f"{segment}, {frame}",
                points=example["points"][:, :3],
                true_boxes=ground_truths.bbox,
                predicted_boxes=predictions.bbox,
                scores=predictions.score,
                x_range=preset.grid.x_range,
                y_range=preset.grid.y_range,
            )
        )
    return seen


class MeasureDetections(keras.callbacks.Callback):
    """Adds AP and APH of vehicles to the logs of every epoch.

    These are `val_ap_NAME` and `val_aph_NAME`, NAME being `3d`, `bev` (bird's
    eye view), `3d_level_2`, or `3d_iou_50`, for which boxes match from an IoU
    of 0.5 on.

    Args:
        preset: Values of the detector.
        batches: What to detect in, as from `encode_frames`.
        ap_rule: See `detection.average_precision`.
        worker: Which of several processes this is; by default it is alone.
    """

    def __init__(
        self,
        preset: Preset,
        batches: tf.data.Dataset,
        ap_rule: str = "2022",
        worker: workers.Worker | None = None,
    ):
        super().__init__()
        self._preset = preset
        self._batches = batches
        self._ap_rule = ap_rule
        self._worker = worker or workers.Worker()

    def on_train_begin(self, logs=None):
        """Gets ready to detect with the model."""
        self._detector = Detector(self.model, self._preset, self._worker)
        self._gather = exchange.Gathering(
            self.model.distribute_strategy, self._worker
        )

    def on_epoch_end(self, epoch, logs=None):
        """Measures."""
        metrics = {
            (box_type, iou): metric.DetectionMetric(
                box_type, os.cpu_count(), {_VEHICLE: iou}
            )
            for box_type, _, iou in _MEASURED.values()
        }
        for found in self._detector.detect(self._batches):
            for each in metrics.values():
                each.update(found.predictions, found.ground_truths)
        results = {}
        for key, each in metrics.items():
            each.counts = self._gather.sum(each.counts)
            results[key] = each.result(self._ap_rule).by_name()
        for name, (box_type, level, iou) in _MEASURED.items():
            values = results[box_type, iou][metric.breakdown(_VEHICLE, level)]
            logs[f"val_ap_{name}"] = values["ap"]
            logs[f"val_aph_{name}"] = values["aph"]
