"""Checks, before anything else is imported, that Keras runs on TensorFlow."""

import os
import sys


def check() -> None:
    """Checks Keras' backend.

    Raises:
        ImportError: If it is another.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if "keras" in sys.modules or chosen in (None, "", "tensorflow"):
        # An import of Keras fails where its backend is not installed.
        import keras

        chosen = keras.config.backend()
    if chosen != "tensorflow":
        raise ImportError(
            "graddrop_tf needs Keras' TensorFlow backend: set "
            "KERAS_BACKEND=tensorflow before keras is imported. Received: "
            f"{chosen!r}."
        )


check()
