"""Callbacks of `fit` that save checkpoints and stop at NaN."""

import math
import time
from collections.abc import Callable, Mapping

import keras
import numpy as np

from trainers import errors
from trainers.config import FitConfig
from trainers.training import checkpoints, exchange, logs, preemption
from trainers.training.clock import Clock


class StopOnNan(keras.callbacks.Callback):
    """Raises a `DivergedError` at the first loss that is not finite.

    Keras' `TerminateOnNaN` looks at the total alone and does not name the
    loss.
    """

    def __init__(self, clock: Clock):
        """Makes the callback.

        Args:
            clock: Counts the steps.
        """
        super().__init__()
        self._clock = clock

    def on_train_batch_end(self, batch, logs=None):
        """Checks the training losses."""
        self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Checks the test losses before anything is saved."""
        self._check(logs)

    def _check(self, logs: Mapping[str, float]) -> None:
        bad = {
            name: value
            for name, value in logs.items()
            if name.endswith("loss") and not math.isfinite(value)
        }
        if bad:
            # The parts say more than their total.
            parts = [name for name in bad if name not in ("loss", "val_loss")]
            names = parts or list(bad)
            raise errors.DivergedError(
                f"step {self._clock.step}: {', '.join(names)} became "
                f"{bad[names[0]]}; the last checkpoint is from before"
            )


class Evaluate(keras.callbacks.Callback):
    """Measures the model after each epoch, in place of Keras' `evaluate`."""

    def __init__(self, evaluator: Callable[[], Mapping[str, float]]):
        """Makes the callback.

        Args:
            evaluator: Returns the test logs, without the prefix `val_`.
        """
        super().__init__()
        self._evaluator = evaluator

    def on_epoch_end(self, epoch, logs=None):
        """Adds the test logs to those of the epoch."""
        values = self._evaluator()
        logs.update({f"val_{name}": value for name, value in values.items()})


class SaveCheckpoints(keras.callbacks.Callback):
    """Saves checkpoints after each epoch, within it, and when asked to stop.

    All workers decide together, so that they save and stop at the same step.
    """

    def __init__(
        self,
        saved: checkpoints.Checkpoints,
        config: FitConfig,
        clock: Clock,
        notice: preemption.Notice,
        gather: exchange.Gathering,
    ):
        """Makes the callback.

        Args:
            saved: The checkpoints of the run.
            config: Says when to save.
            clock: Counts the steps.
            notice: Whether the process was asked to stop.
            gather: The exchange between the workers.
        """
        super().__init__()
        self._saved = saved
        self._config = config
        self._clock = clock
        self._notice = notice
        self._gather = gather
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Restores the metrics of an epoch that was interrupted."""
        self._looked_at = self._clock.step
        self._saved.restore_metrics()

    def on_train_batch_end(self, batch, logs=None):
        """Saves within an epoch, if it is time to."""
        step = self._clock.step
        # An epoch is saved after its evaluation; checkpoints do not hold the
        # sums of unfinished updates.
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
        """Saves a finished epoch."""
        step = self._clock.step
        self._save(step, in_epoch=False)
        if step < self._config.steps and self._ask()[0]:
            self._stop(step)

    def _ask(self) -> tuple[bool, bool]:
        """Returns whether a worker has to stop, and whether a save is due."""
        seconds = 60.0 * self._config.checkpoint_minutes
        late = 0.0 < seconds <= time.monotonic() - self._saved_at
        answers = self._gather(2.0 * self._notice.given + late)
        # Only the chief's time counts, so that all decide alike.
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
        self, saved: checkpoints.Checkpoints, log: logs.CsvLog, watched: str
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
        """Keeps the best if an earlier process died before it could."""
        self._keep()

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the last checkpoint if it is the best."""
        self._keep()

    def _keep(self) -> None:
        rows = self._log.rows
        if rows and min(rows, key=lambda row: row[self._watched]) is rows[-1]:
            self._saved.keep_as_best(rows[-1]["step"])
