"""A trained detector: what it finds in frames, next to their labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from data.lidar import labels
from trainers.detection import boxes, pictures
from trainers.experiments.waymo import frames
from trainers.models.pointpillars import decoding, losses
from trainers.models.pointpillars.presets import Preset
from trainers.training import distribution, workers


class Found(NamedTuple):
    """Predicted and ground-truth boxes of some frames.

    Attributes:
        predictions: The detections; `frame_id` is the frame's number.
        ground_truths: The vehicles that hold lidar points, and the
            neighbours of vehicles.
        frames: Segment and frame of each number.
        num_left_out: How many labelled vehicles hold no lidar point.
        losses: The losses of each frame, `[n, 9]` in the order of
            `losses.LOSS_NAMES`.
    """

    predictions: boxes.Predictions
    ground_truths: boxes.GroundTruths
    frames: Mapping[int, tuple[str, str]]
    num_left_out: int
    losses: np.ndarray


class Detector:
    """Detects vehicles with a model, on all replicas of its strategy.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
        worker: This worker; by default the only one.
    """

    def __init__(
        self,
        model: keras.Model,
        preset: Preset,
        worker: workers.Worker | None = None,
    ):
        def find(batch):
            inputs, targets = batch
            outputs = model(inputs, training=False)
            return {
                **decoding.detect(outputs, preset),
                "losses": losses.compute_per_frame(targets, outputs),
            }

        self._find = distribution.BatchFunction(
            model.distribute_strategy, worker or workers.Worker(), find
        )

    def detect(self, batches: tf.data.Dataset) -> Iterator[Found]:
        """Detects vehicles in this worker's share of the batches.

        The network runs once for each frame.

        Args:
            batches: As from `frames.evaluation_batches`.

        Yields:
            The detections and losses of each batch.
        """
        for known, found in self._find(batches):
            yield join(list(_split(known, found)))


def _split(
    known: Mapping[str, tf.Tensor | tf.RaggedTensor],
    found: Mapping[str, tf.Tensor],
) -> Iterator[Found]:
    """Splits a batch into its frames."""
    found = {name: values.numpy() for name, values in found.items()}
    for row, number in enumerate(known["number"].numpy()):
        frame = {name: values[row].numpy() for name, values in known.items()}
        count = found["num_detections"][row]
        bbox = found["boxes"][row, :count]
        unlabelled = labels.count_points(frame["unlabelled"], bbox)
        predictions = boxes.Predictions(
            frame_id=np.full(count, number),
            bbox=bbox,
            type=np.full(count, labels.VEHICLE),
            score=found["scores"][row, :count],
            overlap_nlz=unlabelled > 0,
        )
        is_vehicle = frame["types"] == labels.VEHICLE
        counted = is_vehicle & (frame["num_points"] > 0)
        listed = counted | (frame["types"] == labels.VEHICLE_NEIGHBOUR)
        ground_truths = boxes.GroundTruths(
            frame_id=np.full(listed.sum(), number),
            bbox=frame["boxes"][listed],
            type=frame["types"][listed],
            difficulty=frame["difficulties"][listed],
        )
        name = frame["segment"].decode(), frame["frame"].decode()
        yield Found(
            predictions,
            ground_truths,
            {number: name},
            num_left_out=int(is_vehicle.sum() - counted.sum()),
            losses=found["losses"][row : row + 1],
        )


def join(parts: Sequence[Found]) -> Found:
    """Joins the detections and losses of different frames."""
    predictions, ground_truths, names, num_left_out, values = zip(
        *parts, strict=True
    )
    return Found(
        _concatenated(predictions),
        _concatenated(ground_truths),
        {number: name for part in names for number, name in part.items()},
        sum(num_left_out),
        np.concatenate(values),
    )


def _concatenated(parts: Sequence[boxes.Boxes]) -> boxes.Boxes:
    return type(parts[0])(*map(np.concatenate, zip(*parts, strict=True)))


def draw_frames(
    model: keras.Model, preset: Preset, examples: tf.data.Dataset
) -> list[pictures.Picture]:
    """Draws frames and the vehicles detected in them, on one device.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
        examples: The frames, few enough to keep all their points.

    Returns:
        A picture of each frame.
    """
    detector = Detector(model, preset)
    batches = frames.evaluation_batches(examples, preset, batch_size=1)
    drawn = []
    for example, found in zip(
        examples.as_numpy_iterator(), detector.detect(batches), strict=True
    ):
        segment, frame = found.frames[len(drawn)]
        drawn.append(
            pictures.Picture(
                title=f"{segment}, {frame}",
                points=example["points"][:, :3],
                true_boxes=boxes.without_neighbours(found.ground_truths).bbox,
                predicted_boxes=found.predictions.bbox,
                scores=found.predictions.score,
                x_range=preset.grid.x_range,
                y_range=preset.grid.y_range,
            )
        )
    return drawn
