"""Where a reading stands that takes one record from each of several files."""

import collections
from collections.abc import Sequence

import numpy as np


def after(
    lengths: Sequence[int], num_open: int, num_records: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is left of the files when some records have been read.

    The open files take turns as in `tf.data.Dataset.interleave` with a block
    length of 1: a file that has ended loses its turn, and the next unopened
    one takes its place when the turn comes round.

    Args:
        lengths: How many records each file has, in the order of opening.
        num_open: How many files are read at a time, at least 1.
        num_records: How many records have been read.

    Returns:
        The indices of the files that are left, in the order of opening, and
        how many records have been read from each. An interleaved reading of
        these goes on with the next record.

    Raises:
        ValueError: If there are fewer records than that.
    """
    if num_records > sum(lengths):
        raise ValueError(
            f"num_records: got {num_records}, expected at most the "
            f"{sum(lengths)} of all files."
        )
    read = np.zeros(len(lengths), np.int64)
    waiting = collections.deque(range(len(lengths)))
    taking = collections.deque(
        waiting.popleft() for _ in range(min(num_open, len(waiting)))
    )
    while num_records:
        rounds = min(lengths[file] - read[file] for file in taking)
        rounds = min(rounds, num_records // len(taking))
        if rounds:
            read[taking] += rounds
            num_records -= rounds * len(taking)
            continue
        file = taking.popleft()
        if read[file] < lengths[file]:
            read[file] += 1
            num_records -= 1
            taking.append(file)
        elif waiting:
            taking.append(waiting.popleft())
    left = np.array([*taking, *waiting], np.int64)
    return left, read[left]
