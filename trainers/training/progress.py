"""Shows the progress of a run, on a terminal or in a log."""

import sys
import time
from collections.abc import Mapping

import keras

from trainers.training.clock import Clock

_SHOWN = 8


class Progress:
    """Shows the progress of long work.

    Args:
        bar: Whether to show Keras' progress bar on a terminal.
        seconds: Seconds between two lines of text.
    """

    def __init__(self, bar: bool = False, seconds: float = 10.0):
        """Starts the timer."""
        self._bar = bar
        self._seconds = seconds
        self._printed = time.monotonic()

    def update(self, done: int, total: int, text: str) -> None:
        """Prints a line unless the last one was recent.

        Args:
            done: Steps done.
            total: Steps in all.
            text: The state, such as the losses.
        """
        now = time.monotonic()
        if now - self._printed >= self._seconds and done < total:
            print(f"    step {done}/{total}: {text}", flush=True)
            self._printed = now

    def callback(self, clock: Clock) -> keras.callbacks.Callback:
        """Returns the callback that shows the progress of `fit`."""
        if self._bar and sys.stdout.isatty():
            return ProgressBar()
        return PrintEpochs(clock, self)


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar; leaves out the per-loss values of many losses."""

    def set_params(self, params):
        """Shows the bar although `fit` runs with verbose=0."""
        super().set_params({**params, "verbose": 1})

    def on_train_batch_end(self, batch, logs=None):
        """Advances the bar."""
        super().on_train_batch_end(batch, _brief(logs))

    def on_epoch_end(self, epoch, logs=None):
        """Ends the line of the epoch."""
        super().on_epoch_end(epoch, _brief(logs))


def _brief(logs: Mapping[str, float]) -> dict[str, float]:
    if len(logs) <= _SHOWN:
        return dict(logs)
    return {
        name: value
        for name, value in logs.items()
        if name in ("loss", "val_loss")
        or not (name.endswith("_loss") or "/" in name)
    }


class PrintEpochs(keras.callbacks.Callback):
    """Prints the losses after an epoch, every few seconds."""

    def __init__(self, clock: Clock, progress: Progress):
        """Makes the callback.

        Args:
            clock: Counts the steps.
            progress: Prints the lines.
        """
        super().__init__()
        self._clock = clock
        self._progress = progress

    def on_epoch_end(self, epoch, logs=None):
        """Prints the losses, unless the last line was recent."""
        self._progress.update(
            self._clock.step,
            self.params["epochs"] * self._clock.steps_per_epoch,
            f"loss {logs['loss']:.4g}, val_loss {logs['val_loss']:.4g}",
        )
