"""How batches reach the replicas of a run."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainers.training import workers


def distribute_training(
    strategy: tf.distribute.Strategy,
    worker: workers.Worker,
    dataset: tf.data.Dataset,
):
    """Hands a worker's part of endless batches to its replicas.

    Args:
        strategy: The strategy.
        worker: This worker.
        dataset: Its part of each batch, of `worker.shard`.

    Returns:
        What `fit` takes. A process alone leaves the distribution to Keras.
    """
    if worker.count == 1:
        return dataset
    num_local = strategy.num_replicas_in_sync // worker.count

    def split(tensor):
        return tf.reshape(tensor, [num_local, -1, *tensor.shape[1:]])

    parts = dataset.map(lambda *batch: tf.nest.map_structure(split, batch))
    # Without an end there is nothing to agree on in each step.
    endless = tf.data.experimental.assert_cardinality(
        tf.data.INFINITE_CARDINALITY
    )
    parts = parts.unbatch().apply(endless)
    return strategy.distribute_datasets_from_function(lambda _: parts)


def distribute_test(
    strategy: tf.distribute.Strategy,
    worker: workers.Worker,
    dataset: tf.data.Dataset,
):
    """Deals the examples of each batch out to all replicas, none twice.

    Every replica gets a part of every batch, which may be empty, so that all
    workers see the same number of batches.

    Args:
        strategy: The strategy.
        worker: This worker.
        dataset: Whole batches, the same on each worker.

    Returns:
        What `evaluate` takes. A process alone leaves the distribution to
        Keras.
    """
    if worker.count == 1:
        return dataset
    num_local = strategy.num_replicas_in_sync // worker.count
    num_replicas = strategy.num_replicas_in_sync

    def deal(*batch):
        parts = [
            tf.data.Dataset.from_tensors(
                tf.nest.map_structure(lambda t: t[first::num_replicas], batch)  # noqa: B023
            )
            for first in range(
                worker.index * num_local, (worker.index + 1) * num_local
            )
        ]
        return functools.reduce(tf.data.Dataset.concatenate, parts)

    parts = dataset.flat_map(deal)
    return strategy.distribute_datasets_from_function(lambda _: parts)


def shard_by_example(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Lets `predict` keep the order of the examples on several replicas."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.with_options(options)


class BatchFunction:
    """A function of batches, for as many at a time as there are replicas."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        worker: workers.Worker,
        function: Callable,
    ):
        """Makes it.

        Args:
            strategy: The strategy.
            worker: This worker.
            function: From inputs to tensors, without any communication
                between replicas.
        """
        self._strategy = strategy
        self._worker = worker
        # TensorFlow's default strategy does not know its device.
        several = strategy.num_replicas_in_sync > 1
        self._num_local = (
            len(strategy.extended.worker_devices) if several else 1
        )

        def run(inputs):
            return strategy.run(function, args=(inputs,))

        self._run = tf.function(run, reduce_retracing=True)

    def __call__(self, batches: tf.data.Dataset) -> Iterator[tuple[Any, Any]]:
        """Applies the function to this worker's share of the batches.

        Args:
            batches: Pairs of inputs and what else is known, the same on all
                workers.

        Yields:
            What else is known of each batch, and the result.
        """
        stream = iter(batches.shard(self._worker.count, self._worker.index))
        while group := list(itertools.islice(stream, self._num_local)):
            results = self._apply([inputs for inputs, _ in group])
            for (_, rest), result in zip(group, results, strict=False):
                yield rest, result

    def _apply(self, inputs: list) -> Sequence[Any]:
        if self._num_local == 1:
            return [self._run(inputs[0])]
        # The last group may be too small for all replicas.
        inputs = inputs + inputs[:1] * (self._num_local - len(inputs))
        values = self._strategy.experimental_distribute_values_from_function(
            lambda context: inputs[
                context.replica_id_in_sync_group % self._num_local
            ]
        )
        return self._strategy.experimental_local_results(self._run(values))
