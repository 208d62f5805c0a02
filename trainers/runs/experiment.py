"""Defines runs and experiments.

An experiment knows its data, its model and its losses. A run adds a recipe;
the experiment never depends on the methods in it.
"""

from __future__ import annotations

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import graddrop_tf as gd
from trainers import errors
from trainers.config import Config
from trainers.runs import columns, serving
from trainers.training import workers
from trainers.training.devices import DEFAULT_DEVICES, Devices
from trainers.training.progress import Progress


@dataclasses.dataclass(frozen=True)
class Run:
    """A run: everything that determines its numbers, and where they go.

    Attributes:
        experiment: The experiment.
        recipe: The methods.
        seed: Seed of the weights, the order of the data and all draws.
        config: Values of the experiment.
        directory: The run directory.
        data_dir: Folder of the prepared data sets; None for the default.
        devices: The devices it runs on.
    """

    experiment: Experiment
    recipe: gd.Recipe
    seed: int
    config: Config
    directory: pathlib.Path
    data_dir: str | None = None
    devices: Devices = DEFAULT_DEVICES

    @property
    def method(self) -> str:
        """Canonical text of the recipe."""
        return str(self.recipe)

    @property
    def worker(self) -> workers.Worker:
        """This process among those that train together."""
        return self.devices.worker


@dataclasses.dataclass(frozen=True)
class Record:
    """The content of a run directory.

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
        title: One line about the task.
        defaults: The default config.
        variants: Other values of some of its fields, by a name for
            `--config`.
        loss_names: The losses that share the trunk; see `name_losses`.
        table: The columns of its table in the report.
        figures: Draw the figures of its report, each from the experiment and
            the finished runs of all methods.
        compared: The metric by which methods are compared with the baseline.
        compared_label: Its name in a sentence.
        compared_digits: Decimals of its differences.
        lower_is_better: Whether lower values are better.
        distributes: Whether it can use several replicas.
        reads_data_dir: Whether it reads prepared data sets.
        data_fields: The fields of the config that name data sets.
        sample: The source of one sample of a metric, such as "seed".
        search_space: Ranges for `launch.tune`, see `trainers.search.space`: by
            field of the config, or by method as in `graddrop.k`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    defaults: ClassVar[Config]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    loss_names: ClassVar[Sequence[str]]
    table: ClassVar[Sequence[columns.Column]]
    figures: ClassVar[Sequence[Draw]] = ()
    compared: ClassVar[str]
    compared_label: ClassVar[str]
    compared_digits: ClassVar[int]
    lower_is_better: ClassVar[bool]
    distributes: ClassVar[bool] = False
    reads_data_dir: ClassVar[bool] = False
    data_fields: ClassVar[Sequence[str]] = ()
    sample: ClassVar[str]
    search_space: ClassVar[Mapping[str, str]] = {}

    def is_published(self, config: Mapping[str, Any]) -> bool:
        """Whether the paper's numbers are for the data of this config."""
        return True

    def data_sets(self, config: Config) -> Sequence[str]:
        """Names the data sets that a run reads, if they can be downloaded."""
        return [getattr(config, field) for field in self.data_fields]

    def name_losses(self, run: Run) -> Sequence[str]:
        """Names the losses of a run, whose data may determine them."""
        return self.loss_names

    @abc.abstractmethod
    def check(self, run: Run) -> None:
        """Raises an `errors.UserError` for a run that cannot start."""

    @abc.abstractmethod
    def execute(self, run: Run, progress: Progress) -> serving.Outcome:
        """Executes a run, or the rest of it.

        Args:
            run: The run.
            progress: Shows the progress.

        Returns:
            The final metrics, and the model that it leaves, if any.

        Raises:
            errors.DivergedError: If a loss is no longer finite.
        """

    @abc.abstractmethod
    def samples(self, record: Record) -> dict[str, np.ndarray]:
        """Reads the samples `[n]` of each metric from a finished run."""


Draw = Callable[[Experiment, Records], Sequence[columns.Figure]]


def find(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """Returns the experiment with a name.

    Raises:
        UserError: If the name is unknown; the message lists the known ones.
    """
    if name not in experiments:
        raise errors.UserError(
            f"experiment {name!r} is unknown; expected one of "
            f"{', '.join(experiments)}."
        )
    return experiments[name]
