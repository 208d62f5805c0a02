"""The trained model of a run directory, in use."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import keras

from data import prepared
from trainers import errors
from trainers.runs import directory as run_directory
from trainers.runs import execution, serving
from trainers.runs.experiment import Experiment, Run
from trainers.runs.fit_experiment import FitExperiment
from trainers.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model in use.

    Attributes:
        model: From raw inputs to named outputs; see
            `FitExperiment.serving_model`.
        step: The step of its weights.
        is_final: Whether it is the one that the finished run left.
    """

    model: serving.Served
    step: int
    is_final: bool


def read_run(
    directory: pathlib.Path,
    experiments: Mapping[str, Experiment],
    data_dir: str | None = None,
) -> Run:
    """Reads what run a directory holds.

    Args:
        directory: The run directory.
        experiments: The experiments by name.
        data_dir: Where prepared data sets lie.

    Raises:
        UserError: If it holds no run of these experiments.
    """
    record = run_directory.read(directory)
    if record is None or record.identity["experiment"] not in experiments:
        raise errors.UserError(
            f"{directory}: holds no run of the experiment "
            f"{' or '.join(experiments)}; give the --run_dir of launch.train."
        )
    experiment = experiments[record.identity["experiment"]]
    return Run(
        experiment,
        execution.parse_method(record.method),
        record.seed,
        dataclasses.replace(experiment.defaults, **record.identity["config"]),
        directory,
        data_dir,
    )


def load(
    directory: pathlib.Path,
    experiments: Mapping[str, Experiment],
    step: int | None = None,
    data_dir: str | None = None,
) -> Trained:
    """Loads the model that a run left, or makes it from a checkpoint.

    Args:
        directory: The run directory.
        experiments: The experiments by name.
        step: The step of the checkpoint; by default that of the finished run,
            or else the best or the last so far.
        data_dir: Where prepared data sets lie, for a model from a checkpoint.

    Raises:
        UserError: If there is no such run, checkpoint or model.
        prepared.DataError: If the data are needed and not there.
    """
    run = read_run(directory, experiments, data_dir)
    record = run_directory.read(directory)
    left = (record.results or {}).get("model")
    is_final = left is not None and step in (None, left["step"])
    if is_final and left["format"] == "keras":
        return Trained(_read(directory / left["file"]), left["step"], True)
    if not isinstance(run.experiment, FitExperiment):
        raise errors.UserError(
            f"{directory}: a run of {run.experiment.name} leaves a model only "
            "at its end; let it finish, and leave --step out."
        )
    # Checkpoints identify variables by name, and names count the layers.
    keras.backend.clear_session()
    model = run.experiment.make_model(run)
    saved = checkpoints.Checkpoints(
        directory / "checkpoints", model, writes=False
    )
    if step is not None:
        saved.restore_at(step)
    elif run.experiment.watched and saved.has_best:
        step = saved.restore_best()
    else:
        step = saved.restore()
    if not step:
        raise errors.UserError(
            f"{directory}: holds no checkpoint yet; train it with launch.train "
            "first."
        )
    served = run.experiment.serving_model(run, model)
    if served is None:
        raise errors.UserError(
            f"{directory}: a run of {run.experiment.name} leaves no model."
        )
    return Trained(served, step, is_final)


def _read(path: pathlib.Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as error:
        text = prepared.first_line(error)
        raise errors.UserError(
            f"{path} cannot be read ({text}); make it again by launch.export "
            "with --step."
        ) from None
