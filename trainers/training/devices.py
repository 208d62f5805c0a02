"""Which devices a run uses, and how its batches reach them."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainers import errors
from trainers.training import workers

NAMES = ("auto", "one", "mirrored", workers.MULTI_WORKER)


def split_cpu(count: int) -> None:
    """Makes `count` logical devices of the CPU.

    Args:
        count: How many; 1 leaves everything as it is.

    Raises:
        UserError: If TensorFlow has started with fewer.
    """
    if count == 1:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError:
        available = len(tf.config.list_logical_devices("CPU"))
        if available < count:
            raise errors.UserError(
                f"--logical_cpus: got {count}, but TensorFlow has started "
                f"with {available}; start a new process."
            ) from None


def start(name: str, logical_cpus: int) -> None:
    """Gets a process ready for `make`, before anything else uses TensorFlow.

    Under `multi_worker` it returns when all workers are there.

    Args:
        name: One of `NAMES`.
        logical_cpus: How many logical devices to make of the CPU.

    Raises:
        UserError: If that is not possible.
    """
    if name == workers.MULTI_WORKER:
        if logical_cpus > 1:
            raise errors.UserError(
                f"--logical_cpus: got {logical_cpus}, but a worker uses its "
                "GPUs or its CPU as one device; start more workers."
            )
        _join(workers.find(name))
    split_cpu(logical_cpus)


@functools.cache
def _join(worker: workers.Worker) -> tf.distribute.Strategy:
    """Joins the other workers; TensorFlow can do so once in a process."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": worker.addresses}),
        task_type="worker",
        task_id=worker.index,
        rpc_layer="grpc",
    )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except RuntimeError:
        raise errors.UserError(
            f"--strategy={workers.MULTI_WORKER}: got a process in which "
            "TensorFlow has started; use it with launch.train."
        ) from None


def count_replicas(name: str, logical_cpus: int) -> int:
    """Counts the replicas that `make` would give."""
    if name == workers.MULTI_WORKER:
        return make(name, logical_cpus).num_replicas_in_sync
    return len(_devices(name, logical_cpus)) or 1


def make(name: str, logical_cpus: int) -> tf.distribute.Strategy:
    """Makes the distribution strategy of a run.

    Args:
        name: `one` device; all GPUs, or all logical CPUs, `mirrored`;
            `multi_worker`, the devices of all workers; or `auto`, which is
            mirrored where this machine has more than one device.
        logical_cpus: How many logical devices the CPU has.

    Returns:
        The strategy; for one device TensorFlow's default.
    """
    if name == workers.MULTI_WORKER:
        return _join(workers.find(name))
    devices = _devices(name, logical_cpus)
    if not devices:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _devices(name: str, logical_cpus: int) -> list[str]:
    if name not in NAMES:
        raise errors.UserError(
            f"--strategy: got {name!r}, expected one of {', '.join(NAMES)}."
        )
    num_gpus = len(tf.config.list_physical_devices("GPU"))
    kind, count = ("GPU", num_gpus) if num_gpus else ("CPU", logical_cpus)
    if name == "one" or count == 1:
        return []
    return [f"{kind}:{index}" for index in range(count)]


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


def in_order(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps the order of a whole dataset that `predict` deals out itself."""
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


class Gathering:
    """Numbers that all workers tell each other; also a barrier."""

    def __init__(
        self, strategy: tf.distribute.Strategy, worker: workers.Worker
    ):
        """Makes the exchange.

        Args:
            strategy: The strategy of the workers.
            worker: This worker.
        """
        self._worker = worker

        def add(value):
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % num_local == 0
            value = tf.where(first, value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

        num_local = strategy.num_replicas_in_sync // worker.count
        self._sum = tf.function(
            lambda value: strategy.experimental_local_results(
                strategy.run(add, args=(value,))
            )[0]
        )

    def __call__(self, number: float) -> np.ndarray:
        """Returns the numbers `[count]` of all workers, in order."""
        numbers = np.zeros([self._worker.count])
        numbers[self._worker.index] = number
        return self.sum(numbers)

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Returns the sum of the workers' arrays, all of one shape."""
        if self._worker.count == 1:
            return array
        return self._sum(tf.constant(array)).numpy()


def wait_for_all(name: str) -> None:
    """Waits until every worker is here; without workers it returns at once.

    Args:
        name: One of `NAMES`.
    """
    if name == workers.MULTI_WORKER:
        Gathering(make(name, 1), workers.find(name))(0.0)
