"""Predicted and ground-truth boxes of many frames, as arrays.

The fields have the names of the official op's arguments without their
`prediction_` and `ground_truth_`.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from data.lidar import labels
from trainers.detection import geometry

BOX_TYPES = ("3d", "2d")


class Predictions(NamedTuple):
    """Predicted boxes, `[n]` of them.

    Attributes:
        frame_id: Integers `[n]`: the frame that a box is in.
        bbox: Boxes `[n, 7]` or `[n, 5]`, see `geometry`.
        type: Integers `[n]`, indices into `labels.TYPES`; the unknown type
            counts nowhere.
        score: Numbers `[n]`; a cutoff keeps those that reach it.
        overlap_nlz: Booleans `[n]`: whether it overlaps a no-label zone.
    """

    frame_id: np.ndarray
    bbox: np.ndarray
    type: np.ndarray
    score: np.ndarray
    overlap_nlz: np.ndarray


class GroundTruths(NamedTuple):
    """Ground-truth boxes, `[n]` of them.

    Attributes:
        frame_id: Integers `[n]`: the frame that a box is in.
        bbox: Boxes `[n, 7]` or `[n, 5]`, see `geometry`.
        type: Integers `[n]`, indices into `labels.TYPES`; the unknown type
            counts nowhere. A negative one is a neighbour of the type, such as
            `labels.VEHICLE_NEIGHBOUR`: it is no ground truth itself, and a
            prediction that matches it is left out.
        difficulty: Integers `[n]`, indices into `labels.DIFFICULTIES`; unknown
            counts as LEVEL_1, as in the official op.
    """

    frame_id: np.ndarray
    bbox: np.ndarray
    type: np.ndarray
    difficulty: np.ndarray


Boxes = TypeVar("Boxes", Predictions, GroundTruths)
PREFIXES = {Predictions: "prediction_", GroundTruths: "ground_truth_"}
# Accepted kinds of dtypes, their name in messages, the resulting dtype.
_DTYPES = {
    "frame_id": ("iu", "integers", np.int64),
    "bbox": ("fiu", "numbers", np.float64),
    "type": ("iu", "integers", np.int64),
    "score": ("fiu", "numbers", np.float32),
    "overlap_nlz": ("b", "booleans", np.bool_),
    "difficulty": ("iu", "integers", np.int64),
}
_NAMES = {"type": labels.TYPES, "difficulty": labels.DIFFICULTIES}


def select(boxes: Boxes, index: np.ndarray | slice) -> Boxes:
    """Picks some of the boxes, by indices, a mask or a slice."""
    return type(boxes)(*(values[index] for values in boxes))


def without_neighbours(ground_truths: GroundTruths) -> GroundTruths:
    """Picks the boxes that are to be found."""
    return select(ground_truths, ground_truths.type >= 0)


def checked(boxes: Boxes) -> Boxes:
    """Validates boxes and converts them to one set of dtypes.

    Args:
        boxes: Arrays, or what NumPy makes arrays of.

    Returns:
        The same as int64, float64 (boxes), float32 (scores) and booleans.

    Raises:
        ValueError: For other dtypes, shapes that do not fit, values that are
            not finite, types and difficulties that do not exist; with the
            first such record.
    """
    prefix = PREFIXES[type(boxes)]
    found = {}
    for field, values in boxes._asdict().items():
        kinds, expected, dtype = _DTYPES[field]
        values = np.asarray(values)
        if values.size and values.dtype.kind not in kinds:
            raise ValueError(
                f"{prefix}{field}: got dtype {values.dtype}, expected "
                f"{expected}."
            )
        _check_shape(prefix, field, values, np.shape(boxes.frame_id))
        _check_values(prefix, field, values)
        found[field] = values.astype(dtype)
    return type(boxes)(**found)


def _check_shape(
    prefix: str, field: str, values: np.ndarray, of_ids: tuple[int, ...]
) -> None:
    num_boxes = of_ids[0] if of_ids else 0
    expected = [(num_boxes,)]
    if field == "bbox":
        expected = [(num_boxes, 7), (num_boxes, 5)]
    if values.shape not in expected:
        raise ValueError(
            f"{prefix}{field}: got shape {values.shape}, expected "
            f"{' or '.join(map(str, expected))}, one record for each in "
            f"{prefix}frame_id."
        )


def _check_values(prefix: str, field: str, values: np.ndarray) -> None:
    is_wrong = ~np.isfinite(values)
    expected = "finite numbers"
    if field in _NAMES:
        names = _NAMES[field]
        # Only ground truth has neighbours, of negative type.
        has_neighbours = prefix + field == "ground_truth_type"
        numbers = np.abs(values) if has_neighbours else values
        is_wrong = (numbers < 0) | (numbers >= len(names))
        expected = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
    records = np.flatnonzero(is_wrong.any(axis=tuple(range(1, values.ndim))))
    if records.size:
        first = records[0]
        more = f" (and {records.size - 1} more)" if records.size > 1 else ""
        raise ValueError(
            f"{prefix}{field}[{first}]{more}: got {values[first].tolist()}, "
            f"expected {expected}; remove or repair the record."
        )


def check_box_type(box_type: str) -> None:
    """Raises a `ValueError` if a type is not one of `BOX_TYPES`."""
    if box_type not in BOX_TYPES:
        raise ValueError(
            f"box_type: got {box_type!r}, expected one of "
            f"{', '.join(BOX_TYPES)}."
        )


def convert_box_type(boxes: Boxes, box_type: str) -> Boxes:
    """Converts boxes to seven values for "3d", five for "2d".

    Raises:
        ValueError: Where 3D needs more values than there are.
    """
    if box_type == "2d":
        return boxes._replace(bbox=geometry.birds_eye_view(boxes.bbox))
    if boxes.bbox.shape[1] == 5:
        raise ValueError(
            f"{PREFIXES[type(boxes)]}bbox: got 5 values a box, expected 7 for "
            "the box type 3d; measure them as 2d."
        )
    return boxes


def batches(
    predictions: Predictions, ground_truths: GroundTruths, num_pairs: int
) -> Iterator[tuple[Predictions, GroundTruths]]:
    """Splits boxes into parts with whole frames.

    Args:
        predictions: Of all frames.
        ground_truths: Of all frames.
        num_pairs: About how many pairs of a prediction and a true box of the
            same frame a part may have; one frame may have more.

    Yields:
        The boxes of some of the frames.
    """
    both = [
        select(boxes, np.argsort(boxes.frame_id, kind="stable"))
        for boxes in (predictions, ground_truths)
    ]
    frames = np.unique(np.concatenate([boxes.frame_id for boxes in both]))
    ends = np.array(
        [np.searchsorted(boxes.frame_id, frames, "right") for boxes in both]
    )
    pairs = np.prod(np.diff(ends, prepend=0), axis=0)
    part = np.cumsum(pairs) // num_pairs
    starts = (0, 0)
    for last in np.flatnonzero(np.diff(part, append=-1)):
        stops = ends[:, last]
        yield tuple(
            select(boxes, slice(start, stop))
            for boxes, start, stop in zip(both, starts, stops, strict=True)
        )
        starts = stops
