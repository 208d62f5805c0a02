"""SIGTERM, with which schedulers take a machine away, as a request."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator


@dataclasses.dataclass
class Notice:
    """Whether the process has been told to stop.

    Attributes:
        given: Whether SIGTERM has come.
    """

    given: bool = False


@contextlib.contextmanager
def watching() -> Iterator[Notice]:
    """Notes SIGTERM inside, in place of ending at once.

    Yields:
        What was noted so far.
    """
    notice = Notice()

    def note(*_):
        notice.given = True

    # TensorFlow's own handler, which Python cannot name, only swallows it.
    before = signal.signal(signal.SIGTERM, note) or signal.SIG_DFL
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)
