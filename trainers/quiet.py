"""Keeps other libraries' notes out of the output."""

import logging

import tensorflow_datasets as tfds


def silence_libraries() -> None:
    """Hides warnings of libraries and the progress bars of TFDS."""
    for name in ("tensorflow", "absl", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    tfds.disable_progress_bar()
