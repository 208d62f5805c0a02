"""The processes that train one model together, on one or several machines.

TensorFlow's own resolvers differ: `TFConfigClusterResolver` does not validate
what it reads, and `SlurmClusterResolver` sorts the hosts by name (Slurm ranks
them in the order of its list), gives every job the same ports, and fails on
machines without `nvidia-smi`.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping

from data import streams
from trainers import errors

MULTI_WORKER = "multi_worker"
_FIRST_PORT, _NUM_PORTS, _PORTS_PER_JOB = 20_000, 40_000, 64
_HELP = (
    "set TF_CONFIG to the addresses of all workers and this one's index, or "
    "start with srun"
)


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        index: Index of the worker; 0 is the chief, which writes all files.
        addresses: `host:port` of each worker, in order; empty for a single
            process.
    """

    index: int = 0
    addresses: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of workers."""
        return max(len(self.addresses), 1)

    @property
    def is_chief(self) -> bool:
        """Whether this worker writes the files of the run."""
        return self.index == 0

    @property
    def shard(self) -> streams.Shard:
        """The part of every batch that this worker reads."""
        return streams.Shard(self.index, self.count)


def find(strategy: str) -> Worker:
    """Finds this process among the workers, from its environment.

    Args:
        strategy: One of `devices.NAMES`; all but `multi_worker` are for a
            single process.

    Returns:
        The worker named by `TF_CONFIG`, or else by Slurm's variables.

    Raises:
        UserError: If neither is set, or the one that is set is invalid.
    """
    if strategy != MULTI_WORKER:
        return Worker()
    if "TF_CONFIG" in os.environ:
        return from_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_PROCID" in os.environ:
        return from_slurm(os.environ)
    raise errors.UserError(
        f"--strategy={MULTI_WORKER}: got neither TF_CONFIG nor Slurm's "
        f"variables, expected one of them; {_HELP}."
    )


def from_tf_config(text: str) -> Worker:
    """Reads a worker from the value of `TF_CONFIG`.

    Args:
        text: Such as `{"cluster": {"worker": ["a:1", "b:1"]}, "task":
            {"type": "worker", "index": 0}}`; a `chief` comes first.

    Raises:
        UserError: If the text is invalid.
    """
    try:
        value = json.loads(text)
        cluster, task = value["cluster"], value["task"]
        kind, index = task["type"], int(task["index"])
        first = {"chief": 0, "worker": len(cluster.get("chief", []))}[kind]
        addresses = (*cluster.get("chief", []), *cluster.get("worker", []))
        if not 0 <= index < len(cluster[kind]):
            raise ValueError(f"there is no {kind} {index}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.UserError(
            f"TF_CONFIG: got {text!r} ({error}), expected a cluster of "
            f"workers and a task among them; {_HELP}."
        ) from None
    return Worker(first + index, addresses)


def from_slurm(environment: Mapping[str, str]) -> Worker:
    """Reads a worker from the variables of a Slurm job step.

    The port is derived from the job's number, so that jobs on one node do not
    collide. The tasks must be laid out in blocks, the default of `srun`.
    TensorFlow's `SlurmClusterResolver` gives all jobs the same port.

    Args:
        environment: Has `SLURM_PROCID`, `SLURM_STEP_NODELIST`,
            `SLURM_STEP_TASKS_PER_NODE` and `SLURM_JOB_ID`.

    Raises:
        UserError: If one of them is missing or invalid.
    """
    try:
        hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
        counts = _expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
        job = int(environment["SLURM_JOB_ID"]) * _PORTS_PER_JOB
        index = int(environment["SLURM_PROCID"])
        port = _FIRST_PORT + job % _NUM_PORTS
        addresses = tuple(
            f"{host}:{port + task}"
            for host, count in zip(hosts, counts, strict=True)
            for task in range(count)
        )
        if not 0 <= index < len(addresses):
            raise ValueError(f"no task {index} among {len(addresses)}")
    except (ValueError, KeyError) as error:
        raise errors.UserError(
            f"--strategy={MULTI_WORKER}: Slurm's variables describe no tasks "
            f"of a step ({error}); {_HELP}."
        ) from None
    return Worker(index, addresses)


def expand_hosts(text: str) -> list[str]:
    """Expands Slurm's list of hosts, such as `a[01-03,7],b`, in order.

    Raises:
        ValueError: If a number in it is invalid.
    """
    hosts = []
    for part in re.findall(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)?", text):
        match = re.fullmatch(r"([^\[\]]*)\[([\d,-]+)\]([^\[\]]*)", part)
        if match is None:
            hosts.append(part)
            continue
        head, ranges, tail = match.groups()
        for numbers in ranges.split(","):
            first, _, last = numbers.partition("-")
            hosts += [
                f"{head}{number:0{len(first)}d}{tail}"
                for number in range(int(first), int(last or first) + 1)
            ]
    return hosts


def _expand_counts(text: str) -> list[int]:
    """Expands Slurm's tasks per node, such as `2(x3),1`."""
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"{part!r} tasks on a node")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
