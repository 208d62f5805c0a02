"""Tables and plots of all runs below a directory."""

import collections
import dataclasses
import html
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from trainers import config as config_lib
from trainers import drawing, errors, files, text_table
from trainers.reporting import statistics
from trainers.runs import columns, comparison
from trainers.runs import directory as run_directory
from trainers.runs import experiment as experiment_lib

_BASELINE = "baseline"
_FEW = 10

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem;
       margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.92rem; }
th, td { padding: 0.3rem 0.8rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child, td:last-child { text-align: left; }
thead tr { border-bottom: 2px solid #444; }
tbody tr { border-bottom: 1px solid #ddd; }
figure { margin: 2rem 0; }
figcaption, .note { color: #555; font-size: 0.92rem; }
img { max-width: 100%; height: auto; }
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of texts."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class Section:
    """What the report says of one experiment with one config."""

    title: str
    tables: Sequence[Table]
    notes: Sequence[str]
    figures: Sequence[columns.Figure]


def write(
    directory: pathlib.Path,
    experiments: Mapping[str, experiment_lib.Experiment],
) -> str:
    """Reports on all runs below a directory.

    Args:
        directory: Takes `report.md`, `report.html` and `plots/*.png`.
        experiments: All experiments by name.

    Returns:
        The report as text.

    Raises:
        UserError: If there are no runs, or one cannot be read.
    """
    records, missing = collect(directory)
    sections = []
    counts = collections.Counter()
    for name, group in _groups(records):
        # A second config of an experiment has plots of its own.
        counts[name] += 1
        count = counts[name]
        suffix = f"-{count}" if count > 1 else ""
        # What was planned without a config is said once.
        notes = missing.pop(name, [])
        experiment = experiment_lib.find(experiments, name)
        sections.append(_section(experiment, group, notes, suffix))
    images = {
        figure.name: drawing.png(figure.drawing)
        for section in sections
        for figure in section.figures
    }
    for name, image in images.items():
        with files.replacing(directory / "plots" / f"{name}.png") as file:
            file.write(image)
    files.write_text(directory / "report.md", _markdown(sections))
    files.write_text(directory / "report.html", _page(sections, images))
    return _text(sections)


def collect(
    directory: pathlib.Path,
) -> tuple[list[experiment_lib.Record], dict[str, list[str]]]:
    """Reads every run below a directory.

    Args:
        directory: Where to look, at any depth.

    Returns:
        The runs, and for each experiment the planned runs that have not
        started.

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
    records: Sequence[experiment_lib.Record],
) -> list[tuple[str, list[experiment_lib.Record]]]:
    """Puts together what may be averaged: one experiment, one config."""
    groups = {}
    for record in records:
        config = json.dumps(record.identity["config"], sort_keys=True)
        key = (record.identity["experiment"], config)
        groups.setdefault(key, []).append(record)
    ordered = sorted(groups.items(), key=lambda item: item[0])
    return [(experiment, group) for (experiment, _), group in ordered]


def _section(
    experiment: experiment_lib.Experiment,
    records: Sequence[experiment_lib.Record],
    missing: Sequence[str],
    suffix: str,
) -> Section:
    finished, notes = _finished(records)
    notes += missing
    changes = config_lib.difference(
        dataclasses.asdict(experiment.defaults), records[0].identity["config"]
    )
    title = f"{experiment.name}: {experiment.title}"
    if changes:
        title += f" [default / here: {'; '.join(changes)}]"
    if not finished:
        return Section(title, [], [*notes, "No run has finished."], [])
    samples = {
        method: _by_key(experiment, group) for method, group in finished.items()
    }
    paper = experiment.is_published(records[0].identity["config"])
    tables = [_results(experiment, finished, samples, paper)]
    if _BASELINE in finished and len(finished) > 1:
        tables.append(_differences(experiment, samples))
        notes.append(_caution(experiment, samples))
    elif _BASELINE not in finished:
        notes.append(
            "There is no finished baseline here, so no difference is given."
        )
    figures = [
        dataclasses.replace(figure, name=figure.name + suffix)
        for draw in experiment.figures
        for figure in draw(experiment, finished)
    ]
    return Section(title, tables, notes, figures)


def _finished(
    records: Sequence[experiment_lib.Record],
) -> tuple[dict[str, list[experiment_lib.Record]], list[str]]:
    """Picks the finished runs by method, and says what became of the rest."""
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


def _order(record: experiment_lib.Record) -> tuple:
    """Sorts the methods of the usual comparison first, in its order."""
    known = comparison.METHODS
    method = record.method
    place = known.index(method) if method in known else len(known)
    return place, method, record.seed


def _by_key(
    experiment: experiment_lib.Experiment,
    records: Sequence[experiment_lib.Record],
) -> dict[str, dict[tuple[int, int], float]]:
    """Gathers the samples of each metric under (seed, index)."""
    gathered = {}
    for record in records:
        for metric, values in experiment.samples(record).items():
            gathered.setdefault(metric, {}).update(
                ((record.seed, index), float(value))
                for index, value in enumerate(values)
            )
    return gathered


def _results(
    experiment: experiment_lib.Experiment,
    finished: Mapping[str, Sequence[experiment_lib.Record]],
    samples: Mapping[str, Mapping[str, Mapping]],
    with_paper: bool,
) -> Table:
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
    return Table([*heading, "seconds in all", f"{experiment.sample}s"], rows)


def _seconds(records: Sequence[experiment_lib.Record]) -> str:
    """Writes the time of all runs; a resumed one knows its last part only."""
    total = sum(record.results["wall_seconds"] for record in records)
    resumed = any(record.results["resumed"] for record in records)
    return f"{'> ' if resumed else ''}{total:.1f}"


def _differences(
    experiment: experiment_lib.Experiment,
    samples: Mapping[str, Mapping[str, Mapping]],
) -> Table:
    digits = experiment.compared_digits
    rows = []
    for method, metrics in samples.items():
        if method == _BASELINE:
            continue
        found = statistics.compare(
            metrics[experiment.compared],
            samples[_BASELINE][experiment.compared],
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
    return Table(heading, rows)


def _caution(
    experiment: experiment_lib.Experiment,
    samples: Mapping[str, Mapping[str, Mapping]],
) -> str:
    count = len(samples[_BASELINE][experiment.compared])
    better = "lower" if experiment.lower_is_better else "higher"
    text = (
        f"Means and standard deviations (n - 1) are over the "
        f"{experiment.sample}s; {better} is better. The interval is a paired "
        f"t interval over equal {experiment.sample}s, for each method alone: "
        "of twenty methods that change nothing, about one would be called "
        "better or worse. Where the interval holds zero, the difference is "
        "within the noise."
    )
    if count < _FEW:
        text += (
            f" With {count} {experiment.sample}s the interval is wide, so "
            '"within the noise" does not show that the methods are equal.'
        )
    return text


def _text(sections: Sequence[Section]) -> str:
    parts = []
    for section in sections:
        parts.append(f"{section.title}\n{'=' * len(section.title)}")
        parts += [_plain(table) for table in section.tables]
        parts += section.notes
    return "\n\n".join(parts) + "\n"


def _plain(table: Table) -> str:
    sides = "<" + ">" * (len(table.heading) - 2) + "<"
    rows = [table.heading, *table.rows]
    return "\n".join(text_table.lay_out(rows, sides, ruled=True))


def _markdown(sections: Sequence[Section]) -> str:
    parts = ["# Report"]
    for section in sections:
        parts.append(f"## {section.title}")
        for table in section.tables:
            align = [":--", *["--:"] * (len(table.heading) - 2), ":--"]
            lines = [table.heading, align, *table.rows]
            parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts += section.notes
        parts += [
            f"![{figure.name}](plots/{figure.name}.png)\n\n{figure.caption}"
            for figure in section.figures
        ]
    return "\n\n".join(parts) + "\n"


def _page(sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    parts = []
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        for table in section.tables:
            parts.append(_html_table(table))
        parts += [
            f'<p class="note">{html.escape(note)}</p>' for note in section.notes
        ]
        parts += [
            f'<figure><img alt="{figure.name}" '
            f'src="{drawing.data_url(images[figure.name])}">'
            f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
            for figure in section.figures
        ]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>Report</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Report</h1>\n{body}\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in table.rows)
    return (
        f"<table>\n<thead>{row(table.heading, 'th')}</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )
