"""Trains with `model.fit`, across interruptions at any time."""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from trainers import errors
from trainers.config import FitConfig
from trainers.training import (
    callbacks,
    checkpoints,
    distribution,
    exchange,
    logs,
    preemption,
    workers,
)
from trainers.training.clock import Clock
from trainers.training.progress import Progress

TrainingData = Callable[[int], tf.data.Dataset]
Evaluator = Callable[[], Mapping[str, float]]


def fit(
    model: keras.Model,
    training_data: TrainingData,
    test_data: tf.data.Dataset | None,
    *,
    config: FitConfig,
    directory: pathlib.Path,
    progress: Progress,
    evaluator: Evaluator | None = None,
    watched: str | None = None,
    more: Sequence[keras.callbacks.Callback] = (),
    worker: workers.Worker | None = None,
    notice: preemption.Notice | None = None,
) -> list[dict[str, Any]]:
    """Trains a model from its last checkpoint, if any, to its last step.

    On one CPU replica the weights and the log do not depend on when the
    process was killed; on several, an interrupted epoch's row is rounded.

    Args:
        model: A compiled model, built with its optimizer.
        training_data: Maps a step to endless batches, the worker's part.
        test_data: For Keras' `evaluate`, the same on all workers, or None.
        config: The number of steps, and when to save.
        directory: The run directory; only the chief writes.
        progress: Shows the progress.
        evaluator: Returns the test logs, such as `loss`, after an epoch.
        watched: A logged metric, whose lowest value marks the weights that
            the model ends with; by default it ends with the last.
        more: Further callbacks; their additions to the logs are logged.
        worker: This worker; by default the only one.
        notice: Whether the process was asked to stop.

    Returns:
        The logs of every epoch, with the step.

    Raises:
        DivergedError, InterruptedRunError, UserError: See `trainers.errors`.
    """
    gd.train_on_replicas(model)
    worker = worker or workers.Worker()
    session = _Session(model, config, directory, worker)
    session.restore()
    session.add_callbacks(evaluator, more, watched, notice)
    if worker.is_chief:
        session.callbacks.append(progress.callback(session.clock))
    session.fit(training_data, test_data)
    if watched is not None:
        session.restore_best()
    return session.log.rows


class _Session:
    """One process's part of a training, from a checkpoint to the end."""

    def __init__(self, model, config, directory, worker):
        self._model = model
        self._config = config
        self._directory = directory
        self._worker = worker
        self._events = directory / "tensorboard"
        self._gather = exchange.Gathering(model.distribute_strategy, worker)
        self._saved = checkpoints.Checkpoints(
            directory / "checkpoints",
            model,
            num_kept=config.kept_checkpoints,
            writes=worker.is_chief,
        )

    def restore(self) -> None:
        """Restores the newest checkpoint, the same on all workers."""
        start = self._saved.restore()
        starts = self._gather(start)
        if np.any(starts != start):
            raise errors.UserError(
                f"{self._directory}: the workers found checkpoints of the "
                f"steps {starts.astype(int).tolist()}, expected one; give a "
                "directory that all of them share."
            )
        steps = self._config.steps
        if start:
            print(f"    resuming after step {start} of {steps}.", flush=True)
        self.clock = Clock(self._config.steps_per_epoch, start)
        self.log = logs.CsvLog(
            self._directory / "metrics.csv", self.clock, self._worker.is_chief
        )
        self.log.rewind(start)

    def add_callbacks(self, evaluator, more, watched, notice) -> None:
        """Lists the callbacks in the order in which they must act."""
        notice = notice or preemption.Notice()
        stop = callbacks.StopOnNan(self.clock)
        self.callbacks = [self.clock, stop, *more, self.log]
        if evaluator is not None:
            self.callbacks.insert(1, callbacks.Evaluate(evaluator))
        if self._worker.is_chief:
            self.callbacks.append(
                keras.callbacks.TensorBoard(self._events, write_graph=False)
            )
        self.callbacks.append(
            callbacks.SaveCheckpoints(
                self._saved, self._config, self.clock, notice, self._gather
            )
        )
        if watched is not None:
            self.callbacks.append(
                callbacks.KeepBest(self._saved, self.log, watched)
            )

    def fit(self, training_data, test_data) -> None:
        """Trains the rest of an interrupted epoch, then the other epochs."""
        steps_per_epoch = self._config.steps_per_epoch
        if test_data is not None:
            test_data = distribution.distribute_test(
                self._model.distribute_strategy, self._worker, test_data
            )
        epoch, done = divmod(self.clock.step, steps_per_epoch)
        if done:
            # Keras builds metrics on first use; restoring has to wait for it.
            data = test_data
            if data is None:
                data = self._distribute(training_data(self.clock.step))
            self._model.evaluate(data, steps=1, verbose=0)
            self._fit_epochs(training_data, test_data, epoch, epoch + 1, done)
            epoch += 1
        last = self._config.steps // steps_per_epoch
        if epoch < last:
            self._fit_epochs(training_data, test_data, epoch, last)

    def _fit_epochs(
        self, training_data, test_data, first: int, last: int, done: int = 0
    ) -> None:
        """Trains epochs, the first of them from its step `done`."""
        steps_per_epoch = self._config.steps_per_epoch
        data = self._distribute(training_data(first * steps_per_epoch + done))
        with warnings.catch_warnings(), _writing_events(self._events):
            # Keras warns about test data of unknown length.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            self._model.fit(
                data,
                validation_data=test_data,
                initial_epoch=first,
                epochs=last,
                steps_per_epoch=steps_per_epoch - done,
                callbacks=self.callbacks,
                shuffle=False,
                verbose=0,
            )

    def _distribute(self, data: tf.data.Dataset):
        return distribution.distribute_training(
            self._model.distribute_strategy, self._worker, data
        )

    def restore_best(self) -> None:
        """Restores the best checkpoint, after the chief has written it."""
        self._gather(0.0)
        self._saved.restore_best()


@contextlib.contextmanager
def _writing_events(directory: pathlib.Path) -> Iterator[None]:
    """Reports summaries that TensorFlow cannot write in one line."""
    try:
        yield
    except tf.errors.OpError as error:
        if str(directory) not in error.message:
            raise
        reason = error.message.splitlines()[0].rpartition("; ")[2]
        raise errors.UserError(
            f"{directory} cannot be written ({reason}); no checkpoint is lost. "
            "Free some space or fix the permissions, then run the same "
            "command again."
        ) from None
