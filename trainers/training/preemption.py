"""Handles SIGTERM, by which schedulers reclaim a machine, as a request."""

import contextlib
import dataclasses
import signal
from collections.abc import Callable, Iterator


@dataclasses.dataclass
class Notice:
    """Whether the process was asked to stop.

    Attributes:
        given: Whether SIGTERM has arrived.
    """

    given: bool = False


@contextlib.contextmanager
def watching() -> Iterator[Notice]:
    """Records SIGTERM instead of ending at once.

    Yields:
        The notice.
    """
    notice = Notice()

    def note(*_):
        notice.given = True

    with _handled_by(note):
        yield notice


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Makes SIGTERM interrupt like Ctrl-C, so that everything is closed."""
    with _handled_by(signal.default_int_handler):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable) -> Iterator[None]:
    # Python sees TensorFlow's handler, which ignores the signal, as None.
    before = signal.signal(signal.SIGTERM, handler) or signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
