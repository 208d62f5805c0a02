"""Training on `model.fit` that may be stopped and started at any time."""

import contextlib
import csv
import io
import math
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from graddrop_tf import fitting
from trainers import config as config_lib
from trainers import errors, files
from trainers.training import checkpoints, devices, preemption, workers

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

    def __init__(self, steps_per_epoch: int, start: int = 0):
        """Makes the callback.

        Args:
            steps_per_epoch: Steps in an epoch.
            start: Steps taken before.
        """
        super().__init__()
        self._steps_per_epoch = steps_per_epoch
        self._start = start

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the step."""
        self._first_step = max(epoch * self._steps_per_epoch, self._start)

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the training losses."""
        self._check(logs, self._first_step + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the test losses, before anything is saved."""
        self._check(logs, (epoch + 1) * self._steps_per_epoch)

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

    def __init__(
        self, path: pathlib.Path, steps_per_epoch: int, writes: bool = True
    ):
        """Reads the rows of earlier starts.

        Args:
            path: The file.
            steps_per_epoch: Steps in an epoch.
            writes: Whether this process is the one that writes it.
        """
        super().__init__()
        self._path = path
        self._writes = writes
        self._steps_per_epoch = steps_per_epoch
        self.rows = read_csv(path)

    def rewind(self, step: int) -> None:
        """Drops the rows that come after `step`."""
        self.rows = [row for row in self.rows if row["step"] <= step]

    def on_epoch_end(self, epoch, logs=None):
        """Adds a row."""
        step = (epoch + 1) * self._steps_per_epoch
        self.rows.append({"step": step, **logs})
        if not self._writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write_text(self._path, text.getvalue())


class SaveCheckpoints(keras.callbacks.Callback):
    """Writes checkpoints: after each epoch, in between, and when told to stop.

    All workers decide together, so that they save and stop at one step.
    """

    def __init__(
        self,
        saved: checkpoints.Checkpoints,
        config: config_lib.FitConfig,
        start: int,
        notice: preemption.Notice,
        gather: devices.Gathering,
    ):
        """Makes the callback.

        Args:
            saved: The checkpoints of the run.
            config: Says when there is to be one.
            start: Steps taken before.
            notice: Whether the process has been told to stop.
            gather: The exchange between the workers.
        """
        super().__init__()
        self._saved = saved
        self._config = config
        self._start = start
        self._notice = notice
        self._gather = gather
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Takes up an epoch where it was left."""
        first = epoch * self._config.steps_per_epoch
        self._first_step = max(first, self._start)
        self._looked_at = self._first_step
        self._saved.restore_metrics()

    def on_train_batch_end(self, batch, logs=None):
        """Saves in the middle of an epoch."""
        step = self._first_step + batch + 1
        # At the end of an epoch comes its test first; the sums of unfinished
        # updates are in no checkpoint.
        if (
            step % self._config.steps_per_epoch == 0
            or step % self._config.gradient_accumulation_steps
        ):
            return
        every = self._config.checkpoint_steps
        due = every and step // every > self._looked_at // every
        self._looked_at = step
        stop, late = self._ask()
        if due or late or stop:
            self._save(step, in_epoch=True)
        if stop:
            self._stop(step)

    def on_epoch_end(self, epoch, logs=None):
        """Saves a whole epoch."""
        step = (epoch + 1) * self._config.steps_per_epoch
        self._save(step, in_epoch=False)
        if step < self._config.steps and self._ask()[0]:
            self._stop(step)

    def _ask(self) -> tuple[bool, bool]:
        """Whether a worker was told to stop; whether it has been long."""
        seconds = 60.0 * self._config.checkpoint_minutes
        late = 0.0 < seconds <= time.monotonic() - self._saved_at
        answers = self._gather(2.0 * self._notice.given + late)
        # The chief's clock is that of all.
        return bool(np.any(answers >= 2.0)), bool(answers[0] % 2.0)

    def _save(self, step: int, in_epoch: bool) -> None:
        self._saved.save(step, in_epoch)
        self._saved_at = time.monotonic()

    def _stop(self, step: int) -> None:
        raise errors.InterruptedRunError(
            f"stopped by SIGTERM and saved after step {step} of "
            f"{self._config.steps}"
        )


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


@contextlib.contextmanager
def _writing_events(directory: pathlib.Path) -> Iterator[None]:
    """Lets a summary that TensorFlow cannot write be told in one line."""
    try:
        yield
    except tf.errors.OpError as error:
        if str(directory) not in error.message:
            raise
        reason = error.message.splitlines()[0].rpartition("; ")[2]
        raise errors.UserError(
            f"{directory} cannot be written ({reason}); no checkpoint is lost. "
            "Make room, or see to the permissions, and use the same command "
            "again."
        ) from None


def fit(
    model: keras.Model,
    training_data: Callable[[int], tf.data.Dataset],
    test_data: tf.data.Dataset,
    *,
    config: config_lib.FitConfig,
    directory: pathlib.Path,
    verbosity: str,
    watched: str | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    worker: workers.Worker | None = None,
    notice: preemption.Notice | None = None,
) -> list[dict[str, Any]]:
    """Trains a model from its last checkpoint, if any, to the end.

    On one replica of a CPU the weights and the log come out bit for bit the
    same, however often the process was killed on the way; on several the
    log's row of an epoch that was cut in two is the same up to rounding.

    Args:
        model: A compiled model, built, its optimizer built as well.
        training_data: Gives the worker's part of endless batches from a step
            on.
        test_data: What to evaluate on after each epoch, the same on all
            workers.
        config: Says how many steps there are and when to save.
        directory: Takes `metrics.csv`, `checkpoints` and `tensorboard`; all
            workers see it, the chief writes.
        verbosity: `bar` for Keras' progress bar, on a terminal; `lines` for
            a line every few seconds.
        watched: The logged metric of which the lowest value marks the best
            step; the model ends with the weights of that step. None for
            those of the last one.
        callbacks: What else is to happen; what they add to the logs of an
            epoch is logged.
        worker: Which of several processes this is; by default it is alone.
        notice: Whether the process has been told to stop.

    Returns:
        The logs of every epoch, with the step.

    Raises:
        errors.DivergedError: If a loss is no longer finite.
        errors.InterruptedRunError: If a worker was told to stop, after a
            checkpoint.
        errors.UserError: If the checkpoints do not fit, or a file cannot be
            written.
    """
    fitting.train_on_replicas(model)
    strategy = model.distribute_strategy
    worker = worker or workers.Worker()
    gather = devices.Gathering(strategy, worker)
    steps_per_epoch = config.steps_per_epoch
    saved = checkpoints.Checkpoints(
        directory / "checkpoints",
        model,
        num_kept=config.kept_checkpoints,
        writes=worker.is_chief,
    )
    start = saved.restore()
    starts = gather(start)
    if np.any(starts != start):
        raise errors.UserError(
            f"{directory}: the workers found checkpoints of the steps "
            f"{starts.astype(int).tolist()}, expected one; give a directory "
            "that all of them share."
        )
    if start:
        print(f"    resuming after step {start} of {config.steps}.", flush=True)
    log = CsvLog(directory / "metrics.csv", steps_per_epoch, worker.is_chief)
    log.rewind(start)
    callbacks = [StopOnNan(steps_per_epoch, start), *callbacks, log]
    events = directory / "tensorboard"
    if worker.is_chief:
        callbacks.append(keras.callbacks.TensorBoard(events, write_graph=False))
    callbacks.append(
        SaveCheckpoints(
            saved, config, start, notice or preemption.Notice(), gather
        )
    )
    if watched is not None:
        callbacks.append(KeepBest(saved, log, watched))
    if worker.is_chief:
        show_bar = verbosity == "bar" and sys.stdout.isatty()
        callbacks.append(
            ProgressBar() if show_bar else PrintEpochs(steps_per_epoch)
        )
    test_data = devices.distribute_test(strategy, worker, test_data)

    def fit_epochs(first: int, last: int, num_steps: int, step: int) -> None:
        data = devices.distribute_training(
            strategy, worker, training_data(step)
        )
        with warnings.catch_warnings(), _writing_events(events):
            # Keras says so of test data whose length it does not know.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            model.fit(
                data,
                validation_data=test_data,
                initial_epoch=first,
                epochs=last,
                steps_per_epoch=num_steps,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )

    epoch, done = divmod(start, steps_per_epoch)
    if done:
        # The metrics that are to be restored exist once they were used.
        model.evaluate(test_data, steps=1, verbose=0)
        fit_epochs(epoch, epoch + 1, steps_per_epoch - done, start)
        epoch += 1
    if epoch < config.steps // steps_per_epoch:
        fit_epochs(
            epoch,
            config.steps // steps_per_epoch,
            steps_per_epoch,
            epoch * steps_per_epoch,
        )
    if watched is not None:
        # Not before the chief has written it.
        gather(0.0)
        saved.restore_best()
    return log.rows
