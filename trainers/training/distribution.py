"""Distributes batches over the replicas of a run."""

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
    """Distributes a worker's part of endless batches over its replicas.

    Args:
        strategy: The strategy.
        worker: This worker.
        dataset: The worker's part of each batch, as `worker.shard` says.

    Returns:
        Data for `fit`. A single process leaves the distribution to Keras.
    """
    if worker.count == 1:
        return dataset
    num_local = strategy.num_replicas_in_sync // worker.count

    def split(tensor):
        return tf.reshape(tensor, [num_local, -1, *tensor.shape[1:]])

    parts = dataset.map(lambda *batch: tf.nest.map_structure(split, batch))
    # Workers need not agree in each step whether endless data have ended.
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
    """Deals the examples of each batch to all replicas, each exactly once.

    Every replica gets a part of every batch, which may be empty, so that all
    workers see the same number of batches.

    Args:
        strategy: The strategy.
        worker: This worker.
        dataset: Whole batches, the same on each worker.

    Returns:
        Data for `evaluate`. A single process leaves the distribution to
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
    """Keeps the order of examples in `predict` on several replicas."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.with_options(options)


class BatchFunction:
    """Applies a function to as many batches at a time as there are replicas."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        worker: workers.Worker,
        function: Callable,
    ):
        """Compiles the function.

        Args:
            strategy: The strategy.
            worker: This worker.
            function: Maps inputs to tensors, without communication between
                replicas.
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
            batches: Pairs of inputs and anything else, the same on all
                workers.

        Yields:
            The second part of each pair, and the result.
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
