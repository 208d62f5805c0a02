import numpy as np
import pytest
import tensorflow as tf

from data import streams

_COUNT = 10


def _endless(shuffle_buffer=100, **reading):
    return streams.endless(
        lambda seed, skipped: tf.data.Dataset.range(skipped, _COUNT),
        _COUNT,
        streams.Reading(**{"batch_size": 4, "seed": 3, **reading}),
        shuffle_buffer,
    )


def _take(stream, count):
    return [int(value) for value in stream.take(count)]


def test_every_epoch_has_each_record_once_in_another_order():
    values = _take(_endless(), 5 * _COUNT)
    epochs = [tuple(values[i : i + _COUNT]) for i in range(0, 50, _COUNT)]
    assert all(sorted(epoch) == list(range(_COUNT)) for epoch in epochs)
    assert len({*epochs, tuple(range(_COUNT))}) == 6
    assert _take(_endless(seed=4), _COUNT) != values[:_COUNT]


@pytest.mark.parametrize("start", [1, 2, 3, 5, 11])
def test_taken_up_at_any_step_it_goes_on_as_it_would_have(start):
    whole = _take(_endless(), 4 * (start + 5))
    assert _take(_endless(start=start), 20) == whole[4 * start :]


def _enumerate(num_epochs, seed, shuffle_buffer):
    """Lists the records of the first epochs one by one, all of them drawn."""
    split = tf.random.experimental.stateless_split
    values = []
    for epoch in range(num_epochs):
        files, blocks = split(tf.constant([seed, epoch], tf.int64), 2)
        records = streams.permutation(_COUNT, files).numpy()
        for number, first in enumerate(range(0, _COUNT, shuffle_buffer)):
            block = records[first : first + shuffle_buffer]
            number = tf.constant(number, tf.int64)
            own = tf.random.experimental.stateless_fold_in(blocks, number)
            values += block[streams.permutation(len(block), own)].tolist()
    return values


@pytest.mark.parametrize("shuffle_buffer", [1, 3, 5, 11])
def test_it_goes_on_as_one_enumeration_within_and_between_blocks(
    shuffle_buffer,
):
    def epoch(seed, skipped):
        order = streams.permutation(_COUNT, seed)
        return tf.data.Dataset.from_tensor_slices(order).skip(skipped)

    whole = _enumerate(5, 3, shuffle_buffer)
    alone = [(start, streams.Shard()) for start in (0, 1, 2, 3, 4, 5, 8, 11)]
    shared = [(4, streams.Shard(index, 2)) for index in range(2)]
    for start, shard in alone + shared:
        reading = streams.Reading(2, 3, start, shard)
        stream = streams.endless(epoch, _COUNT, reading, shuffle_buffer)
        expected = whole[2 * start + shard.index :: shard.count][:13]
        assert _take(stream, 13) == expected, (start, shard)


def test_the_order_is_that_of_earlier_runs():
    values = _take(_endless(shuffle_buffer=3, start=2), 16)
    assert values == [6, 9, 2, 1, 0, 3, 5, 4, 8, 6, 7, 9, 2, 0, 1, 4]


@pytest.mark.parametrize(
    ("start", "first"), [(0, 0), (1, 4), (2, 8), (3, 0), (6, 4), (8, 0)]
)
def test_blocks_before_the_position_are_not_read(start, first):
    read = []

    def records(skipped):
        for record in range(skipped, _COUNT):
            read.append(record)
            yield record

    def epoch(seed, skipped):
        spec = tf.TensorSpec([], tf.int64)
        return tf.data.Dataset.from_generator(
            records, output_signature=spec, args=[skipped]
        )

    # Blocks begin at the records 0, 4 and 8 of an epoch of 10.
    reading = streams.Reading(4, 3, start)
    assert len(_take(streams.endless(epoch, _COUNT, reading, 4), 1)) == 1
    assert read == list(range(first, first + len(read)))


def test_the_order_does_not_depend_on_what_was_drawn_elsewhere():
    expected = _take(_endless(), 20)
    tf.random.set_seed(99)
    assert _take(_endless(), 20) == expected


def test_two_workers_share_each_batch_of_one():
    whole = _take(_endless(start=1), 24)
    parts = [
        _take(_endless(start=1, shard=streams.Shard(index, 2)), 12)
        for index in range(2)
    ]
    for step in range(6):
        shared = [part[2 * step : 2 * step + 2] for part in parts]
        assert shared[0] + shared[1] == whole[4 * step : 4 * step + 4]


def test_records_are_shuffled_in_blocks():
    values = np.array(_take(_endless(shuffle_buffer=5), _COUNT))
    assert set(values[:5]) == set(range(5))
    assert list(values) != sorted(values)


def test_all_orders_of_three_are_about_as_frequent():
    orders = {}
    for seed in range(600):
        drawn = streams.permutation(3, tf.constant([seed, 5])).numpy()
        orders[tuple(drawn)] = orders.get(tuple(drawn), 0) + 1
    assert len(orders) == 6
    # 100 expected of each, with a standard deviation of 9.
    assert min(orders.values()) > 60 and max(orders.values()) < 140


def test_shards_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="Worker 2 is not one of 2"):
        streams.Shard(2, 2)
    with pytest.raises(ValueError, match="batch of 5 cannot be shared by 2"):
        streams.Shard(0, 2).batch_size(5)
