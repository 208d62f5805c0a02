"""The tables of the report: results, and differences from the baseline."""

from collections.abc import Mapping, Sequence

import numpy as np

from trainers.reporting import rendering, statistics
from trainers.runs.experiment import Experiment, Record

BASELINE = "baseline"
_FEW = 10
# By method, metric, and (seed, index).
Samples = Mapping[str, Mapping[str, Mapping[tuple[int, int], float]]]


def results(
    experiment: Experiment,
    finished: Mapping[str, Sequence[Record]],
    samples: Samples,
    with_paper: bool,
) -> rendering.Table:
    """Makes the table of results, a row for each method.

    Args:
        experiment: The experiment.
        finished: Its finished runs, by method.
        samples: The samples of these runs.
        with_paper: Whether to show the published numbers.

    Returns:
        The table.
    """
    heading = ["method"]
    for column in experiment.table:
        heading.append(column.label)
        if with_paper and column.paper:
            heading.append(f"{column.label} (paper)")
    rows = []
    for method, metrics in samples.items():
        row = [method]
        for column in experiment.table:
            row.append(
                column.show(np.array([*metrics[column.metric].values()]))
            )
            if with_paper and column.paper:
                published = column.paper.get(method)
                row.append("" if published is None else f"{published:g}")
        count = len(metrics[experiment.compared])
        rows.append([*row, _seconds(finished[method]), str(count)])
    return rendering.Table(
        [*heading, "seconds in all", f"{experiment.sample}s"], rows
    )


def _seconds(records: Sequence[Record]) -> str:
    """Formats the total time; a resumed run counts only its last part."""
    total = sum(record.results["wall_seconds"] for record in records)
    resumed = any(record.results["resumed"] for record in records)
    return f"{'> ' if resumed else ''}{total:.1f}"


def differences(
    experiment: Experiment,
    samples: Samples,
) -> rendering.Table:
    """Makes the table of differences from the baseline.

    Args:
        experiment: The experiment.
        samples: The samples of its finished runs, the baseline among them.

    Returns:
        The table.
    """
    digits = experiment.compared_digits
    rows = []
    for method, metrics in samples.items():
        if method == BASELINE:
            continue
        found = statistics.compare(
            metrics[experiment.compared],
            samples[BASELINE][experiment.compared],
        )
        if found is None:
            rows.append([method, "", "", "0", "no sample in common"])
            continue
        interval = f"{found.low:+.{digits}f} to {found.high:+.{digits}f}"
        rows.append(
            [
                method,
                f"{found.mean:+.{digits}f}",
                interval if found.num_pairs > 1 else "",
                str(found.num_pairs),
                found.verdict(experiment.lower_is_better),
            ]
        )
    heading = [
        f"{experiment.compared_label}: method - baseline",
        "mean",
        "95 % interval",
        "pairs",
        "verdict",
    ]
    return rendering.Table(heading, rows)


def caution(
    experiment: Experiment,
    samples: Samples,
) -> str:
    """Explains how to read the two tables.

    Args:
        experiment: The experiment.
        samples: The samples of its finished runs, the baseline among them.

    Returns:
        A note for the report.
    """
    baseline = samples[BASELINE][experiment.compared]
    # Of the intervals that are shown.
    counts = [
        len(metrics[experiment.compared].keys() & baseline.keys())
        for method, metrics in samples.items()
        if method != BASELINE
    ]
    count = min((n for n in counts if n > 1), default=0)
    better = "lower" if experiment.lower_is_better else "higher"
    if not count:
        return (
            f"{better.capitalize()} is better. An interval needs two "
            f"{experiment.sample}s or more."
        )
    text = (
        f"Means and standard deviations (n - 1) are over the "
        f"{experiment.sample}s; {better} is better. The interval is a paired "
        f"t interval over equal {experiment.sample}s, for each method alone: "
        "of twenty methods without any effect, about one would be called "
        "better or worse. If the interval contains zero, the difference is "
        "within the noise."
    )
    if count < _FEW:
        text += (
            f" With {count} {experiment.sample}s the interval is wide, so "
            '"within the noise" does not show that the methods are equal.'
        )
    return text
