"""Runs whose methods differ in one argument of GradDrop alone."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence

import numpy as np

import graddrop_tf as gd
from trainers.runs import experiment


def find(
    records: Mapping[str, Sequence[experiment.Record]],
    argument: str,
    metric: str,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Finds sweeps of an argument among finished runs.

    Args:
        records: The runs of each method.
        argument: Name of an argument of `gd.GradDrop`; where it is a list
            for the losses, the first counts; by name it is not looked at.
        metric: A final metric.

    Returns:
        Under what its methods have in common, each sweep: two or more values
        `[n]` in order, and the metric `[seeds, n]` for the seeds that all
        have.
    """
    sweeps = {}
    for runs in records.values():
        for common, value in _places(runs[0].method, argument):
            samples = {run.seed: run.results["metrics"] for run in runs}
            sweeps.setdefault(common, {})[value] = samples
    curves = {}
    for common, points in sweeps.items():
        values = sorted(points)
        seeds = sorted(set.intersection(*map(set, points.values())))
        if len(values) > 1 and seeds:
            curves[common] = (
                np.array(values),
                np.array(
                    [
                        [points[v][seed][metric] for v in values]
                        for seed in seeds
                    ]
                ),
            )
    return curves


def _places(method: str, argument: str) -> list[tuple[str, float]]:
    """Takes the argument out of a recipe: what is left, and its value."""
    default = inspect.signature(gd.GradDrop).parameters[argument].default
    recipe = gd.Recipe.parse(method)
    places = []
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
        places.append((str(rest), np.ravel(value)[0].item()))
    return places
