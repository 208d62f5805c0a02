"""Figures for experiments to declare: curves, final values, sweeps."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np

import graddrop_tf as gd
from trainers.reporting import plots
from trainers.runs import columns, experiment, fit_experiment
from trainers.training.logs import read_csv

Series = dict[str, tuple[np.ndarray, np.ndarray]]
_BANDS = "mean over the seeds, with bands of one standard deviation"


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A number to plot.

    Attributes:
        metric: Its name among the metrics that `FitExperiment.measure` returns.
        label: Label of its axis, with the unit.
        title: Its name in captions.
        read: Reads it from a row of `metrics.csv` if it is not a metric; NaN
            where it was not logged.
    """

    metric: str
    label: str
    title: str
    read: Callable[[Mapping[str, float]], float] | None = None


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """A quantity during training, a line for each method.

    Attributes:
        name: Name of the figure.
        quantity: The quantity.
        note: Added to the caption in brackets.
        methods: Draws these methods alone, and nothing unless all are there;
            empty for all methods.
        y_scale: "log" or "linear".
    """

    name: str
    quantity: Quantity
    note: str = ""
    methods: Sequence[str] = ()
    y_scale: str = "log"

    def __call__(
        self,
        trained: fit_experiment.FitExperiment,
        records: experiment.Records,
    ) -> list[columns.Figure]:
        """Draws the curve, unless a run did not log the quantity."""
        if not {*self.methods} <= {*records}:
            return []
        read = self.quantity.read or (
            lambda row: trained.measure(row)[self.quantity.metric]
        )
        series = {
            method: _over_steps(records[method], read)
            for method in self.methods or records
        }
        if any(np.isnan(values).any() for _, values in series.values()):
            return []
        caption = f"{self.quantity.title} during training: {_BANDS}"
        caption += f" ({self.note})." if self.note else "."
        drawing = plots.bands(series, "step", self.quantity.label, self.y_scale)
        return [columns.Figure(self.name, caption, drawing)]


@dataclasses.dataclass(frozen=True)
class FinalDots:
    """A metric after the last step, a dot for each seed.

    Attributes:
        name: Name of the figure.
        quantity: The metric.
    """

    name: str
    quantity: Quantity

    def __call__(
        self, _: experiment.Experiment, records: experiment.Records
    ) -> list[columns.Figure]:
        """Draws the dots of each method."""
        metric = self.quantity.metric
        samples = {
            method: np.array([run.results["metrics"][metric] for run in runs])
            for method, runs in records.items()
        }
        caption = (
            f"{self.quantity.title} after the last step: each seed (dot), "
            "mean and standard deviation (bar). The band belongs to the first "
            "method."
        )
        drawing = plots.dots(samples, self.quantity.label)
        return [columns.Figure(self.name, caption, drawing)]


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A metric after the last step, over an argument of GradDrop.

    Attributes:
        name: Name of the figure.
        quantity: The metric.
        argument: Name of the argument, see `find_sweeps`.
        label: Label of its axis.
    """

    name: str
    quantity: Quantity
    argument: str
    label: str

    def __call__(
        self, _: experiment.Experiment, records: experiment.Records
    ) -> list[columns.Figure]:
        """Draws the sweeps, if there are any."""
        series = find_sweeps(records, self.argument, self.quantity.metric)
        if not series:
            return []
        caption = (
            f"{self.quantity.title} after the last step, by {self.label}: "
            f"{_BANDS}."
        )
        drawing = plots.bands(series, self.label, self.quantity.label)
        return [columns.Figure(self.name, caption, drawing)]


def find_sweeps(
    records: experiment.Records, argument: str, metric: str
) -> Series:
    """Finds runs whose methods differ in one argument of GradDrop alone.

    Args:
        records: The finished runs of each method.
        argument: Name of an argument of `gd.GradDrop`. Of a list with a value
            for each loss the first value counts; a dict by loss name is
            skipped.
        metric: Name of a final metric.

    Returns:
        Each sweep by what its methods have in common: two or more values
        `[n]` in ascending order, and the metric `[seeds, n]` for the seeds
        that all of them have.
    """
    sweeps = {}
    for runs in records.values():
        for common, value in _without(argument, runs[0].method):
            metrics = {run.seed: run.results["metrics"][metric] for run in runs}
            sweeps.setdefault(common, {})[value] = metrics
    series = {}
    for common, points in sweeps.items():
        values = sorted(points)
        seeds = sorted(set.intersection(*map(set, points.values())))
        if len(values) > 1 and seeds:
            numbers = [[points[v][seed] for v in values] for seed in seeds]
            series[common] = np.array(values), np.array(numbers)
    return series


def _over_steps(
    runs: Sequence[experiment.Record],
    read: Callable[[Mapping[str, float]], float],
) -> tuple[np.ndarray, np.ndarray]:
    """Reads the steps `[n]` and a quantity `[seeds, n]` of a method's runs."""
    logs = [read_csv(run.directory / "metrics.csv") for run in runs]
    steps = np.array([row["step"] for row in logs[0]])
    return steps, np.array([[read(row) for row in rows] for rows in logs])


def _without(argument: str, method: str) -> list[tuple[str, float]]:
    """Returns the method without the argument, and its value, per GradDrop."""
    default = inspect.signature(gd.GradDrop).parameters[argument].default
    recipe = gd.Recipe.parse(method)
    found = []
    for index, combiner in enumerate(recipe.combiners):
        if combiner.make is not gd.GradDrop:
            continue
        arguments = dict(combiner.arguments)
        value = arguments.pop(argument, default)
        if isinstance(value, Mapping):
            continue
        combiners = list(recipe.combiners)
        combiners[index] = dataclasses.replace(combiner, arguments=arguments)
        rest = dataclasses.replace(recipe, combiners=combiners)
        found.append((str(rest), np.ravel(value)[0].item()))
    return found
