"""Boxes in files: the official `Objects` messages, and NumPy's .npz.

A .bin file holds one message `waymo.open_dataset.Objects` (metrics.proto), as
the official command-line tool reads it. An .npz file holds the arguments of
the official op by their names, `prediction_frame_id`, `ground_truth_bbox` and
so on; predictions and ground truth may be in one file.
"""

import operator
import pathlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from google.protobuf import message as protobuf_message

from data.lidar import labels
from trainers import errors, files
from trainers.detection import boxes

_BOX_FIELDS = {
    7: (
        "center_x", "center_y", "center_z",
        "length", "width", "height", "heading",
    ),
    5: ("center_x", "center_y", "length", "width", "heading"),
}  # fmt: skip
_OP_DTYPES = {
    "frame_id": np.int64,
    "bbox": np.float32,
    "type": np.uint8,
    "score": np.float32,
    "overlap_nlz": np.bool_,
    "difficulty": np.uint8,
}


class Frame(NamedTuple):
    """The identity of a frame in an `Objects` message.

    A frame of an .npz file has its id as timestamp, and nothing else.
    """

    context_name: str
    frame_timestamp_micros: int
    camera_name: int = 0


class Scenes(NamedTuple):
    """The content of a file of predictions and one of ground truth.

    Attributes:
        predictions: All predictions; `frame_id` indexes `frames`.
        ground_truths: The ground-truth boxes that count, and neighbours;
            `frame_id` as well.
        frames: The frames of both.
        num_left_out: How many ground-truth boxes hold no lidar point.
    """

    predictions: boxes.Predictions
    ground_truths: boxes.GroundTruths
    frames: Sequence[Frame]
    num_left_out: int


def read(predictions: pathlib.Path, ground_truths: pathlib.Path) -> Scenes:
    """Reads predictions and ground truth as the official tool does.

    True boxes of a .bin file that hold no lidar point are left out, and those
    without a difficulty get one by the number of their points. In an .npz
    file both has been done.

    Args:
        predictions: A .bin or .npz file.
        ground_truths: A .bin or .npz file.

    Returns:
        The contents of both, with one numbering of the frames.

    Raises:
        UserError: For a file that cannot be read, or a box that cannot be
            measured.
    """
    predicted = _read(predictions, boxes.Predictions)
    real = _read(ground_truths, boxes.GroundTruths)
    frames = list(dict.fromkeys([*predicted.frames, *real.frames]))
    numbers = {frame: number for number, frame in enumerate(frames)}
    both = []
    for contents in (predicted, real):
        renumbered = np.array(
            [numbers[frame] for frame in contents.frames], int
        )
        frame_id = renumbered[contents.boxes.frame_id]
        both.append(contents.boxes._replace(frame_id=frame_id))
    return Scenes(*both, frames, real.num_left_out)


def write_predictions(
    path: pathlib.Path,
    predictions: boxes.Predictions,
    frames: Sequence[Frame],
) -> None:
    """Writes predictions as an official `Objects` file.

    Args:
        path: The .bin file to replace or create.
        predictions: Predicted boxes in 3D or 2D.
        frames: What `predictions.frame_id` indexes.

    Raises:
        UserError: Where the official messages cannot be imported.
    """
    message = _messages().Objects()
    columns = (values.tolist() for values in boxes.checked(predictions))
    for frame, bbox, type_, score, overlap_nlz in zip(*columns, strict=True):
        added = message.objects.add(
            score=score,
            overlap_with_nlz=overlap_nlz,
            **frames[frame]._asdict(),
        )
        added.object.type = type_
        for field, value in zip(_BOX_FIELDS[len(bbox)], bbox, strict=True):
            setattr(added.object.box, field, value)
    with files.replacing(path) as file:
        file.write(message.SerializeToString())


def write_arguments(
    path: pathlib.Path,
    predictions: boxes.Predictions,
    ground_truths: boxes.GroundTruths,
) -> None:
    """Writes the official op's arguments, in its dtypes, as an .npz file.

    Neighbours of types are left out: the op has none.
    """
    ground_truths = boxes.without_neighbours(ground_truths)
    arguments = {
        boxes.PREFIXES[type(both)] + field: values.astype(_OP_DTYPES[field])
        for both in (predictions, ground_truths)
        for field, values in both._asdict().items()
    }
    with files.replacing(path) as file:
        np.savez(file, **arguments)


