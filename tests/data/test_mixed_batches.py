import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from data import mixed_batches, prepared, streams
from tests.data import image_sets

_SHAPE = (4, 6, 3)
_SIZES = {"source": 3, "target": 2}


def _splits(shape, num_classes, seed, **counts):
    return {
        split: image_sets.with_labels(count, shape, num_classes, seed + index)
        for index, (split, count) in enumerate(counts.items())
    }


_TARGET = _splits(_SHAPE, 3, 0, train=12, test=7)
_SOURCE = _splits(_SHAPE, 5, 10, train=9, validation=3)
_LARGE = _splits((8, 18, 3), 5, 20, train=6, validation=2)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    prepare = image_sets.prepare_with_labels
    prepare(directory, "small", _TARGET, _SHAPE, 3)
    prepare(directory, "helpful", _SOURCE, _SHAPE, 5, num_shards=2)
    # A data set that does not say how large its images are.
    prepare(directory, "photographs", _LARGE, (None, None, 3), 5)
    prepare(directory, "grey", _splits((4, 6, 1), 2, 30, train=2), (4, 6, 1), 2)
    other = _splits((5, 6, 3), 2, 40, train=2, test=2)
    prepare(directory, "taller", other, (5, 6, 3), 2)
    train = _splits(_SHAPE, 2, 50, train=2)
    prepare(directory, "untested", train, _SHAPE, 2)
    return str(directory)


def _open(data_dir, **options):
    return mixed_batches.open_sets(
        **{
            "target": "small",
            "training_split": "train",
            "evaluation_split": "test",
            "source": "helpful",
            "data_dir": data_dir,
            **options,
        }
    )


def _take(batches, count):
    return [
        {name: (images[name].numpy(), labels[name].numpy()) for name in images}
        for images, labels in batches.take(count)
    ]


def _reading(**options):
    return streams.Reading(**{"batch_size": 1, "seed": 1, **options})


def _training(sets, count, **options):
    sizes = {name: _SIZES[name] for name in sets}
    batches = mixed_batches.training_batches(sets, sizes, _reading(**options))
    return _take(batches, count)


def _rows(batches, name, part):
    """Finds which examples of a data set make up the batches."""
    images, labels = part
    rows = []
    for batch in batches:
        for image, label in zip(*batch[name], strict=True):
            (row,) = [
                i
                for i, x in enumerate(images)
                if np.array_equal(x / 256, image)
            ]
            assert labels[row] == label
            rows.append(row)
    return rows


def _same(left, right):
    return all(
        np.array_equal(x, y)
        for a, b in zip(left, right, strict=True)
        for name in {*a, *b}
        for x, y in zip(a[name], b[name], strict=True)
    )


def test_a_batch_holds_so_many_of_each_divided_by_256(data_dir):
    sets = _open(data_dir)
    assert list(sets) == ["source", "target"]
    assert {n: s.num_classes for n, s in sets.items()} == {
        "source": 5,
        "target": 3,
    }
    batches = mixed_batches.training_batches(sets, _SIZES, _reading(seed=0))
    images, labels = batches.element_spec
    for name, size in _SIZES.items():
        assert images[name] == tf.TensorSpec((size, *_SHAPE), tf.float32)
        assert labels[name] == tf.TensorSpec((size,), tf.int64)


def test_each_stream_repeats_for_itself(data_dir):
    batches = _training(_open(data_dir), 12)
    target = _rows(batches, "target", _TARGET["train"])
    source = _rows(batches, "source", _SOURCE["train"])
    # 12 batches: 24 of 12 target images, 36 of 9 source images.
    for rows, size in ((target, 12), (source, 9)):
        epochs = [rows[i : i + size] for i in range(0, len(rows), size)]
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len(set(map(tuple, epochs))) == len(epochs)


def test_the_seed_decides_the_order_and_the_source_leaves_the_target(data_dir):
    sets = _open(data_dir)
    batches = _training(sets, 8)
    assert _same(batches, _training(sets, 8))
    assert not _same(batches, _training(sets, 8, seed=2))
    alone = _training(_open(data_dir, source=None), 8)
    assert [list(batch) for batch in alone] == [["target"]] * 8
    assert _same(alone, [{"target": batch["target"]} for batch in batches])


def test_a_set_that_is_both_has_two_orders(data_dir):
    sets = _open(data_dir, source="small", evaluation_split="train")
    sets["source"] = dataclasses.replace(
        sets["source"], evaluation_split="test"
    )
    batches = _training(sets, 4)
    source = _rows(batches, "source", _TARGET["train"])
    target = _rows(batches, "target", _TARGET["train"])
    assert source[:8] != target


@pytest.mark.parametrize("start", [1, 5, 17])
def test_both_streams_go_on_where_they_were(data_dir, start):
    sets = _open(data_dir)
    whole = _training(sets, start + 4)
    assert _same(whole[start:], _training(sets, 4, start=start))


def test_workers_share_both_parts(data_dir):
    sets = _open(data_dir)
    sizes = {"source": 4, "target": 2}

    def take(**options):
        batches = mixed_batches.training_batches(
            sets, sizes, _reading(start=2, **options)
        )
        return _take(batches, 5)

    whole = take()
    parts = [take(shard=streams.Shard(index, 2)) for index in range(2)]
    for batch, *shares in zip(whole, *parts, strict=True):
        for name in sizes:
            for i in range(2):
                joined = np.concatenate([share[name][i] for share in shares])
                np.testing.assert_array_equal(joined, batch[name][i])


