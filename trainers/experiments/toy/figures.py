"""The curves that a run of the toy leaves, and their figures."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from trainers import files
from trainers.experiments.toy import landscape
from trainers.reporting import plots
from trainers.runs import columns, experiment

_CURVES = "curves.npz"


def save_curves(directory: pathlib.Path, **arrays: np.ndarray) -> None:
    """Writes the curves of a run into its directory."""
    with files.replacing(directory / _CURVES) as file:
        np.savez_compressed(file, **arrays)


def load_curves(directory: pathlib.Path) -> dict[str, Any]:
    """Reads the curves of a run."""
    with np.load(directory / _CURVES) as archive:
        return dict(archive)


def draw_losses(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    """Draws the losses and their sum (the paper's Figure 2a)."""
    limit = next(iter(records.values()))[0].identity["config"]["start_range"]
    grid = np.linspace(-limit, limit, 2001, dtype=np.float32)
    values = landscape.losses(tf.constant(grid)).numpy()
    caption = (
        "The five losses (thin) and their sum, which is minimised. The global "
        f"minimum is {landscape.GLOBAL_MINIMUM} (the paper's Figure 2a)."
    )
    drawing = plots.landscape(grid, values, landscape.GLOBAL_MINIMUM)
    return [columns.Figure("toy_a_losses", caption, drawing)]


def draw_descents(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    """Draws one run of each method, from the same start (Figure 2b)."""
    loaded = {
        name: load_curves(runs[0].directory) for name, runs in records.items()
    }
    start = next(iter(loaded.values()))["starts"][0]
    caption = (
        "Sum of the losses in one run of each method, all from "
        f"w = {start:.3f} (Figure 2b)."
    )
    drawing = plots.panels(
        {name: arrays["first_curve"] for name, arrays in loaded.items()},
        "step",
        "sum of losses",
        floor=landscape.GLOBAL_MINIMUM,
    )
    return [columns.Figure("toy_b_curves", caption, drawing)]


def draw_final_losses(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    """Draws the final losses of all runs (Figure 2c)."""
    finals = {
        method: np.concatenate(
            [load_curves(run.directory)["final_losses"] for run in runs]
        )
        for method, runs in records.items()
    }
    caption = (
        "Final losses of all runs: median, quartiles, and whiskers at 1.5 "
        "times the distance of the quartiles; the diamond is the mean "
        "(Figure 2c)."
    )
    drawing = plots.boxes(
        finals, "final sum of losses", landscape.GLOBAL_MINIMUM
    )
    return [columns.Figure("toy_c_final_losses", caption, drawing)]
