"""A run from its directory to its `results.json`."""

import dataclasses
import os
import pathlib
import platform
import subprocess
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from data import prepared
from trainers import config as config_lib
from trainers import errors, files
from trainers.experiments import registry
from trainers.runs import experiment as experiment_lib
from trainers.training import devices

CONFIG_NAME = "config.json"
_RESULTS = "results.json"
_IDENTITY = ("experiment", "method", "seed", "config")


def parse_method(text: str) -> gd.Recipe:
    """Reads a recipe.

    Args:
        text: What the user wrote.

    Returns:
        The recipe.

    Raises:
        UserError: If it is not a recipe.
    """
    try:
        return gd.Recipe.parse(text)
    except ValueError as error:
        raise errors.UserError(f"method {text!r}: {error}") from None


def check(run: experiment_lib.Run) -> gd.Recipe:
    """Looks for everything that would stop a run at its start.

    Args:
        run: What is going to be run.

    Returns:
        The run's recipe.

    Raises:
        UserError: If there is such a thing.
    """
    recipe = parse_method(run.method)
    experiment = registry.find(run.experiment)
    num_replicas = devices.count_replicas(run.strategy, run.logical_cpus)
    alone = run.strategy in ("auto", "one") and run.logical_cpus == 1
    if not (experiment.distributes or alone):
        raise errors.UserError(
            f"{run.experiment}: got {num_replicas} replicas, expected one "
            "device; leave out --strategy and --logical_cpus."
        )
    if run.data_dir is not None and not experiment.reads_data_dir:
        raise errors.UserError(
            f"--data_dir: got {run.data_dir}, but {run.experiment} reads no "
            "data from there; leave it out."
        )
    try:
        count = experiment.count_losses(run)
        experiment.check(run, recipe)
    except prepared.DataError as error:
        raise errors.UserError(str(error)) from None
    try:
        recipe.build(count)
    except ValueError as error:
        raise errors.UserError(
            f"{run.experiment} with {run.method}: {error}"
        ) from None
    read(run.directory, run)
    return recipe


def read(
    directory: pathlib.Path, run: experiment_lib.Run | None = None
) -> experiment_lib.Record | None:
    """Reads what a run directory says.

    Args:
        directory: The run directory.
        run: The run that it has to be of, if any.

    Returns:
        The record; None where no run has started.

    Raises:
        UserError: If the directory holds something else.
    """
    identity = files.read_json(directory / CONFIG_NAME)
    if identity is None:
        if directory.exists() and any(
            # A process that was killed may have left one.
            path.suffix != files.SUFFIX
            for path in directory.iterdir()
        ):
            raise errors.UserError(
                f"{directory} holds other files and no {CONFIG_NAME}; give a "
                "new or an empty directory."
            )
        return None
    if missing := [name for name in _IDENTITY if name not in identity]:
        raise errors.UserError(
            f"{directory / CONFIG_NAME} says nothing of "
            f"{', '.join(missing)}; it is not of a run. Give another "
            "directory."
        )
    if run is not None and identity != _identity(run):
        changes = config_lib.difference(identity, _identity(run))
        raise errors.UserError(
            f"{directory} holds another run ({'; '.join(changes)}: there / "
            "asked for); give another directory or remove this one."
        )
    results = files.read_json(directory / _RESULTS)
    return experiment_lib.Record(directory, identity, results)


def execute(run: experiment_lib.Run, verbosity: str) -> experiment_lib.Record:
    """Carries out a run, or the rest of it, unless it has ended.

    Args:
        run: What to do.
        verbosity: One of `loop.VERBOSITIES`.

    Returns:
        The record of the run, finished or failed.

    Raises:
        InterruptedRunError: If it was cut off from outside.
        UserError: If it cannot be run as asked.
    """
    recipe = check(run)
    record = read(run.directory, run)
    if record and record.results:
        return record
    devices.wait_for_all(run.strategy)
    if run.worker.is_chief:
        files.write_json(run.directory / CONFIG_NAME, _identity(run))
    keras.backend.clear_session()
    keras.utils.set_random_seed(run.seed)
    started = time.monotonic()
    outcome = {"status": "finished", "reason": None, "metrics": {}}
    try:
        outcome["metrics"] = registry.find(run.experiment).execute(
            run, recipe, verbosity
        )
    except errors.DivergedError as error:
        outcome |= {"status": "failed", "reason": str(error)}
    except prepared.DataError as error:
        raise errors.UserError(str(error)) from None
    results = {
        **outcome,
        **_identity(run),
        **_surroundings(run),
        "jit_compile": run.config.jit_compile,
        "resumed": record is not None,
        "wall_seconds": round(time.monotonic() - started, 3),
    }
    if run.worker.is_chief:
        files.write_json(run.directory / _RESULTS, results)
    devices.wait_for_all(run.strategy)
    return read(run.directory, run)


def describe(record: experiment_lib.Record) -> str:
    """Says in one line how a run ended."""
    results = record.results
    if record.status == "failed":
        return (
            f"failed at {results['reason']}. Remove "
            f"{record.directory / _RESULTS} to try again from there."
        )
    metrics = ", ".join(
        f"{name} {value:.4g}" for name, value in results["metrics"].items()
    )
    return f"{metrics} ({results['wall_seconds']:.1f} s)"


def _identity(run: experiment_lib.Run) -> dict[str, Any]:
    return {
        "experiment": run.experiment,
        "method": run.method,
        "seed": run.seed,
        "config": dataclasses.asdict(run.config),
    }


def _surroundings(run: experiment_lib.Run) -> dict[str, Any]:
    return {
        "versions": {
            "graddrop_tf": gd.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
        },
        "device": _device(),
        "num_replicas": (
            devices.count_replicas(run.strategy, run.logical_cpus)
            if registry.find(run.experiment).distributes
            else 1
        ),
        "git_commit": _git_commit(),
    }


def _device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = tf.config.experimental.get_device_details(gpus[0])
        return f"{len(gpus)} x {details.get('device_name', 'GPU')}"
    return f"CPU, {os.cpu_count()} cores, {platform.machine()}"


def _git_commit() -> str | None:
    """Names the commit of the checkout; `-dirty` marks changes to it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(
            [*command, "--exclude=*"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
