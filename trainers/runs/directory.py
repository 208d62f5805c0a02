"""Reads and identifies run directories."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from trainers import errors, files
from trainers.config import difference
from trainers.runs.experiment import Record, Run

CONFIG_NAME = "config.json"
RESULTS_NAME = "results.json"
_IDENTITY = ("experiment", "method", "seed", "config")


def identify(run: Run) -> dict[str, Any]:
    """Returns the identity of a run, the content of `config.json`."""
    return {
        "experiment": run.experiment.name,
        "method": run.method,
        "seed": run.seed,
        "config": dataclasses.asdict(run.config),
    }


def read(directory: pathlib.Path, run: Run | None = None) -> Record | None:
    """Reads a run directory.

    Args:
        directory: The run directory.
        run: The run that it must belong to, if given.

    Returns:
        The record; None if no run has started.

    Raises:
        UserError: If the directory belongs to another run or to none.
    """
    identity = files.read_json(directory / CONFIG_NAME)
    if identity is None:
        if directory.exists() and any(
            # A killed process may have left a temporary file.
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
            f"{directory / CONFIG_NAME} has no {', '.join(missing)}, so it "
            "does not belong to a run; give another directory."
        )
    if run is not None and (changes := _changes(identity, run)):
        raise errors.UserError(
            f"{directory} holds another run ({'; '.join(changes)}: there / "
            "asked for); give another directory or remove this one."
        )
    results = files.read_json(directory / RESULTS_NAME)
    return Record(directory, identity, results)


def _changes(identity: Mapping[str, Any], run: Run) -> list[str]:
    """Lists the differences; a field newer than the file has its default."""
    config = identity["config"]
    if isinstance(config, Mapping):
        config = {**dataclasses.asdict(run.experiment.defaults), **config}
    return difference({**identity, "config": config}, identify(run))


def describe(record: Record) -> str:
    """Describes in one line how a run ended."""
    results = record.results
    if record.status == "failed":
        return (
            f"failed at {results['reason']}. Remove "
            f"{record.directory / RESULTS_NAME} to resume from the last "
            "checkpoint."
        )
    metrics = ", ".join(
        f"{name} {value:.4g}" for name, value in results["metrics"].items()
    )
    return f"{metrics} ({results['wall_seconds']:.1f} s)"


def training_command(run: Run) -> str:
    """Returns the `launch.train` command of a run as a shell line."""
    defaults = dataclasses.asdict(run.experiment.defaults)
    flags = {
        "experiment": run.experiment.name,
        "method": run.method,
        "seed": run.seed,
    }
    for name, value in dataclasses.asdict(run.config).items():
        if value != defaults[name]:
            flags[f"config.{name}"] = value
    flags["run_dir"] = run.directory
    if run.data_dir is not None:
        flags["data_dir"] = run.data_dir
    for field in dataclasses.fields(run.devices):
        value = getattr(run.devices, field.name)
        if value != field.default:
            flags[field.name] = value
    return shlex.join(
        ["python", "-m", "launch.train"]
        + [f"--{name}={value}" for name, value in flags.items()]
    )
