"""Short runs of all experiments, and run directories written by hand."""

import dataclasses
import pathlib

from tests.data.lidar import frames
from trainers import files
from trainers.experiments import registry
from trainers.runs import execution, experiment
from trainers.training.devices import Devices
from trainers.training.progress import Progress

_VALUES = {
    "toy": {
        "jit_compile": False,
        "num_starts": 4,
        "steps": 20,
        "halve_every": 10,
    },
    "digits": {"steps": 4, "steps_per_epoch": 2},
    "celeba": {
        "steps": 6,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "height": 8,
        "width": 8,
        "channels": 1,
        "monitor_steps": 2,
    },
    "transfer": {
        "steps": 2,
        "steps_per_epoch": 1,
        "batch_size": 2,
        "source_batch_size": 4,
        "depth": 10,
        "growth_rate": 2,
        "training_split": "train",
    },
    "waymo": {
        "preset": "tiny",
        "dataset": frames.NAME,
        "steps": 4,
        "steps_per_epoch": 2,
        "batch_size": 2,
        "ramp_steps": 1,
        "evaluation_split": "test",
    },
}


def small_config(name, **values):
    """Makes the config of an experiment for a run of a few steps."""
    defaults = registry.EXPERIMENTS[name].defaults
    return dataclasses.replace(defaults, **{**_VALUES[name], **values})


def small_run(
    name,
    directory,
    method="baseline",
    *,
    seed=0,
    data_dir=None,
    strategy="auto",
    logical_cpus=1,
    **values,
) -> experiment.Run:
    """Makes a run of a few steps; `values` are those of the config."""
    return experiment.Run(
        registry.EXPERIMENTS[name],
        execution.parse_method(method),
        seed,
        small_config(name, **values),
        pathlib.Path(directory),
        None if data_dir is None else str(data_dir),
        Devices(strategy, logical_cpus),
    )


def finish(run) -> experiment.Record:
    """Carries a run out."""
    return execution.execute(run, Progress())


def write_digits(
    root: pathlib.Path,
    method: str,
    seed: int,
    error: float | None,
    reason: str | None = None,
    **changes,
) -> pathlib.Path:
    """Writes what a run of digits leaves: finished, failed or unfinished."""
    config = dataclasses.replace(
        registry.EXPERIMENTS["digits"].defaults, **changes
    )
    directory = root / f"{method}-{seed}-{config.steps}"
    identity = {
        "experiment": "digits",
        "method": method,
        "seed": seed,
        "config": dataclasses.asdict(config),
    }
    files.write_json(directory / "config.json", identity)
    if error is None and reason is None:
        return directory
    metrics = {}
    if reason is None:
        metrics = {
            "error": error,
            "upper_left_error": error - 1.0,
            "lower_right_error": error + 1.0,
            "test_loss": error / 10.0,
        }
        accuracy = 1.0 - error / 100.0
        files.write_text(
            directory / "metrics.csv",
            "step,val_loss,val_upper_left_accuracy,val_lower_right_accuracy\n"
            f"100,1.0,0.5,0.5\n200,0.5,{accuracy},{accuracy}\n",
        )
    results = {
        "status": "failed" if reason else "finished",
        "reason": reason,
        "metrics": metrics,
        "wall_seconds": 2.0,
        "resumed": False,
    }
    files.write_json(directory / "results.json", {**identity, **results})
    return directory
