import numpy as np
import pytest
import tensorflow as tf

from data import digits, streams

_SMALL = {"num_pairs": 64, "canvas": 11, "split_seed": 0}


def _take(dataset, count):
    return [
        (images.numpy(), {name: y.numpy() for name, y in labels.items()})
        for images, labels in dataset.take(count)
    ]


def _same(left, right):
    return all(
        np.array_equal(a, b)
        and all(np.array_equal(x[name], y[name]) for name in x)
        for (a, x), (b, y) in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_no_scan_is_in_both_parts(seed):
    train, test = digits.split_scans(seed)
    images, labels = digits.load_scans()
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(labels)
    assert set(labels[test]) == set(range(10))
    assert images.max() == 1.0


def test_pairs_come_from_the_given_scans_only():
    scans, labels = digits.load_scans()
    rows = np.array([3, 14])
    images, drawn = digits.draw_pairs(rows, 50, 16, seed=0)
    for image, first, second in zip(
        images, drawn["upper_left"], drawn["lower_right"], strict=True
    ):
        for corner, label in (
            (image[:8, :8, 0], first),
            (image[8:, 8:, 0], second),
        ):
            found = [r for r in rows if np.array_equal(scans[r], corner)]
            assert [labels[r] for r in found] == [label]


def test_the_brighter_pixel_wins_where_scans_overlap():
    first = np.full((1, 8, 8), 0.25, np.float32)
    second = np.full((1, 8, 8), 0.75, np.float32)
    for left, right in ((first, second), (second, first)):
        image = digits.overlap(left, right, 10)[0, :, :, 0]
        assert np.all(image[2:8, 2:8] == 0.75)
        assert image[0, 0] == left[0, 0, 0]
        assert image[-1, -1] == right[0, 0, 0]
        assert image[0, -1] == image[-1, 0] == 0.0


@pytest.mark.parametrize("canvas", [7, 17])
def test_an_impossible_canvas_is_refused(canvas):
    scans = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(ValueError, match=f"got {canvas}, expected"):
        digits.overlap(scans, scans, canvas)


def test_training_batches_repeat_from_any_start():
    def batches(seed, start):
        return digits.training_batches(
            streams.Reading(10, seed, start), **_SMALL
        )

    # 64 pairs in batches of 10: the 20 batches cross three shuffles.
    whole = _take(batches(1, 0), 20)
    assert _same(whole[13:], _take(batches(1, 13), 7))
    assert not _same(whole[:7], _take(batches(2, 0), 7))
    assert not _same(whole[:6], whole[6:12])
    assert {len(images) for images, _ in whole} == {10}
    assert whole[0][0].dtype == np.float32


@pytest.mark.parametrize("start", [0, 3, 13])
def test_the_order_is_that_of_shuffled_pairs(start):
    train, _ = digits.split_scans(0)
    pairs = tf.data.Dataset.from_tensor_slices(
        digits.draw_pairs(train, 64, 11, 1)
    )
    shuffled = pairs.shuffle(64, seed=1).repeat().skip(10 * start)
    whole = _take(shuffled.batch(10), 9)
    reading = streams.Reading(10, 1, start)
    assert _same(whole, _take(digits.training_batches(reading, **_SMALL), 9))
    halves = [
        _take(digits.training_batches(half, **_SMALL), 9)
        for half in (
            streams.Reading(10, 1, start, streams.Shard(index, 2))
            for index in range(2)
        )
    ]
    for (images, _), (first, _), (second, _) in zip(
        whole, *halves, strict=True
    ):
        np.testing.assert_array_equal(np.concatenate([first, second]), images)


def test_test_batches_hold_every_pair_once():
    batches = _take(digits.test_batches(batch_size=10, **_SMALL), 100)
    assert sum(len(images) for images, _ in batches) == 64
    _, test = digits.split_scans(0)
    expected, _ = digits.draw_pairs(test, 64, 11, 0)
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in batches]), expected
    )
