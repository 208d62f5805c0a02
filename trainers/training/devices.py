"""The devices of a run."""

import dataclasses
import functools

import tensorflow as tf

from trainers import errors
from trainers.training import exchange, workers

NAMES = ("auto", "one", "mirrored", workers.MULTI_WORKER)


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        strategy: `one` device; all GPUs, or all logical CPUs, `mirrored`;
            `multi_worker`, the devices of all workers; or `auto`, which is
            mirrored if this machine has more than one device.
        logical_cpus: Number of devices to split the CPU into.
    """

    strategy: str = "auto"
    logical_cpus: int = 1

    @property
    def num_replicas(self) -> int:
        """Number of replicas of the strategy."""
        if self.has_workers:
            return self.make().num_replicas_in_sync
        return len(self._names()) or 1

    @property
    def has_workers(self) -> bool:
        """Whether several processes may train together."""
        return self.strategy == workers.MULTI_WORKER

    @property
    def worker(self) -> workers.Worker:
        """This process among those that train together."""
        return workers.find(self.strategy)

    @property
    def are_one(self) -> bool:
        """Whether `strategy` is one device, or leaves the choice open."""
        return self.strategy in ("auto", "one") and self.logical_cpus == 1

    def start(self) -> None:
        """Prepares the process before anything else uses TensorFlow.

        With `multi_worker` it returns when all workers have joined.

        Raises:
            UserError: If the devices cannot be used.
        """
        if self.has_workers:
            if self.logical_cpus > 1:
                raise errors.UserError(
                    f"--logical_cpus: got {self.logical_cpus}, but a worker "
                    "uses its GPUs or its CPU as one device; start more "
                    "workers."
                )
            _join(self.worker)
        split_cpu(self.logical_cpus)

    def make(self) -> tf.distribute.Strategy:
        """Makes the distribution strategy.

        Returns:
            The strategy; TensorFlow's default for one device.
        """
        if self.has_workers:
            return _join(self.worker)
        names = self._names()
        if not names:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy(
            names, cross_device_ops=tf.distribute.ReductionToOneDevice()
        )

    def wait(self) -> None:
        """Waits for all workers, if there are several."""
        if self.has_workers:
            exchange.Gathering(self.make(), self.worker)(0.0)

    def _names(self) -> list[str]:
        if self.strategy not in NAMES:
            raise errors.UserError(
                f"--strategy: got {self.strategy!r}, expected one of "
                f"{', '.join(NAMES)}."
            )
        gpus = len(tf.config.list_physical_devices("GPU"))
        kind, count = ("GPU", gpus) if gpus else ("CPU", self.logical_cpus)
        if self.strategy == "one" or count == 1:
            return []
        return [f"{kind}:{index}" for index in range(count)]


DEFAULT_DEVICES = Devices()


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` logical devices.

    Args:
        count: Number of devices; 1 changes nothing.

    Raises:
        UserError: If TensorFlow has already started with fewer.
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


@functools.cache
def _join(worker: workers.Worker) -> tf.distribute.Strategy:
    """Joins the other workers, which TensorFlow allows once in a process."""
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
