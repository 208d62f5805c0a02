"""Measures the peak memory of this process; Linux only."""

import pathlib

from trainers.benchmarks import measuring

_STEPS = 5
_PROCESS = pathlib.Path("/proc/self")


def can_be_read() -> bool:
    """Returns whether this system reports the peak memory of a process."""
    return (_PROCESS / "clear_refs").exists()


def of_step(step: measuring.Step) -> list[float]:
    """Measures the peak resident memory of this process in several steps.

    It includes all that the process holds between them: an allocator keeps
    memory for the next step. Compare it with that of a process that takes
    other steps.

    Args:
        step: The step, in a process that does nothing else.

    Returns:
        MiB, a value for each step.
    """
    for _ in range(measuring.WARM_UP):
        step()
    peaks = []
    for _ in range(_STEPS):
        # Resets the peak to the resident memory.
        (_PROCESS / "clear_refs").write_text("5")
        step()
        peaks.append(_peak())
    return peaks


def _peak() -> float:
    """Reads the peak resident memory, in MiB."""
    status = (_PROCESS / "status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
