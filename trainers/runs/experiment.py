"""What an experiment is.

An experiment knows its data, its model and its losses. It is given a recipe
and never asks which methods are in it.
"""

import abc
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from data import streams
from trainers import config as config_lib
from trainers import errors
from trainers.runs import columns
from trainers.training import devices, loop, preemption, workers

# What a collective operation ends with when a process or its machine ends.
_LOST_WORKER = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: all that decides its numbers, and where they go.

    Attributes:
        experiment: Name of the experiment.
        method: Canonical text of the recipe.
        seed: Decides the weights, the order of the data and all draws.
        config: Values of the experiment.
        directory: Where the run keeps everything.
        data_dir: Where prepared data sets lie; None for the default.
        strategy: One of `strategies.NAMES`.
        logical_cpus: How many devices to make of the CPU.
    """

    experiment: str
    method: str
    seed: int
    config: config_lib.Config
    directory: pathlib.Path
    data_dir: str | None = None
    strategy: str = "auto"
    logical_cpus: int = 1

    @property
    def worker(self) -> workers.Worker:
        """Which of the processes that train together this one is."""
        return workers.find(self.strategy)


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run directory says about a run.

    Attributes:
        directory: The run directory.
        identity: Experiment, method, seed and config, from `config.json`.
        results: The content of `results.json`; None for an unfinished run.
    """

    directory: pathlib.Path
    identity: Mapping[str, Any]
    results: Mapping[str, Any] | None

    @property
    def method(self) -> str:
        """Canonical text of the recipe."""
        return self.identity["method"]

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.identity["seed"]

    @property
    def status(self) -> str:
        """One of `finished`, `failed` and `unfinished`."""
        return self.results["status"] if self.results else "unfinished"


class Experiment(abc.ABC):
    """Base class of all experiments.

    Attributes:
        title: A line that says what is learned from what.
        defaults: The config when nothing is said.
        num_losses: How many losses share the trunk; see `count_losses`.
        table: The columns of its table in the report.
        compared: The metric by which methods are set against the baseline.
        compared_label: What to call it in a sentence.
        compared_digits: Decimals that its differences are shown with.
        lower_is_better: Which way it improves.
        distributes: Whether it can use several replicas.
        reads_data_dir: Whether it reads data sets prepared elsewhere.
        sample: What one sample of a metric belongs to, such as "seed".
        search_space: Ranges for `launch.tune`, see `search_space.py`: by
            field of the config, or by method as in `graddrop.k`.
    """

    title: ClassVar[str]
    defaults: ClassVar[config_lib.Config]
    num_losses: ClassVar[int]
    table: ClassVar[Sequence[columns.Column]]
    compared: ClassVar[str]
    compared_label: ClassVar[str]
    compared_digits: ClassVar[int]
    lower_is_better: ClassVar[bool]
    distributes: ClassVar[bool] = False
    reads_data_dir: ClassVar[bool] = False
    sample: ClassVar[str]
    search_space: ClassVar[Mapping[str, str]] = {}

    def is_published(self, config: Mapping[str, Any]) -> bool:
        """Whether the paper's numbers are of the data of this config."""
        return True

    def count_losses(self, run: Run) -> int:
        """Counts the losses of a run, where its data decide how many."""
        return self.num_losses

    @abc.abstractmethod
    def check(self, run: Run, recipe: gd.Recipe) -> None:
        """Raises an `errors.UserError` for what cannot be run."""

    @abc.abstractmethod
    def execute(
        self, run: Run, recipe: gd.Recipe, verbosity: str
    ) -> dict[str, float]:
        """Carries out a run, or the rest of it.

        Args:
            run: What to do.
            recipe: The method, parsed.
            verbosity: One of `loop.VERBOSITIES`.

        Returns:
            The final metrics.

        Raises:
            errors.DivergedError: If a loss is no longer finite.
        """

    @abc.abstractmethod
    def samples(self, record: Record) -> dict[str, np.ndarray]:
        """Reads the samples `[n]` of each metric from a finished run."""

    @abc.abstractmethod
    def figures(
        self, records: Mapping[str, Sequence[Record]]
    ) -> Sequence[columns.Figure]:
        """Draws the finished runs of each method, all of one config."""


