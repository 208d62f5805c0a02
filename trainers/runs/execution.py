"""Executes a run, from its directory to its `results.json`."""

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
from trainers import errors, files
from trainers.runs import directory
from trainers.runs.experiment import Record, Run
from trainers.training.progress import Progress


def parse_method(text: str) -> gd.Recipe:
    """Reads a recipe.

    Args:
        text: The recipe as written by the user.

    Returns:
        The recipe.

    Raises:
        UserError: If it is not a recipe.
    """
    try:
        return gd.Recipe.parse(text)
    except ValueError as error:
        message = str(error)
        if repr(text) not in message:
            message = f"method {text!r}: {message}"
        raise errors.UserError(message) from None


def check(run: Run) -> None:
    """Checks that a run can start.

    Args:
        run: The run.

    Raises:
        UserError: If it cannot.
        prepared.DataError: If the data set cannot be used.
    """
    experiment = run.experiment
    if not (experiment.distributes or run.devices.are_one):
        raise errors.UserError(
            f"{experiment.name}: got {run.devices.num_replicas} replicas, "
            "expected one device; leave out --strategy and --logical_cpus."
        )
    if run.data_dir is not None and not experiment.reads_data_dir:
        raise errors.UserError(
            f"--data_dir: got {run.data_dir}, but {experiment.name} reads no "
            "data from there; leave it out."
        )
    names = experiment.name_losses(run)
    experiment.check(run)
    try:
        run.recipe.make_state().set_losses(len(names), names)
    except ValueError as error:
        raise errors.UserError(
            f"{experiment.name} with {run.method}: {error}"
        ) from None
    directory.read(run.directory, run)


def execute(run: Run, progress: Progress) -> Record:
    """Executes a run, or the rest of it, unless it has ended.

    Args:
        run: The run.
        progress: Shows the progress.

    Returns:
        The record of the run, finished or failed.

    Raises:
        InterruptedRunError: If it was stopped from outside.
        UserError: If it cannot run.
        prepared.DataError: If the data set cannot be used.
    """
    check(run)
    record = directory.read(run.directory, run)
    if record and record.results:
        return record
    run.devices.wait()
    if run.worker.is_chief:
        files.write_json(
            run.directory / directory.CONFIG_NAME, directory.identify(run)
        )
    keras.backend.clear_session()
    keras.utils.set_random_seed(run.seed)
    started = time.monotonic()
    outcome = {"status": "finished", "reason": None}
    outcome |= {"metrics": {}, "model": None}
    try:
        outcome |= dataclasses.asdict(run.experiment.execute(run, progress))
    except errors.DivergedError as error:
        outcome |= {"status": "failed", "reason": str(error)}
    results = {
        **outcome,
        **directory.identify(run),
        **_describe_environment(run),
        "jit_compile": run.config.jit_compile,
        "resumed": record is not None,
        "wall_seconds": round(time.monotonic() - started, 3),
    }
    if run.worker.is_chief:
        files.write_json(run.directory / directory.RESULTS_NAME, results)
    run.devices.wait()
    return directory.read(run.directory, run)


def _describe_environment(run: Run) -> dict[str, Any]:
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
            run.devices.num_replicas if run.experiment.distributes else 1
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
    """Returns the commit of the checkout; `-dirty` marks local changes."""
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
