"""What tests of the detection metric share.

The scenes `tests/oracle/waymo/*.npz` hold the official op's arguments and its
results, of release 1.6.7 with its default configuration: AP, APH, and at each
cutoff precision, recall, TP, FP and FN (`pr`), and precision weighted by
heading (`prh`).
"""

import pathlib

import numpy as np
import pytest

from trainers.detection import boxes

ORACLE = pathlib.Path(__file__).parents[2] / "oracle" / "waymo"
SCENES = ("vehicle_basic", "vehicle_nlz", "no_ground_truth", "all_types")


def load(name):
    """Reads a scene: predictions, ground truth, and all its arrays."""
    with np.load(ORACLE / f"{name}.npz") as archive:
        arrays = dict(archive)
    return *(
        kind(*(arrays[prefix + field] for field in kind._fields))
        for kind, prefix in boxes.PREFIXES.items()
    ), arrays


def predictions(bbox, score, type=1, frame_id=0, overlap_nlz=False):
    """Makes predictions; a single value is that of all."""
    return _boxes(
        boxes.Predictions, bbox,
        score=score, type=type, frame_id=frame_id, overlap_nlz=overlap_nlz,
    )  # fmt: skip


def ground_truths(bbox, type=1, frame_id=0, difficulty=1):
    """Makes ground-truth boxes; a single value is that of all."""
    return _boxes(
        boxes.GroundTruths, bbox,
        type=type, frame_id=frame_id, difficulty=difficulty,
    )  # fmt: skip


def _boxes(kind, bbox, **values):
    bbox = np.reshape(np.asarray(bbox, float), (-1, np.shape(bbox)[-1]))
    values = {
        name: np.broadcast_to(value, len(bbox)).copy()
        for name, value in values.items()
    }
    return kind(bbox=bbox, **values)


def messages():
    """Imports the official messages, or skips the test."""
    try:
        from waymo_open_dataset.protos import metrics_pb2
    except Exception as error:
        pytest.skip(f"the official messages cannot be imported: {error}")
    return metrics_pb2
