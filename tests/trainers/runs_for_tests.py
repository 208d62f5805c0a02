"""Short runs, and run directories written by hand."""

import dataclasses
import pathlib

from trainers import files
from trainers.experiments import registry, toy
from trainers.runs import experiment

SHORT_TOY = toy.ToyConfig(
    jit_compile=False, num_starts=4, steps=20, halve_every=10
)
DIVERGING_TOY = dataclasses.replace(SHORT_TOY, learning_rate=float("inf"))


def toy_run(directory, **changes) -> experiment.Run:
    """Makes a run of four starts and twenty steps."""
    values = {
        "experiment": "toy",
        "method": "baseline",
        "seed": 0,
        "config": SHORT_TOY,
        "directory": directory,
    }
    return experiment.Run(**{**values, **changes})


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
