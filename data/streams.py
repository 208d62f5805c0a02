"""Endless streams that can be resumed at any step, by any number of workers.

The stream is a function of the seed: the records of step `n` are the same
whether or not those before were read in the same process, and however many
workers share a batch. Its memory and start-up time do not grow with the
number of epochs. Within one, it starts with the shuffle block of its first
record.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of every batch that a worker reads.

    Attributes:
        index: Which worker, from 0 on.
        count: How many workers there are.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self):
        """Checks that the index is below the count."""
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"Worker {self.index} is not one of {self.count}; expected "
                "an index from 0 on, below the count."
            )

    def batch_size(self, total: int) -> int:
        """Returns the worker's share of a batch of `total` examples.

        Raises:
            ValueError: If it cannot be shared evenly.
        """
        if total % self.count:
            raise ValueError(
                f"A batch of {total} cannot be shared by {self.count} "
                "workers; expected a multiple."
            )
        return total // self.count


_WHOLE = Shard()


@dataclasses.dataclass(frozen=True)
class Reading:
    """Which batches of an endless stream a worker reads.

    Attributes:
        batch_size: Examples in a step, over all workers.
        seed: Decides the order of the examples.
        start: How many steps to leave out.
        shard: The worker's part of each batch; all of it by default.
    """

    batch_size: int
    seed: int
    start: int = 0
    shard: Shard = _WHOLE

    @property
    def share(self) -> int:
        """The worker's examples in a step."""
        return self.shard.batch_size(self.batch_size)

    def take_share(self, batch):
        """Cuts the worker's part out of a whole batch of tensors."""
        first = self.shard.index * self.share
        return tf.nest.map_structure(
            lambda tensor: tensor[first : first + self.share], batch
        )


def endless(
    epoch: Callable[[tf.Tensor, int], tf.data.Dataset],
    num_examples: int,
    reading: Reading,
    shuffle_buffer: int,
) -> tf.data.Dataset:
    """Makes the endless stream of a worker's training records.

    In every epoch each record comes once, in another order: that of the files,
    shuffled in blocks.

    Args:
        epoch: Reads all records once but the first few; takes a seed `[2]`
            for what it shuffles itself, such as the order of files, and how
            many to leave out. Unless these are 0, the seed is concrete.
        num_examples: How many an epoch has.
        reading: Which batches.
        shuffle_buffer: Records in a block; two of them are in memory.

    Returns:
        The records one by one: decode them, then batch them by
        `reading.share`.
    """
    first_epoch, offset = divmod(
        reading.start * reading.batch_size, num_examples
    )

    def read(index: tf.Tensor, skipped: int = 0) -> tf.data.Dataset:
        seeds = tf.random.experimental.stateless_split([reading.seed, index], 2)
        first_block, cut = divmod(skipped, shuffle_buffer)
        records = epoch(seeds[0], skipped - cut)
        blocks = records.batch(shuffle_buffer).prefetch(1)
        shuffled = blocks.enumerate(first_block).map(
            lambda number, block: _shuffle(block, seeds[1], number)
        )
        return shuffled.unbatch().skip(cut)

    # Other devices may sort equal draws in another order.
    with tf.device("CPU"):
        rest = read(tf.constant(first_epoch, tf.int64), offset)
    epochs = tf.data.Dataset.range(first_epoch + 1, tf.int64.max)
    stream = rest.concatenate(epochs.flat_map(read))
    if reading.shard.count == 1:
        return stream
    batches = stream.batch(reading.batch_size, drop_remainder=True)
    return batches.map(reading.take_share).unbatch()


def _shuffle(block: tf.Tensor, seed: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    seed = tf.random.experimental.stateless_fold_in(seed, number)
    return tf.gather(block, permutation(tf.shape(block)[0], seed))


def permutation(count: tf.Tensor | int, seed: tf.Tensor) -> tf.Tensor:
    """Draws a permutation of `count` items from the seed `[2]` alone."""
    return tf.argsort(tf.random.stateless_uniform([count], seed), stable=True)
