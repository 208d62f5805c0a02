"""Several methods over several seeds."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Sequence

from trainers import config as config_lib
from trainers import errors, files
from trainers.runs import execution as runs
from trainers.runs import experiment as experiment_lib
from trainers.training import workers

METHODS = (
    "baseline",
    "graddrop",
    "random_graddrop",
    "pcgrad",
    "mgda",
    "gradnorm",
    "gradnorm+graddrop",
)
PLAN = "comparison.json"
_OPENING, _CLOSING = "([{", ")]}"


def split_methods(text: str) -> list[str]:
    """Splits at the commas that are outside of brackets.

    Args:
        text: Recipes, such as `"baseline,graddrop(k=0.25, leak=[1, 0])"`.

    Returns:
        The recipes, without spaces around them.

    Raises:
        UserError: If one is empty or a bracket has no partner.
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth:
        raise errors.UserError(
            f"--methods: got {text!r}, in which a bracket has no partner; "
            "write for example baseline,graddrop(k=0.25)."
        )
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise errors.UserError(
            f"--methods: got {text!r}, expected recipes separated by single "
            "commas, such as baseline,graddrop(k=0.25)."
        )
    return parts


def split_seeds(text: str) -> list[int]:
    """Reads seeds separated by commas.

    Args:
        text: Such as `"0,1,2"`.

    Returns:
        The seeds.

    Raises:
        UserError: If one is not a whole number from 0 on.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise errors.UserError(
            f"--seeds: got {text!r}, expected whole numbers from 0 on, "
            "separated by commas, such as 0,1,2."
        )
    return [int(part) for part in parts]


def slug(method: str) -> str:
    """Makes a folder's name of a method's canonical text.

    A short hash keeps apart what loses its brackets.
    """
    plain = re.sub(r"[^A-Za-z0-9_+.-]+", "-", method).strip("-")
    if plain == method:
        return plain
    return f"{plain}-{hashlib.sha256(method.encode()).hexdigest()[:6]}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods times seeds.

    Attributes:
        experiment: Name of the experiment.
        methods: Canonical texts of the recipes.
        seeds: The seeds.
        config: Values of the experiment.
        directory: Takes `<experiment>/<method>/seed<seed>`.
        data_dir: As in `experiment.Run`.
        strategy: As in `experiment.Run`.
        logical_cpus: As in `experiment.Run`.
    """

    experiment: str
    methods: Sequence[str]
    seeds: Sequence[int]
    config: config_lib.Config
    directory: pathlib.Path
    data_dir: str | None = None
    strategy: str = "auto"
    logical_cpus: int = 1

    def runs(self) -> list[experiment_lib.Run]:
        """Lists all runs, one seed after the other.

        Raises:
            UserError: If a method or a seed comes twice.
        """
        for name, values in ("methods", self.methods), ("seeds", self.seeds):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise errors.UserError(
                    f"--{name}: {', '.join(map(str, twice))} comes more than "
                    "once; name each one once."
                )
        return [
            experiment_lib.Run(
                experiment=self.experiment,
                method=method,
                seed=seed,
                config=self.config,
                directory=self.directory
                / self.experiment
                / slug(method)
                / f"seed{seed}",
                data_dir=self.data_dir,
                strategy=self.strategy,
                logical_cpus=self.logical_cpus,
            )
            for seed in self.seeds
            for method in self.methods
        ]

    def execute(self) -> int:
        """Carries out what is not done yet, printing a line for each run.

        Returns:
            How many runs failed.

        Raises:
            UserError: If a run is not possible, before any of them starts.
        """
        if self.strategy == workers.MULTI_WORKER:
            raise errors.UserError(
                f"--strategy: got {workers.MULTI_WORKER}, expected devices of "
                "one machine for each run; start single runs on several with "
                "launch.train."
            )
        planned = self.runs()
        for run in planned:
            runs.check(run)
        self._write_plan(planned)
        num_failed = 0
        for index, run in enumerate(planned, start=1):
            record = runs.read(run.directory, run)
            known = record is not None and record.results is not None
            head = (
                f"[{index}/{len(planned)}] {run.experiment} {run.method} "
                f"seed {run.seed}"
            )
            if not known:
                print(f"{head} ...", flush=True)
                record = runs.execute(run, "lines")
            note = "already ended: " if known else ""
            print(f"{head}: {note}{runs.describe(record)}", flush=True)
            num_failed += record.status == "failed"
        return num_failed

    def _write_plan(self, planned: Sequence[experiment_lib.Run]) -> None:
        """Notes which runs there are to be, for the report."""
        path = self.directory / self.experiment / PLAN
        directories = (files.read_json(path) or {}).get("runs", [])
        for run in planned:
            name = str(run.directory.relative_to(path.parent))
            if name not in directories:
                directories.append(name)
        files.write_json(path, {"runs": directories})
