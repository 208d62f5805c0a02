"""Base class of the experiments that train a Keras model."""

import abc
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from data import streams
from trainers import errors
from trainers.config import FitConfig
from trainers.runs import serving
from trainers.runs.experiment import Experiment, Record, Run
from trainers.training import loop, preemption
from trainers.training.progress import Progress

# Errors of a collective operation when a process or its machine is lost.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class FitExperiment(Experiment):
    """Base class of the experiments that train a Keras model.

    Attributes:
        watched: The logged metric whose lowest value marks the best step, whose
            checkpoint is kept; None keeps none.
    """

    distributes = True
    sample = "seed"
    watched: ClassVar[str | None] = None

    @abc.abstractmethod
    def build(self, run: Run) -> keras.Model:
        """Makes the compiled model."""

    @abc.abstractmethod
    def training_data(
        self, run: Run, reading: streams.Reading
    ) -> tf.data.Dataset:
        """Makes a worker's part of endless batches."""

    @abc.abstractmethod
    def test_data(self, run: Run) -> tf.data.Dataset | None:
        """Makes one pass over the test batches, the same for all workers.

        None if `evaluator` measures the model.
        """

    @abc.abstractmethod
    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        """Computes the reported metrics from the log of an epoch."""

    def evaluator(self, run: Run, model: keras.Model) -> loop.Evaluator | None:
        """Makes what measures the model if Keras' `evaluate` does not."""
        return None

    def callbacks(
        self, run: Run, model: keras.Model
    ) -> Sequence[keras.callbacks.Callback]:
        """Makes further callbacks of `fit`."""
        return []

    def conclude(self, run: Run, model: keras.Model) -> dict[str, float]:
        """Computes further metrics of the trained model.

        Args:
            run: The run.
            model: The model, with the weights of the best step if one is kept.

        Returns:
            Further final metrics.
        """
        return {}

    def serving_model(
        self, run: Run, model: keras.Model
    ) -> serving.Served | None:
        """Makes the model that a run leaves, which needs no code of ours.

        Args:
            run: The run.
            model: The trained model.

        Returns:
            A model of Keras' own layers, or a function, from raw inputs to
            named outputs; None if the task has none.
        """
        return None

    def kept_row(self, rows: Sequence[Mapping[str, float]]) -> Mapping:
        """Returns the log of the best step if one is kept, or of the last."""
        if self.watched:
            return min(rows, key=lambda row: row[self.watched])
        return rows[-1]

    def check_data(self, run: Run) -> None:
        """Checks the data for damage after reading them failed.

        Raises:
            prepared.DataError: If they are damaged; names file and record.
        """

    def check(self, run: Run) -> None:
        """See the base class."""
        num_replicas = run.devices.num_replicas
        if run.config.batch_size % num_replicas:
            raise errors.UserError(
                f"--config.batch_size: got {run.config.batch_size}, expected "
                f"a multiple of the {num_replicas} replicas; change one of "
                "them."
            )
        if run.config.jit_compile and num_replicas > 1:
            raise errors.UserError(
                f"--config.jit_compile: XLA cannot compile the step of "
                f"{num_replicas} replicas; use --strategy=one or "
                "--config.jit_compile=false."
            )

    def make_model(self, run: Run) -> keras.Model:
        """Builds the model on the run's devices, ready for training.

        Raises:
            UserError: If the method does not fit it.
        """
        strategy = run.devices.make()
        with strategy.scope(), _computing_in(run.config.mixed_precision):
            try:
                model = self.build(run)
            except ValueError as error:
                raise errors.UserError(
                    f"{run.experiment.name} with {run.method}: {error}"
                ) from error
            _finish(model, run.config)
        return model

    def execute(self, run: Run, progress: Progress) -> serving.Outcome:
        """See the base class."""
        worker = run.worker
        with preemption.watching() as notice:
            model = self.make_model(run)
            try:
                rows = loop.fit(
                    model,
                    lambda start: self.training_data(
                        run, _read_from(run, start)
                    ),
                    self.test_data(run),
                    config=run.config,
                    directory=run.directory,
                    progress=progress,
                    evaluator=self.evaluator(run, model),
                    watched=self.watched,
                    more=self.callbacks(run, model),
                    worker=worker,
                    notice=notice,
                )
            except tf.errors.OpError as error:
                if worker.count > 1 and isinstance(error, _LOST_WORKER):
                    raise errors.InterruptedRunError(
                        "another worker is lost "
                        f"({type(error).__name__}); restart all workers"
                    ) from None
                self.check_data(run)
                raise
        row = self.kept_row(rows)
        metrics = {**self.measure(row), **self.conclude(run, model)}
        return serving.Outcome(metrics, self._leave_model(run, model, row))

    def _leave_model(
        self, run: Run, model: keras.Model, row: Mapping[str, float]
    ) -> dict[str, Any] | None:
        """Writes the model in use, and says of which step it is."""
        if not run.worker.is_chief:
            return None
        served = self.serving_model(run, model)
        if served is None:
            return None
        return serving.leave(
            served, run.directory, int(row["step"]), self.watched
        )

    def samples(self, record: Record) -> dict[str, np.ndarray]:
        """See the base class."""
        metrics = record.results["metrics"]
        return {name: np.array([value]) for name, value in metrics.items()}


def make_multi_loss_model(
    run: Run, trunk: keras.Model, heads: keras.Model, separate: bool = False
) -> gd.MultiLossModel:
    """Joins trunk and heads in a model that trains by the run's recipe.

    Args:
        run: The run.
        trunk: The trunk.
        heads: The heads.
        separate: Whether the losses are batch separated.
    """
    return gd.MultiLossModel(
        trunk,
        heads,
        recipe=run.recipe,
        loss_chunk_size=run.config.loss_chunk_size or None,
        separate=separate,
    )


def _read_from(run: Run, start: int) -> streams.Reading:
    return streams.Reading(
        run.config.batch_size, run.seed, start, run.worker.shard
    )


@contextlib.contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Sets the precision of the layers made inside."""
    before = keras.config.dtype_policy()
    if precision != "none":
        keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _finish(model: keras.Model, config: FitConfig) -> None:
    """Sets what all experiments have in common; builds the optimizer."""
    model.jit_compile = config.jit_compile
    model.steps_per_execution = config.steps_per_execution
    optimizer = model.optimizer
    if config.gradient_accumulation_steps > 1:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner.gradient_accumulation_steps = config.gradient_accumulation_steps
    optimizer.build(model.trainable_variables)