class _Contents(NamedTuple):
    boxes: Any
    frames: Sequence[Frame]
    num_left_out: int = 0


def _read(path: pathlib.Path, kind: type) -> _Contents:
    readers = {".bin": _read_objects, ".npz": _read_arguments}
    if path.suffix not in readers:
        raise errors.UserError(
            f"{path}: expected a name that ends in .bin (official `Objects`) "
            "or .npz (the official op's arguments)."
        )
    try:
        return readers[path.suffix](path, kind)
    except OSError as error:
        raise errors.UserError(
            f"{path}: {error.strerror or error}; give a .bin or .npz file "
            "that can be read."
        ) from None
    except ValueError as error:
        raise errors.UserError(f"{path}: {error}") from None


def _read_arguments(path: pathlib.Path, kind: type) -> _Contents:
    names = [boxes.PREFIXES[kind] + field for field in kind._fields]
    with open(path, "rb") as file:
        try:
            with np.load(file) as archive:
                found = {n: archive[n] for n in names if n in archive}
        # A damaged archive fails in many ways.
        except Exception as error:
            raise ValueError(
                f"is a damaged .npz file ({error}); write or copy it again."
            ) from None
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(
            f"got no {', '.join(missing)}, expected the official op's "
            "arguments; add them."
        )
    values = boxes.checked(kind(*(found[name] for name in names)))
    ids, frame_id = np.unique(values.frame_id, return_inverse=True)
    frames = [Frame("", number) for number in ids.tolist()]
    return _Contents(values._replace(frame_id=frame_id), frames)


def _read_objects(path: pathlib.Path, kind: type) -> _Contents:
    objects = _parse(path)
    frames = {}
    box_values = operator.attrgetter(*_BOX_FIELDS[7])
    shared = {
        "frame_id": [
            frames.setdefault(_frame(item), len(frames)) for item in objects
        ],
        "bbox": np.reshape(
            [box_values(item.object.box) for item in objects], (-1, 7)
        ),
        "type": [item.object.type for item in objects],
    }
    if kind is boxes.Predictions:
        predictions = boxes.Predictions(
            **shared,
            score=[item.score for item in objects],
            overlap_nlz=[item.overlap_with_nlz for item in objects],
        )
        return _Contents(boxes.checked(predictions), list(frames))
    if not objects:
        raise ValueError("holds no objects; expected ground-truth boxes.")
    num_points = np.array(
        [item.object.num_lidar_points_in_box for item in objects]
    )
    levels = np.array(
        [item.object.detection_difficulty_level for item in objects]
    )
    ground_truths = boxes.checked(
        boxes.GroundTruths(
            **shared, difficulty=labels.difficulties(levels, num_points)
        )
    )
    counted = num_points > 0
    return _Contents(
        boxes.select(ground_truths, counted),
        list(frames),
        int(np.sum(~counted)),
    )


def _frame(item: Any) -> Frame:
    return Frame(
        item.context_name, item.frame_timestamp_micros, item.camera_name
    )


def _parse(path: pathlib.Path) -> Sequence[Any]:
    """Reads the objects of a .bin file."""
    messages = _messages()
    try:
        objects = messages.Objects.FromString(path.read_bytes()).objects
    except protobuf_message.DecodeError as error:
        raise ValueError(
            f"is a damaged `Objects` message ({error}); write or copy it again."
        ) from None
    for record, item in enumerate(objects):
        if not item.object.HasField("box"):
            raise ValueError(
                f"objects[{record}]: got no box, expected one; remove or "
                "repair the record."
            )
    return objects


def _messages() -> ModuleType:
    """Imports the official messages, if they are installed."""
    try:
        from waymo_open_dataset.protos import metrics_pb2
    # The error depends on the releases of other packages.
    except Exception as error:
        raise errors.UserError(
            f"the official messages cannot be imported ({error}); `make setup` "
            "installs them, and .npz files need none."
        ) from None
    return metrics_pb2
