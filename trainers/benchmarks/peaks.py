"""What a step takes of this process's memory at its peak; Linux only."""

import ctypes
import pathlib

from trainers.benchmarks import measuring

_STEPS = 5
_PROCESS = pathlib.Path("/proc/self")
# As glibc's malloc.h has it.
_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 2**16


def can_be_read() -> bool:
    """Says whether this system tells the peak of a process."""
    return (_PROCESS / "clear_refs").exists()


def of_step(step: measuring.Step) -> list[float]:
    """Returns by how many MiB some steps rise above the rest between them.

    From then on this process gives memory back as soon as it is free. Else
    glibc keeps some, and what is resident says little.

    Args:
        step: What to measure, in a process of its own.

    Returns:
        A value for each of them.
    """
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    for _ in range(measuring.WARM_UP):
        step()
    peaks = []
    for _ in range(_STEPS):
        glibc.malloc_trim(0)
        at_rest = _resident("VmRSS")
        # Sets the peak, VmHWM, back to what is resident now.
        (_PROCESS / "clear_refs").write_text("5")
        step()
        peaks.append(_resident("VmHWM") - at_rest)
    return peaks


def _resident(field: str) -> float:
    """Reads a field of this process's status, in MiB."""
    status = (_PROCESS / "status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
