"""What finished runs logged, by method, for plots over the seeds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trainers.runs import experiment
from trainers.training.logs import read_csv

Records = Mapping[str, Sequence[experiment.Record]]
BANDS = "mean over the seeds; the bands are one standard deviation to each side"


def over_steps(
    records: Records, read: Callable[[Mapping[str, float]], float]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads how a number went during training.

    Args:
        records: Finished runs of each method, all of one config.
        read: Takes the number out of a row of `metrics.csv`.

    Returns:
        For each method the steps `[n]` and the numbers `[seeds, n]`, as
        `plots.courses` draws them.
    """
    found = {}
    for method, runs in records.items():
        logs = [read_csv(run.directory / "metrics.csv") for run in runs]
        found[method] = (
            np.array([row["step"] for row in logs[0]]),
            np.array([[read(row) for row in rows] for rows in logs]),
        )
    return found


def at_the_end(records: Records, metric: str) -> dict[str, np.ndarray]:
    """Reads a final metric of every seed, `[seeds]`, as `plots.dots` draws."""
    return {
        method: np.array([run.results["metrics"][metric] for run in runs])
        for method, runs in records.items()
    }
