"""What a run is, and what an experiment is.

An experiment knows its data, its model and its losses. A run brings a recipe;
the experiment never asks which methods are in it.
"""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import graddrop_tf as gd
from trainers import config as config_lib
from trainers import errors
from trainers.runs import columns
from trainers.training import workers
from trainers.training.devices import DEFAULT_DEVICES, Devices
from trainers.training.progress import Progress


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: everything that decides its numbers, and where they go.

    Attributes:
        experiment: What is learned.
        recipe: The methods.
        seed: Decides the weights, the order of the data and all draws.
        config: Values of the experiment.
        directory: Holds everything that the run writes.
        data_dir: Where prepared data sets lie; None for the default.
        devices: What it runs on.
    """

    experiment: Experiment
    recipe: gd.Recipe
    seed: int
    config: config_lib.Config
    directory: pathlib.Path
    data_dir: str | None = None
    devices: Devices = DEFAULT_DEVICES

    @property
    def method(self) -> str:
        """Canonical text of the recipe."""
        return str(self.recipe)

    @property
    def worker(self) -> workers.Worker:
        """Which of the processes that train together this one is."""
        return self.devices.worker


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


# Runs of one config by method.
Records = Mapping[str, Sequence[Record]]


class Experiment(abc.ABC):
    """Base class of all experiments.

    Attributes:
        name: Its name in commands, directories and files.
        title: A line that says what is learned from what.
        defaults: The default config.
        variants: Other values of some of its fields, by a name for
            `--config`.
        num_losses: How many losses share the trunk; see `count_losses`.
        table: The columns of its table in the report.
        figures: Draw the figures of its report, each from the experiment and
            the finished runs of all methods.
        compared: The metric by which methods are set against the baseline.
        compared_label: What to call it in a sentence.
        compared_digits: Decimals that its differences are shown with.
        lower_is_better: Which way it improves.
        distributes: Whether it can use several replicas.
        reads_data_dir: Whether it reads data sets prepared elsewhere.
        sample: What one sample of a metric belongs to, such as "seed".
        search_space: Ranges for `launch.tune`, see `trainers.search.space`: by
            field of the config, or by method as in `graddrop.k`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    defaults: ClassVar[config_lib.Config]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    num_losses: ClassVar[int]
    table: ClassVar[Sequence[columns.Column]]
    figures: ClassVar[Sequence[Draw]] = ()
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
    def check(self, run: Run) -> None:
        """Raises an `errors.UserError` for what cannot be run."""

    @abc.abstractmethod
    def execute(self, run: Run, progress: Progress) -> dict[str, float]:
        """Carries out a run, or the rest of it.

        Args:
            run: What to do.
            progress: Shows how far it is.

        Returns:
            The final metrics.

        Raises:
            errors.DivergedError: If a loss is no longer finite.
        """

    @abc.abstractmethod
    def samples(self, record: Record) -> dict[str, np.ndarray]:
        """Reads the samples `[n]` of each metric from a finished run."""


Draw = Callable[[Experiment, Records], Sequence[columns.Figure]]


def find(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Returns the experiment of a name.

    Raises:
        UserError: If there is none; the message lists those that there are.
    """
    if name not in experiments:
        raise errors.UserError(
            f"experiment {name!r} is unknown; expected one of "
            f"{', '.join(experiments)}."
        )
    return experiments[name]
