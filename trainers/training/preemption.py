"""SIGTERM, with which schedulers take a machine away, as a request."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator


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

    with _handled_by(note):
        yield notice


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Lets SIGTERM interrupt as Ctrl-C does, so that what is open is closed."""
    with _handled_by(signal.default_int_handler):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable) -> Iterator[None]:
    # TensorFlow's own handler, which Python cannot name, only swallows it.
    before = signal.signal(signal.SIGTERM, handler) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
