"""Measures the peak memory of a step in this process; Linux only."""

import ctypes
import pathlib

from trainers.benchmarks import measuring

_STEPS = 5
_PROCESS = pathlib.Path("/proc/self")
# From glibc's malloc.h.
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 2**16


def can_be_read() -> bool:
    """Returns whether this system reports the peak memory of a process."""
    return (_PROCESS / "clear_refs").exists()


def of_step(step: measuring.Step) -> list[float]:
    """Measures the peak memory of several steps above that between them.

    From then on this process returns memory as soon as it is free. Otherwise
    glibc would keep some of it resident.

    Args:
        step: The step, in a process that does nothing else.

    Returns:
        MiB, a value for each step.
    """
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    for _ in range(measuring.WARM_UP):
        step()
    peaks = []
    for _ in range(_STEPS):
        glibc.malloc_trim(0)
        at_rest = _resident("VmRSS")
        # Resets the peak, VmHWM, to the resident memory.
        (_PROCESS / "clear_refs").write_text("5")
        step()
        peaks.append(_resident("VmHWM") - at_rest)
    return peaks


def _resident(field: str) -> float:
    """Reads a field of this process's status, in MiB."""
    status = (_PROCESS / "status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
