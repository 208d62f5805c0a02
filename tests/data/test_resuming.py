"""No pipeline decodes an example before the step it resumes at."""

import functools

import pytest
import tensorflow as tf

from data import attribute_sets, mixed_batches, prepared, streams
from data.lidar import sets
from tests.data import image_sets
from tests.data.lidar import frames as lidar_frames

_COUNT = 120
_NAMES = ["hat"]
_SHAPE = (4, 6, 3)


def _attributes(data_dir):
    splits = {"train": image_sets.with_attributes(_COUNT, _NAMES)}
    image_sets.prepare_with_attributes(data_dir, "faces", _NAMES, splits, 3)
    faces = attribute_sets.AttributeSet("faces", ["attributes"], str(data_dir))
    shape = attribute_sets.Shape(image_sets.HEIGHT, image_sets.WIDTH)
    return functools.partial(faces.training_batches, "train", shape)


def _labels(data_dir):
    splits = {"train": image_sets.with_labels(_COUNT, _SHAPE, 3)}
    image_sets.prepare_with_labels(data_dir, "small", splits, _SHAPE, 3, 3)
    small = prepared.open_set("small", data_dir)
    images = mixed_batches.ImageSet(small, _SHAPE, "train", "train")
    return images.training_batches


def _frames(data_dir):
    examples = [lidar_frames.example(number) for number in range(_COUNT)]
    root = lidar_frames.prepare(data_dir, train=examples)
    frames = sets.LidarSet(lidar_frames.NAME, str(root))
    return functools.partial(frames.training_frames, "train")


@pytest.mark.parametrize("prepare", [_attributes, _labels, _frames])
def test_nothing_is_decoded_before_the_position(prepare, tmp_path, monkeypatch):
    training_data = prepare(tmp_path)
    record_streams, decoded = [], []
    endless, parse = streams.endless, prepared.PreparedSet.parse

    def keep_stream(*args):
        record_streams.append(endless(*args))
        return record_streams[-1]

    def keep(record):
        decoded.append(record.numpy())
        return record

    def keep_and_parse(self, record, decoders=None):
        kept = tf.py_function(keep, [record], tf.string)
        return parse(self, tf.ensure_shape(kept, []), decoders)

    monkeypatch.setattr(streams, "endless", keep_stream)
    monkeypatch.setattr(prepared.PreparedSet, "parse", keep_and_parse)
    training_data(streams.Reading(2, 5))
    before = list(record_streams[0].take(30).as_numpy_iterator())
    assert len(set(before)) == 30 and not decoded
    list(training_data(streams.Reading(2, 5, start=15)).take(1))
    # What is decoded ahead is far from the next epoch.
    assert len(decoded) >= 1 and not {*before} & {*decoded}
