"""Runs several methods with several seeds."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Sequence

import graddrop_tf as gd
from trainers import errors, files
from trainers.config import Config
from trainers.runs import directory, execution
from trainers.runs.experiment import Experiment, Run
from trainers.training.devices import DEFAULT_DEVICES, Devices
from trainers.training.progress import Progress

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


def split_methods(text: str) -> list[str]:
    """Splits a list of recipes at the commas outside brackets.

    Args:
        text: Recipes, such as `"baseline,graddrop(k=0.25, leak=[1, 0])"`.

    Returns:
        The recipes, without spaces around them.

    Raises:
        UserError: If the text is not such a list.
    """
    try:
        return gd.parsing.split_recipes(text)
    except ValueError as error:
        raise errors.UserError(f"--methods: {error}") from None


def split_seeds(text: str) -> list[int]:
    """Reads seeds separated by commas.

    Args:
        text: Such as `"0,1,2"`.

    Returns:
        The seeds.

    Raises:
        UserError: If one is not a whole number of at least 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise errors.UserError(
            f"--seeds: got {text!r}, expected whole numbers of at least "
            "0, separated by commas, such as 0,1,2."
        )
    return [int(part) for part in parts]


def slug(method: str) -> str:
    """Turns a method's canonical text into the name of a folder.

    A short hash distinguishes texts that lose their brackets.
    """
    plain = re.sub(r"[^A-Za-z0-9_+.-]+", "-", method).strip("-")
    if plain == method:
        return plain
    return f"{plain}-{hashlib.sha256(method.encode()).hexdigest()[:6]}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A run for each pair of a method and a seed.

    Attributes:
        experiment: The experiment.
        recipes: The recipes.
        seeds: The seeds.
        config: Values of the experiment.
        directory: The runs are in `<experiment>/<method>/seed<seed>`.
        data_dir: As in `experiment.Run`.
        devices: As in `experiment.Run`.
    """

    experiment: Experiment
    recipes: Sequence[gd.Recipe]
    seeds: Sequence[int]
    config: Config
    directory: pathlib.Path
    data_dir: str | None = None
    devices: Devices = DEFAULT_DEVICES

    def runs(self) -> list[Run]:
        """Lists all runs, one seed after the other.

        Raises:
            UserError: If a method or a seed is repeated.
        """
        methods = [str(recipe) for recipe in self.recipes]
        for name, values in ("methods", methods), ("seeds", self.seeds):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise errors.UserError(
                    f"--{name}: {', '.join(map(str, twice))} given more than "
                    "once; name each one once."
                )
        return [
            Run(
                experiment=self.experiment,
                recipe=recipe,
                seed=seed,
                config=self.config,
                directory=self._folder / slug(str(recipe)) / f"seed{seed}",
                data_dir=self.data_dir,
                devices=self.devices,
            )
            for seed in self.seeds
            for recipe in self.recipes
        ]

    @property
    def _folder(self) -> pathlib.Path:
        return self.directory / self.experiment.name

    def execute(self) -> int:
        """Executes the unfinished runs, printing a line for each run.

        Returns:
            The number of failed runs.

        Raises:
            UserError: If a run is invalid, before any of them starts.
        """
        if self.devices.has_workers:
            raise errors.UserError(
                f"--strategy: got {self.devices.strategy}, expected devices of "
                "one machine; start runs on several machines with "
                "launch.train."
            )
        planned = self.runs()
        for run in planned:
            execution.check(run)
        self._write_plan(planned)
        num_failed = 0
        for index, run in enumerate(planned, start=1):
            record = directory.read(run.directory, run)
            known = record is not None and record.results is not None
            head = (
                f"[{index}/{len(planned)}] {run.experiment.name} {run.method} "
                f"seed {run.seed}"
            )
            if not known:
                print(f"{head} ...", flush=True)
                record = execution.execute(run, Progress())
            note = "already ended: " if known else ""
            print(f"{head}: {note}{directory.describe(record)}", flush=True)
            num_failed += record.status == "failed"
        return num_failed

    def _write_plan(self, planned: Sequence[Run]) -> None:
        """Records the planned runs for the report."""
        path = self._folder / PLAN
        directories = (files.read_json(path) or {}).get("runs", [])
        for run in planned:
            name = str(run.directory.relative_to(path.parent))
            if name not in directories:
                directories.append(name)
        files.write_json(path, {"runs": directories})