def test_the_test_images_come_once_and_the_shorter_source_runs_dry(data_dir):
    batches = mixed_batches.test_batches(_open(data_dir), 2)
    assert batches.element_spec[0]["source"].shape == (None, *_SHAPE)
    taken = _take(batches, 99)
    target = _rows(taken, "target", _TARGET["test"])
    assert target == list(range(7))
    assert {*_rows(taken, "source", _SOURCE["validation"])} == {0, 1, 2}
    sizes = [len(batch["source"][0]) for batch in taken]
    assert sizes == [2, 1, 0, 0]
    alone = mixed_batches.test_batches(_open(data_dir, source=None), 4)
    assert [list(batch) for batch in _take(alone, 9)] == [["target"]] * 2


def test_a_longer_source_is_cut(data_dir):
    sets = _open(data_dir, evaluation_split="test[:2]")
    taken = _take(mixed_batches.test_batches(sets, 2), 99)
    assert len({*_rows(taken, "source", _SOURCE["validation"])}) == 2
    assert len(taken) == 1


def test_images_of_any_size_are_resized_as_they_are_read(data_dir):
    sets = _open(data_dir, source="photographs")
    batches = _training(sets, 2)
    # 8 x 18 to 4 x 6: every pixel is the mean of 2 x 3.
    images, labels = _LARGE["train"]
    means = images.reshape(6, 4, 2, 6, 3, 3).mean(axis=(2, 4)) / 256
    found = np.concatenate([batch["source"][0] for batch in batches])
    given = np.concatenate([batch["source"][1] for batch in batches])
    for image, label in zip(found, given, strict=True):
        distances = np.abs(means - image).max(axis=(1, 2, 3))
        assert distances.min() < 1e-5
        assert labels[distances.argmin()] == label


def test_a_part_of_a_split(data_dir):
    sets = _open(data_dir, training_split="train[:4]")
    rows = _rows(_training(sets, 6), "target", _TARGET["train"])
    assert {*rows} == {0, 1, 2, 3}


def test_the_shuffle_buffer_is_bounded_by_memory(data_dir, monkeypatch):
    images = _open(data_dir)["target"]
    info = images.prepared.builder.info
    average = info.dataset_size / 19
    assert 100 < average < 400
    monkeypatch.setattr(mixed_batches, "SHUFFLED_BYTES", 5 * average)
    rows = _rows(_training({"target": images}, 1), "target", _TARGET["train"])
    # Only the first 5 and what follows one by one can be drawn.
    assert rows[0] < 5 and rows[1] < 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "taller"}, r"taller has images of shape \(5, 6, 3\), but "
         r"small of \(4, 6, 3\)"),
        ({"source": "grey"}, r"grey has images of shape \(4, 6, 1\)"),
        ({"target": "photographs"}, "photographs has images of many sizes"),
        ({"source": "untested"}, "untested: got the splits train, expected "
         "one of validation, test"),
        ({"training_split": "train[:13]"}, "small: there is no split"),
        ({"evaluation_split": "validation"}, "small: there is no split"),
    ],
)  # fmt: skip
def test_sets_that_do_not_do_are_refused_in_a_line(data_dir, options, message):
    with pytest.raises(prepared.DataError, match=message) as caught:
        _open(data_dir, **options)
    assert "\n" not in str(caught.value)


def test_a_set_without_labels_is_refused(tmp_path):
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name="unlabelled",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=_SHAPE), "label": np.int64}
        ),
        split_datasets={
            "train": [(0, {"image": _TARGET["train"][0][0], "label": 1})]
        },
        data_dir=tmp_path,
    )
    with pytest.raises(prepared.DataError, match="a `label` that is a class"):
        _open(str(tmp_path), target="unlabelled", source=None)


def test_damage_is_found_in_both_splits(data_dir, tmp_path):
    image_sets.prepare_with_labels(tmp_path, "small", _TARGET, _SHAPE, 3)
    images = _open(str(tmp_path), source=None)["target"]
    images.check()
    (path,) = (tmp_path / "small" / "1.0.0").glob("*test*tfrecord*")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(prepared.DataError, match="record 6 cannot be read"):
        images.check()


def test_a_target_of_many_sizes_is_resized(data_dir):
    """Bilinearly with antialiasing, as a model in use does."""
    splits = {"training_split": "train", "evaluation_split": "validation"}
    sets = _open(
        data_dir, target="photographs", source=None, image_size=3, **splits
    )
    assert sets["target"].image_shape == (3, 3, 3)
    (batch,) = mixed_batches.test_batches(sets, 2)
    images, labels = (part["target"].numpy() for part in batch)
    given = zip(*_LARGE["validation"], strict=True)
    expected = {
        int(label): tf.image.resize(image, (3, 3), antialias=True) / 256.0
        for image, label in given
    }
    assert sorted(expected) == sorted(labels.tolist())
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_allclose(image, expected[int(label)], atol=1e-6)
