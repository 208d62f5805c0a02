import numpy as np
import pytest
import tensorflow_datasets as tfds

from data import prepared, streams
from data.lidar import sets
from tests.data.lidar import frames as lidar_frames

_NUM_FRAMES = 5
_BOX = [4, 0, 0.5, 4, 2, 1.5, 0.0]


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    examples = [
        lidar_frames.example(number, [_BOX] * (number % 3))
        for number in range(_NUM_FRAMES)
    ]
    root = lidar_frames.prepare(
        tmp_path_factory.mktemp("lidar"), train=examples, test=examples[:2]
    )
    return sets.LidarSet(lidar_frames.NAME, str(root))


def _take(dataset, count):
    """The frames' numbers and the seeds."""
    pairs = dataset.take(count).as_numpy_iterator()
    return [(int(e["frame"]) - 1000, *seed.tolist()) for e, seed in pairs]


def _training(frames, **options):
    reading = streams.Reading(**{"batch_size": 2, "seed": 7, **options})
    return frames.training_frames("train", reading)


def test_one_pass_in_order(frames):
    assert frames.num_frames("train") == _NUM_FRAMES
    examples = list(frames.frames("train").as_numpy_iterator())
    for number, found in enumerate(examples):
        expected = lidar_frames.example(number, [_BOX] * (number % 3))
        for name in ("segment", "frame"):
            assert found.pop(name).decode() == expected.pop(name)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert len(list(frames.frames("test"))) == 2


def test_every_epoch_has_each_frame_once_in_another_order(frames):
    taken = _take(_training(frames), 4 * _NUM_FRAMES)
    numbers = np.array([number for number, *_ in taken]).reshape(4, -1)
    assert (np.sort(numbers) == np.arange(_NUM_FRAMES)).all()
    assert len({tuple(row) for row in numbers.tolist()}) > 1
    assert taken == _take(_training(frames), 4 * _NUM_FRAMES)
    assert taken != _take(_training(frames, seed=8), 4 * _NUM_FRAMES)


def test_seeds_are_of_the_place_in_the_stream(frames):
    taken = _take(_training(frames), 12)
    assert [seed for _, *seed in taken] == [[7, place] for place in range(12)]


@pytest.mark.parametrize("start", [1, 4])
def test_it_goes_on_at_any_step(frames, start):
    whole = _take(_training(frames), 12)
    assert (
        _take(_training(frames, start=start), 12 - 2 * start)
        == (whole[2 * start :])
    )


def test_workers_share_each_batch(frames):
    whole = _take(_training(frames, batch_size=4, start=1), 8)
    for index in range(2):
        shard = streams.Shard(index, 2)
        part = _take(_training(frames, batch_size=4, start=1, shard=shard), 4)
        first = 2 * index
        assert part == whole[first : first + 2] + whole[first + 4 : first + 6]


def test_vehicles_outside_of_no_label_zones():
    example = lidar_frames.example(
        3, [_BOX] * 3, unlabelled=[(1, 2, 3), (4, 5, 6)], types=[1, 2, 1]
    )
    example["num_points"] = np.array([7, 8, 9])
    frame = sets.vehicles(example)
    np.testing.assert_array_equal(frame["points"], example["points"][:-2])
    assert frame["boxes"].shape == (2, 7)
    assert frame["num_points"].numpy().tolist() == [7, 9]


def test_what_is_not_there_is_said_in_a_line(frames, tmp_path):
    with pytest.raises(
        prepared.DataError, match=r"waymo_lidar is not prepared .*prepare_waymo"
    ):
        sets.LidarSet("waymo_lidar", str(tmp_path))
    with pytest.raises(prepared.DataError, match="there is no split 'valid'"):
        frames.frames("valid")
    features = tfds.features.FeaturesDict({"points": np.float32})
    other = lidar_frames.prepare(
        tmp_path, features=features, train=[{"points": 1.0}]
    )
    with pytest.raises(
        prepared.DataError, match=r"no feature 'returns' of uint8, got points"
    ):
        sets.LidarSet(lidar_frames.NAME, str(other))
