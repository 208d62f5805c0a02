"""Commands: flags in, calls of `trainers` out."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def _native_notes_hidden() -> Iterator[None]:
    """Hides what native code writes to stderr."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


# TensorFlow's notes, at start-up and about the CPU, would bury our lines. What
# stops a run is a Python exception all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with _native_notes_hidden():
    import tensorflow as tf

    tf.config.list_physical_devices("GPU")