class FitExperiment(Experiment):
    """Base class of the experiments that train a Keras model.

    Attributes:
        watched: The logged metric of which the lowest value marks the best
            step, whose checkpoint is kept; None keeps none.
    """

    distributes = True
    sample = "seed"
    watched: ClassVar[str | None] = None

    @abc.abstractmethod
    def build(self, run: Run, recipe: gd.Recipe) -> keras.Model:
        """Makes the compiled model."""

    @abc.abstractmethod
    def training_data(
        self, run: Run, start: int, shard: streams.Shard
    ) -> tf.data.Dataset:
        """Makes a worker's part of endless batches from step `start` on."""

    @abc.abstractmethod
    def test_data(self, run: Run) -> tf.data.Dataset:
        """Makes one pass over the test batches, the same for all workers."""

    @abc.abstractmethod
    def summarize(self, rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
        """Makes the final metrics from the logs of all epochs."""

    def callbacks(
        self, run: Run, model: keras.Model
    ) -> Sequence[keras.callbacks.Callback]:
        """Makes what else is to happen during training."""
        return []

    def conclude(self, run: Run, model: keras.Model) -> dict[str, float]:
        """Finds out what else is to be known of the trained model.

        Args:
            run: What was done.
            model: With the weights of the best step, where one is kept.

        Returns:
            Further final metrics.
        """
        return {}

    def check_data(self, run: Run) -> None:
        """Looks for damage in the data, after reading failed.

        Raises:
            prepared.DataError: Naming the file and the record.
        """

    def check(self, run: Run, recipe: gd.Recipe) -> None:
        """See the base class."""
        num_replicas = devices.count_replicas(run.strategy, run.logical_cpus)
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

    def make_model(self, run: Run, recipe: gd.Recipe) -> keras.Model:
        """Builds the model on the run's devices, ready to be trained.

        Raises:
            UserError: If there is none for this method.
        """
        strategy = devices.make(run.strategy, run.logical_cpus)
        with strategy.scope(), _computing_in(run.config.mixed_precision):
            try:
                model = self.build(run, recipe)
            except ValueError as error:
                raise errors.UserError(
                    f"{run.experiment} with {run.method}: {error}"
                ) from error
            _finish(model, run.config)
        return model

    def execute(
        self, run: Run, recipe: gd.Recipe, verbosity: str
    ) -> dict[str, float]:
        """See the base class."""
        worker = run.worker
        with preemption.watching() as notice:
            model = self.make_model(run, recipe)
            try:
                rows = loop.fit(
                    model,
                    lambda start: self.training_data(run, start, worker.shard),
                    self.test_data(run),
                    config=run.config,
                    directory=run.directory,
                    verbosity=verbosity,
                    watched=self.watched,
                    callbacks=self.callbacks(run, model),
                    worker=worker,
                    notice=notice,
                )
            except tf.errors.OpError as error:
                if worker.count > 1 and isinstance(error, _LOST_WORKER):
                    raise errors.InterruptedRunError(
                        "another worker is gone "
                        f"({type(error).__name__}); start all of them again"
                    ) from None
                self.check_data(run)
                raise
        return {**self.summarize(rows), **self.conclude(run, model)}

    def samples(self, record: Record) -> dict[str, np.ndarray]:
        """See the base class."""
        metrics = record.results["metrics"]
        return {name: np.array([value]) for name, value in metrics.items()}


@contextlib.contextmanager
def _computing_in(precision: str) -> Iterator[None]:
    """Lets layers made inside compute in another precision than float32."""
    before = keras.config.dtype_policy()
    if precision != "none":
        keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _finish(model: keras.Model, config: config_lib.FitConfig) -> None:
    """Sets what is the same for all experiments, and builds the optimizer."""
    model.steps_per_execution = config.steps_per_execution
    optimizer = model.optimizer
    if config.gradient_accumulation_steps > 1:
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner.gradient_accumulation_steps = config.gradient_accumulation_steps
    optimizer.build(model.trainable_variables)
