"""Exchanges numbers between the workers of a run."""

import numpy as np
import tensorflow as tf

from trainers.training import workers


class Gathering:
    """Gathers a number from each worker; also serves as a barrier."""

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
