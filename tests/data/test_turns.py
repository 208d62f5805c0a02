import numpy as np
import pytest
import tensorflow as tf

from data import turns


def _interleave(files, lengths, read, num_open):
    """Lists (file, record) as TensorFlow reads what is left of files."""
    columns = [np.asarray(column, np.int64) for column in (lengths, read)]
    dataset = tf.data.Dataset.from_tensor_slices((files, *columns))
    records = dataset.interleave(
        lambda file, length, first: tf.data.Dataset.range(first, length).map(
            lambda record: (file, record)
        ),
        cycle_length=num_open,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return [(int(f), int(r)) for f, r in records.as_numpy_iterator()]


def test_a_file_that_has_ended_loses_its_turn():
    # Read so far: 0a 1a 2a, 0b 2b, 0c 3a. File 1 ended at its second turn, and
    # file 0 is to end at its next.
    left, read = turns.after([3, 1, 4, 2], 3, 7)
    assert left.tolist() == [2, 0, 3]
    assert read.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("lengths", "num_open"),
    [
        ([5], 1),
        ([2, 3, 1], 1),
        ([3, 3, 3, 3, 3], 2),
        ([1, 7, 2, 2, 9, 1, 4], 3),
        ([4, 0, 2, 0, 0, 5, 1], 3),
        ([6, 1, 1, 1, 1, 1, 8], 4),
        ([2, 5, 3], 3),
    ],
)
def test_a_reading_goes_on_after_any_record(lengths, num_open):
    files = np.arange(len(lengths))
    whole = _interleave(files, lengths, 0 * files, num_open)
    assert len(whole) == sum(lengths)
    for count in range(len(whole) + 1):
        left, read = turns.after(lengths, num_open, count)
        rest = _interleave(left, np.array(lengths)[left], read, num_open)
        assert rest == whole[count:], count


def test_more_records_than_there_are_are_refused():
    with pytest.raises(ValueError, match="got 6, expected at most the 5"):
        turns.after([2, 3], 2, 6)
