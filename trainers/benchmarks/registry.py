"""Lists all suites by name and runs them."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainers import errors, files, quiet
from trainers.benchmarks import measuring, table
from trainers.benchmarks.suites import (
    combiners,
    detector,
    function,
    heads,
    input_pipeline,
    layer,
    lidar,
    memory,
    mixed,
    monitor,
    scaling,
    shared,
    weightings,
)

_PACKAGES = ("graddrop_tf", "keras", "numpy", "tensorflow")

SUITES = {
    "layer": layer.SUITE,
    "shared": shared.SUITE,
    "heads": heads.SUITE,
    "weightings": weightings.SUITE,
    "memory": memory.SUITE,
    "graddrop": function.SUITE,
    "combiners": combiners.SUITE,
    "input": input_pipeline.SUITE,
    "monitor": monitor.SUITE,
    "mixed": mixed.SUITE,
    "scaling": scaling.SUITE,
    "detector": detector.SUITE,
    "lidar": lidar.SUITE,
}
# Minutes, not a quarter of an hour.
SHORT = ("layer", "graddrop", "shared")
_ALL = "all"


def select(text: str) -> list[str]:
    """Parses names of suites, separated by commas.

    Args:
        text: The names, or `all`.

    Returns:
        The names.

    Raises:
        UserError: If a suite is unknown.
    """
    if text.strip() == _ALL:
        return list(SUITES)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in SUITES:
            raise errors.UserError(
                f"--suites: got {name!r}, expected {_ALL}, or some of "
                f"{', '.join(SUITES)}, separated by commas."
            )
    return list(dict.fromkeys(names))


def execute(
    names: Sequence[str],
    pairs: int,
    path: pathlib.Path | None = None,
    show: Callable[[str], None] = print,
) -> None:
    """Measures suites, and shows the table of each when it ends.

    Args:
        names: Names of suites.
        pairs: Rounds in which the cases take turns.
        path: File for the results as JSON, with those of each suite that has
            ended.
        show: Takes the text of a table.

    Raises:
        UserError: If the file cannot be written.
    """
    if path is not None:
        _check_writable(path)
    quiet.silence_libraries()
    rows = {}
    for name in names:
        suite = SUITES[name]
        progress = measuring.Progress(name)
        rows[name] = suite.measure(suite.rounds(pairs), progress)
        if path is not None:
            files.write_json(path, _record(rows, pairs))
        title = f"{name}: {suite.title}"
        show(table.lay_out({title: rows[name]}) + "\n")


def _check_writable(path: pathlib.Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.UserError(f"--json: {error}; give another file.") from None
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise errors.UserError(
            f"--json: got {path}, expected a file that can be written."
        )


def _record(
    rows: Mapping[str, Sequence[measuring.Row]], pairs: int
) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": {**versions, "python": platform.python_version()},
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "pairs": pairs,
        "percentiles": [measuring.LOW, measuring.HIGH],
        "suites": {
            name: {
                "title": SUITES[name].title,
                "rounds": SUITES[name].rounds(pairs),
                "rows": [
                    {**dataclasses.asdict(row), "verdict": row.verdict}
                    for row in suite
                ],
            }
            for name, suite in rows.items()
        },
    }
