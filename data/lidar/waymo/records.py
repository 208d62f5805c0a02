"""Reads v1 of the data set: TFRecords of `Frame` messages."""

import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from google.protobuf import message

from data.lidar import examples
from data.lidar.waymo import messages, range_images, scans

# Around a record: its length, and a checksum of that and of the record.
_FRAMING_BYTES = 8 + 4 + 4
# The name and arguments of the operation in TensorFlow's messages.
_NODE = re.compile(r"\{\{.*?\}\} ?| \[Op:.*|\n.*", re.DOTALL)

_DAMAGE = re.compile(r"(truncated|corrupted) record at (\d+)")


def read(
    path: str | os.PathLike,
    on_counted: Callable[[int], None] = scans.pass_over,
) -> Iterator[examples.Example]:
    """Reads a segment, one frame at a time.

    Args:
        path: A TFRecord file of `Frame` messages.
        on_counted: See `scans.make_example`.

    Yields:
        An example for each frame, see `data.lidar.examples`.

    Raises:
        LidarDataError: If there is no record, or for the first one that is
            damaged or no usable frame; the message names file and record.
    """
    index = -1
    for index, record in enumerate(_records(path)):
        with examples.located(f"{path}, record {index}"):
            example = decode(parse(record), on_counted)
        yield example
    if index < 0:
        raise examples.LidarDataError(
            f"{path}: got no records, expected a frame in each."
        )


def _records(path: str | os.PathLike) -> Iterator[bytes]:
    records = iter(tf.data.TFRecordDataset(os.fspath(path)))
    index = num_bytes = 0
    while True:
        try:
            record = next(records, None)
        except tf.errors.OpError as error:
            raise examples.LidarDataError(
                f"{path}, record {index}: cannot be read "
                f"({_reason(error.message)})."
            ) from error
        if record is None:
            break
        record = record.numpy()
        yield record
        index += 1
        num_bytes += len(record) + _FRAMING_BYTES
    # TensorFlow ignores a rest shorter than the head of a record.
    num_expected = tf.io.gfile.stat(os.fspath(path)).length
    if num_bytes != num_expected:
        raise examples.LidarDataError(
            f"{path}, record {index}: cannot be read (truncated record at "
            f"byte {num_bytes} of {num_expected})."
        )


def _reason(message: str) -> str:
    damage = _DAMAGE.search(message)
    if damage is None:
        return _NODE.sub("", message)
    return "{} record at byte {}".format(*damage.groups())


def parse(record: bytes):
    """Parses a record.

    Args:
        record: A serialized `Frame`.

    Returns:
        The `Frame`.

    Raises:
        LidarDataError: If it is something else, or the official package is
            not installed.
    """
    return _parsed(messages.load().Frame, record)


def _parsed(message_class, data: bytes):
    try:
        return message_class.FromString(data)
    except message.DecodeError as error:
        raise examples.LidarDataError(
            f"got {len(data)} bytes that are not a {message_class.__name__} "
            f"message ({error})."
        ) from error


def decode(
    frame, on_counted: Callable[[int], None] = scans.pass_over
) -> examples.Example:
    """Turns a frame into a training example.

    Args:
        frame: The `Frame`.
        on_counted: See `scans.make_example`.

    Returns:
        The example, see `scans.make_example`.

    Raises:
        LidarDataError: If the frame is damaged or incomplete.
    """
    measured = {}
    for laser in frame.lasers:
        with examples.located(scans.lidar_text(laser.name)):
            if laser.name in measured:
                raise examples.LidarDataError("got it twice.")
            measured[laser.name] = _scan(laser)
    calibrations = {}
    for calibration in frame.context.laser_calibrations:
        with examples.located(scans.lidar_text(calibration.name)):
            calibrations[calibration.name] = range_images.Calibration(
                scans.matrix(calibration.extrinsic.transform, "extrinsic"),
                np.array(calibration.beam_inclinations, np.float64),
                (
                    calibration.beam_inclination_min,
                    calibration.beam_inclination_max,
                ),
            )
    return scans.make_example(
        measured,
        calibrations,
        scans.matrix(frame.pose.transform, "vehicle pose"),
        _labels(frame.laser_labels),
        segment=frame.context.name,
        frame=str(frame.timestamp_micros),
        on_counted=on_counted,
    )


def _scan(laser) -> scans.Scan:
    images = {
        number: _image(part.range_image_compressed, f"return {number}")
        for number, part in (
            (examples.FIRST_RETURN, laser.ri_return1),
            (examples.SECOND_RETURN, laser.ri_return2),
        )
        if part.range_image_compressed
    }
    poses = laser.ri_return1.range_image_pose_compressed
    if laser.name != scans.TOP or not poses:
        return scans.Scan(images)
    return scans.Scan(images, _image(poses, "pixel poses"))


def _image(compressed: bytes, name: str) -> np.ndarray:
    with examples.located(name):
        matrix = _parsed(
            messages.load().MatrixFloat, range_images.inflate(compressed)
        )
        return range_images.image_of(
            np.array(matrix.data, np.float32), tuple(matrix.shape.dims)
        )


def _labels(found) -> list[scans.Label]:
    has_numbers = any(
        label.HasField("num_lidar_points_in_box") for label in found
    )
    return [_label(label, has_numbers) for label in found]


def _label(label, has_number: bool) -> scans.Label:
    box = label.box
    return scans.Label(
        (
            box.center_x,
            box.center_y,
            box.center_z,
            box.length,
            box.width,
            box.height,
            box.heading,
        ),
        label.type,
        label.detection_difficulty_level,
        label.num_lidar_points_in_box if has_number else None,
    )
