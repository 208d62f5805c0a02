"""Which devices a run uses."""

import tensorflow as tf

from trainers import errors

NAMES = ("auto", "one", "mirrored")


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


def count_replicas(name: str, logical_cpus: int) -> int:
    """Counts the replicas that `make` would give."""
    return len(_devices(name, logical_cpus)) or 1


def make(name: str, logical_cpus: int) -> tf.distribute.Strategy:
    """Makes the distribution strategy of a run.

    Args:
        name: `one` device; all GPUs, or all logical CPUs, `mirrored`; or
            `auto`, which is mirrored where there is more than one of them.
        logical_cpus: How many logical devices the CPU has.

    Returns:
        The strategy; for one device TensorFlow's default.
    """
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
    if name == "one" or (name == "auto" and count == 1):
        return []
    return [f"{kind}:{index}" for index in range(count)]
