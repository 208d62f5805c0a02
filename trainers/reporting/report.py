"""The report on all runs below a directory: tables, plots and notes."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from trainers import config, drawing, errors, files
from trainers.reporting import rendering, tables
from trainers.runs import comparison
from trainers.runs import directory as run_directory
from trainers.runs.experiment import Experiment, Record, find


def create(
    directory: pathlib.Path,
    experiments: Mapping[str, Experiment],
) -> str:
    """Creates the report on all runs below a directory.

    Args:
        directory: The directory of the runs; `report.md`, `report.html` and
            `plots/*.png` are written there.
        experiments: All experiments by name.

    Returns:
        The report as plain text.

    Raises:
        UserError: If there are no runs, or one cannot be read.
    """
    records, missing = collect(directory)
    sections = []
    counts = collections.Counter()
    for name, group in _groups(records):
        # A second config of an experiment has separate plots.
        counts[name] += 1
        count = counts[name]
        suffix = f"-{count}" if count > 1 else ""
        # Planned runs have no config yet: the first section lists them.
        notes = missing.pop(name, [])
        experiment = find(experiments, name)
        sections.append(_section(experiment, group, notes, suffix))
    images = {
        figure.name: drawing.png(figure.drawing)
        for section in sections
        for figure in section.figures
    }
    for name, image in images.items():
        with files.replacing(directory / "plots" / f"{name}.png") as file:
            file.write(image)
    files.write_text(directory / "report.md", rendering.markdown(sections))
    files.write_text(
        directory / "report.html", rendering.page(sections, images)
    )
    return rendering.text(sections)


def collect(
    directory: pathlib.Path,
) -> tuple[list[Record], dict[str, list[str]]]:
    """Reads every run below a directory.

    Args:
        directory: The directory; runs are found at any depth.

    Returns:
        The records of the runs, and by experiment a note for each planned run
        that has not started.

    Raises:
        UserError: If there are no runs, or one cannot be read.
    """
    if not directory.is_dir():
        raise errors.UserError(
            f"{directory} is not a directory; give the --run_dir of earlier "
            "runs."
        )
    records = [
        run_directory.read(path.parent)
        for path in sorted(directory.rglob(run_directory.CONFIG_NAME))
    ]
    if not records:
        raise errors.UserError(
            f"{directory} holds no runs; start some with "
            "`python -m launch.train` or `python -m launch.compare`."
        )
    missing = {}
    for path in sorted(directory.rglob(comparison.PLAN)):
        plan = files.read_json(path)
        missing.setdefault(path.parent.name, []).extend(
            f"{name}: not started"
            for name in plan["runs"]
            if not (path.parent / name / run_directory.CONFIG_NAME).exists()
        )
    return records, missing


def _groups(
    records: Sequence[Record],
) -> list[tuple[str, list[Record]]]:
    """Groups the runs that may be averaged: one experiment, one config."""
    groups = {}
    for record in records:
        config = json.dumps(record.identity["config"], sort_keys=True)
        key = (record.identity["experiment"], config)
        groups.setdefault(key, []).append(record)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [(experiment, group) for (experiment, _), group in ordered]


def _section(
    experiment: Experiment,
    records: Sequence[Record],
    missing: Sequence[str],
    suffix: str,
) -> rendering.Section:
    finished, notes = _finished(records)
    notes += missing
    changes = config.difference(
        dataclasses.asdict(experiment.defaults), records[0].identity["config"]
    )
    title = f"{experiment.name}: {experiment.title}"
    subtitle = f"default / here: {'; '.join(changes)}" if changes else ""
    if not finished:
        return rendering.Section(
            title, [], [*notes, "No run has finished."], [], subtitle
        )
    samples = {
        method: _by_key(experiment, group) for method, group in finished.items()
    }
    paper = experiment.is_published(records[0].identity["config"])
    shown = [tables.results(experiment, finished, samples, paper)]
    if tables.BASELINE in finished and len(finished) > 1:
        shown.append(tables.differences(experiment, samples))
        notes.append(tables.caution(experiment, samples))
    elif tables.BASELINE not in finished:
        notes.append(
            "There is no finished baseline here, so no difference is given."
        )
    figures = [
        dataclasses.replace(figure, name=figure.name + suffix)
        for draw in experiment.figures
        for figure in draw(experiment, finished)
    ]
    return rendering.Section(title, shown, notes, figures, subtitle)


def _finished(
    records: Sequence[Record],
) -> tuple[dict[str, list[Record]], list[str]]:
    """Returns the finished runs by method, and a note for each other run."""
    finished, notes, seen = {}, [], {}
    for record in sorted(records, key=_order):
        label = f"{record.method} seed {record.seed}"
        if record.status == "failed":
            notes.append(f"{label}: failed at {record.results['reason']}")
        elif record.status == "unfinished":
            notes.append(f"{label}: not finished")
        elif (record.method, record.seed) in seen:
            first = seen[record.method, record.seed]
            notes.append(
                f"{label}: {record.directory} repeats {first}, not counted"
            )
        else:
            seen[record.method, record.seed] = record.directory
            finished.setdefault(record.method, []).append(record)
    return finished, notes


def _order(record: Record) -> tuple:
    """Returns a sort key: first the default comparison, in its order."""
    known = comparison.METHODS
    method = record.method
    place = known.index(method) if method in known else len(known)
    return place, method, record.seed


def _by_key(
    experiment: Experiment,
    records: Sequence[Record],
) -> dict[str, dict[tuple[int, int], float]]:
    """Returns the samples of each metric by (seed, index)."""
    gathered = {}
    for record in records:
        for metric, values in experiment.samples(record).items():
            gathered.setdefault(metric, {}).update(
                ((record.seed, index), float(value))
                for index, value in enumerate(values)
            )
    return gathered
