"""Training on `model.fit` that may be stopped and started at any time."""

import csv
import io
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainers import checkpoints, errors, files

VERBOSITIES = ("bar", "lines")
_SECONDS_BETWEEN_LINES = 10.0
_SHOWN = 8


class ProgressLines:
    """Prints how far a long piece of work is, every few seconds."""

    def __init__(self):
        """Starts the clock."""
        self._printed = time.monotonic()

    def update(self, done: int, total: int, text: str) -> None:
        """Prints a line unless the last one is recent.

        Args:
            done: Steps done.
            total: Steps in all.
            text: What to say of them.
        """
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES and done < total:
            print(f"    step {done}/{total}: {text}", flush=True)
            self._printed = now


class StopOnNan(keras.callbacks.Callback):
    """Ends training with a `DivergedError` at the first loss not finite."""

    def __init__(self, steps_per_epoch: int):
        """Makes the callback.

        Args:
            steps_per_epoch: Steps in an epoch.
        """
        super().__init__()
        self._steps_per_epoch = steps_per_epoch
        self._first_step = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the step."""
        self._first_step = epoch * self._steps_per_epoch

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the training losses."""
        self._check(logs, self._first_step + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the test losses, before anything is saved."""
        self._check(logs, self._first_step + self._steps_per_epoch)

    def _check(self, logs: Mapping[str, float], step: int) -> None:
        bad = {
            name: value
            for name, value in logs.items()
            if name.endswith("loss") and not math.isfinite(value)
        }
        if bad:
            # The total says less than the losses it is made of.
            parts = [name for name in bad if name not in ("loss", "val_loss")]
            names = parts or list(bad)
            raise errors.DivergedError(
                f"step {step}: {', '.join(names)} became {bad[names[0]]}; "
                "the last checkpoint is from before"
            )


class CsvLog(keras.callbacks.Callback):
    """Keeps `metrics.csv`: a row for each epoch, also over several starts."""

    def __init__(self, path: pathlib.Path, steps_per_epoch: int):
        """Reads the rows of earlier starts.

        Args:
            path: The file.
            steps_per_epoch: Steps in an epoch.
        """
        super().__init__()
        self._path = path
        self._steps_per_epoch = steps_per_epoch
        self.rows = read_csv(path)

    def rewind(self, step: int) -> None:
        """Drops the rows that come after `step`."""
        self.rows = [row for row in self.rows if row["step"] <= step]

    def on_epoch_end(self, epoch, logs=None):
        """Adds a row."""
        step = (epoch + 1) * self._steps_per_epoch
        self.rows.append({"step": step, **logs})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self._path, text.getvalue())


class SaveEpoch(keras.callbacks.Callback):
    """Writes a checkpoint after each epoch."""

    def __init__(self, saved: checkpoints.Checkpoints, steps_per_epoch: int):
        """Makes the callback.

        Args:
            saved: The checkpoints of the run.
            steps_per_epoch: Steps in an epoch.
        """
        super().__init__()
        self._saved = saved
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        self._saved.save((epoch + 1) * self._steps_per_epoch)


class KeepBest(keras.callbacks.Callback):
    """Keeps the checkpoint of the epoch with the lowest value of a metric."""

    def __init__(
        self, saved: checkpoints.Checkpoints, log: CsvLog, watched: str
    ):
        """Makes the callback.

        Args:
            saved: The checkpoints of the run.
            log: The log of all epochs.
            watched: The metric.
        """
        super().__init__()
        self._saved = saved
        self._log = log
        self._watched = watched

    def on_train_begin(self, logs=None):
        """Makes up for a process that died before it kept the best."""
        self._keep()

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the last checkpoint if it is the best."""
        self._keep()

    def _keep(self) -> None:
        rows = self._log.rows
        if rows and min(rows, key=lambda row: row[self._watched]) is rows[-1]:
            self._saved.keep_as_best(rows[-1]["step"])


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras' progress bar, which leaves out single losses if many."""

    def set_params(self, params):
        """Shows the bar although `fit` is told to print nothing."""
        super().set_params({**params, "verbose": 1})

    def on_train_batch_end(self, batch, logs=None):
        """Moves on."""
        super().on_train_batch_end(batch, _brief(logs))

    def on_epoch_end(self, epoch, logs=None):
        """Ends a line."""
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
    """Prints the losses of an epoch, every few seconds."""

    def __init__(self, steps_per_epoch: int):
        """Makes the callback.

        Args:
            steps_per_epoch: Steps in an epoch.
        """
        super().__init__()
        self._steps_per_epoch = steps_per_epoch
        self._lines = ProgressLines()

    def on_epoch_end(self, epoch, logs=None):
        """Prints."""
        self._lines.update(
            (epoch + 1) * self._steps_per_epoch,
            self.params["epochs"] * self._steps_per_epoch,
            f"loss {logs['loss']:.4g}, val_loss {logs['val_loss']:.4g}",
        )


def read_csv(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads `metrics.csv`; a file that is not there has no rows."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return [
            {
                name: int(value) if name == "step" else float(value)
                for name, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def fit(
    model: keras.Model,
    training_data: Callable[[int], tf.data.Dataset],
    test_data: tf.data.Dataset,
    *,
    steps: int,
    steps_per_epoch: int,
    directory: pathlib.Path,
    verbosity: str,
    watched: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, Any]]:
    """Trains a model from its last checkpoint, if any, to the end.

    On one replica of a CPU the weights and the log come out bit for bit the
    same, however often the process was killed on the way.

    Args:
        model: A compiled model, built, its optimizer built as well.
        training_data: Gives endless batches from a step on.
        test_data: What to evaluate on after each epoch.
        steps: Steps in all; a multiple of `steps_per_epoch`.
        steps_per_epoch: Steps from one evaluation to the next.
        directory: Takes `metrics.csv`, `checkpoints` and `tensorboard`.
        verbosity: `bar` for Keras' progress bar, on a terminal; `lines` for
            a line every few seconds.
        watched: The logged metric of which the lowest value marks the best
            step; the model ends with the weights of that step. None for
            those of the last one.
        callbacks: What else is to happen; what they add to the logs of an
            epoch is logged.

    Returns:
        The logs of every epoch, with the step.

    Raises:
        errors.DivergedError: If a loss is no longer finite.
        errors.UserError: If the checkpoints do not fit.
    """
    saved = checkpoints.Checkpoints(directory / "checkpoints", model)
    start = saved.restore()
    if start:
        print(f"    resuming after step {start} of {steps}.", flush=True)
    log = CsvLog(directory / "metrics.csv", steps_per_epoch)
    log.rewind(start)
    show_bar = verbosity == "bar" and sys.stdout.isatty()
    callbacks = [
        StopOnNan(steps_per_epoch),
        *callbacks,
        log,
        keras.callbacks.TensorBoard(
            directory / "tensorboard", write_graph=False
        ),
        SaveEpoch(saved, steps_per_epoch),
    ]
    if watched is not None:
        callbacks.append(KeepBest(saved, log, watched))
    callbacks.append(
        ProgressBar() if show_bar else PrintEpochs(steps_per_epoch)
    )
    model.fit(
        training_data(start),
        validation_data=test_data,
        initial_epoch=start // steps_per_epoch,
        epochs=steps // steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    if watched is not None:
        saved.restore_best()
    return log.rows
