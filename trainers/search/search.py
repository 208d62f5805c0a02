"""Searches over an experiment's config and the arguments of its method.

keras-tuner proposes the trials. Each is an ordinary run in its own directory,
so a search that was killed loses no trial and no finished epoch. Hyperband
counts epochs of `--config.steps_per_epoch` steps. A trial that it promotes is
trained anew with more steps, not continued: schedules depend on the number of
steps, and the best trial has to be repeatable as one run.

Several processes can share a search, see `sharing`; they need the same
`--run_dir`.
"""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine import trial as trial_lib

from trainers import errors, files, text_table
from trainers.config import FitConfig, difference
from trainers.runs import directory, execution
from trainers.runs.experiment import Record, Run
from trainers.search import oracles, sharing
from trainers.search import space as search_space
from trainers.training.progress import Progress

NUM_TRIALS = 20
_PLAN = "search.json"
_STATE = "oracle.json"
_TABLE = "trials.csv"
_RUNS = "trials"
_BEST = "best"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trial that has ended.

    Attributes:
        number: Its number, from 1.
        values: Its drawn values, by name.
        run: Its run.
        record: The record of the run.
        result: The experiment's compared metric; NaN for a failed trial.
    """

    number: int
    values: Mapping[str, Any]
    run: Run
    record: Record
    result: float


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for the values that give an experiment's best result.

    Attributes:
        space: The search space.
        run: What all trials have in common. Its directory is the search's;
            its recipe and config are replaced.
        tuner: One of `oracles.TUNERS`.
        num_trials: The number of trials; None for `NUM_TRIALS`. Hyperband
            chooses its own.
    """

    space: search_space.SearchSpace
    run: Run
    tuner: str = "random"
    num_trials: int | None = None

    def execute(self) -> list[Outcome] | None:
        """Carries out the trials that have not ended.

        Returns:
            All trials, the best first; None in a worker, since the chief has
            them.

        Raises:
            UserError: If the search is not possible, before any trial starts.
        """
        role = sharing.role()
        self._check(role)
        oracle = self._oracle()
        if role != "worker":
            files.write_json(self.run.directory / _PLAN, self._plan())
            oracle.reload()
        if role != "worker":
            print(f"Searching {self.space}", flush=True)
        if oracle.end_order:
            print(f"{len(oracle.end_order)} trials have ended.", flush=True)
        if role == "chief":
            print(f"handing out trials at {sharing.address()}.", flush=True)
        tuner = oracles.Tuner(oracle, self.run.directory / _RUNS, self._score)
        try:
            with sharing.connection():
                tuner.search()
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ from None
        if role == "worker":
            return None
        outcomes = [self._outcome(trial) for trial in oracle.trials.values()]
        return sorted(outcomes, key=self._rank)

    def report(self, outcomes: Sequence[Outcome]) -> str:
        """Writes `trials.csv` and reports on the search.

        Args:
            outcomes: All trials, the best first.

        Returns:
            The trials as text, with the command that repeats the best one.
        """
        compared = self.run.experiment.compared
        names = [name for one in outcomes[:1] for name in one.values]
        rows = [["trial", "status", compared, *names, "seconds"]]
        for one in outcomes:
            rows.append(
                [
                    one.number,
                    one.record.status,
                    one.result,
                    *(one.values[name] for name in names),
                    one.record.results["wall_seconds"],
                ]
            )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        files.write_text(self.run.directory / _TABLE, text.getvalue())
        cells = [list(map(_show, row)) for row in rows]
        sides = ">" * len(rows[0])
        lines = [*text_table.lay_out(cells, sides, ruled=True), ""]
        if self.tuner != "hyperband" and len(outcomes) < self._num_trials:
            lines.append(
                f"{len(outcomes)} of {self._num_trials} trials: the search "
                "space has no further points."
            )
        if not (outcomes and math.isfinite(outcomes[0].result)):
            return "\n".join([*lines, "No trial has finished."])
        best = outcomes[0]
        again = dataclasses.replace(
            best.run, directory=self.run.directory / _BEST
        )
        return "\n".join(
            [
                *lines,
                f"Best: trial {best.number}, {compared} {best.result:.4g}. "
                "This repeats it:",
                directory.training_command(again),
            ]
        )

    @property
    def _num_trials(self) -> int:
        return NUM_TRIALS if self.num_trials is None else self.num_trials

    def _check(self, role: str | None) -> None:
        """Checks for everything that would stop the search at its start."""
        path = self.run.directory
        if self.run.devices.has_workers:
            raise errors.UserError(
                f"--strategy: got {self.run.devices.strategy}, expected "
                "devices of one machine for each trial; share the search by "
                f"{sharing.NAME}."
            )
        known = files.read_json(path / _PLAN)
        if known is None and role != "worker" and _has_other_files(path):
            raise errors.UserError(
                f"{path} holds other files and no {_PLAN}; give a new or "
                "an empty --run_dir."
            )
        if known is not None and known != self._plan():
            changes = difference(known, self._plan())
            raise errors.UserError(
                f"{path} holds another search ({'; '.join(changes)}: "
                "there / asked for); give another --run_dir or remove this one."
            )
        for sample in self.space.corners():
            execution.check(self._run(0, sample))

    def _oracle(self) -> keras_tuner.Oracle:
        experiment = self.run.experiment
        hyperband = self.tuner == "hyperband"
        return oracles.make(
            self.tuner,
            self._max_epochs() if hyperband else self._num_trials,
            path=self.run.directory / _STATE,
            objective=keras_tuner.Objective(
                experiment.compared,
                "min" if experiment.lower_is_better else "max",
            ),
            hyperparameters=self.space.hyperparameters(),
            # keras-tuner takes 0 for none.
            seed=self.run.seed + 1,
        )

    def _max_epochs(self) -> int:
        if self.num_trials is not None:
            raise errors.UserError(
                f"--num_trials: got {self.num_trials}, but hyperband counts "
                "its own trials; leave it out."
            )
        if any(map(self.space.varies, ("steps", "steps_per_epoch"))):
            raise errors.UserError(
                "--tuner: got hyperband, which chooses the steps itself; give "
                "--config.steps and --config.steps_per_epoch values."
            )
        config = self.space.corners()[0].config
        if not isinstance(config, FitConfig):
            raise errors.UserError(
                f"--tuner: got hyperband, but {self.run.experiment.name} has "
                "no epochs; use random or bayesian."
            )
        epochs = config.steps // config.steps_per_epoch
        if epochs < oracles.FACTOR:
            raise errors.UserError(
                f"--tuner: got hyperband and {epochs} epochs (--config.steps "
                "by --config.steps_per_epoch), expected at least "
                f"{oracles.FACTOR}."
            )
        return epochs

    def _plan(self) -> dict[str, Any]:
        """Returns what two runs of the same search have in common."""
        config = dataclasses.asdict(self.space.corners()[0].config)
        ranges = {
            name: text
            for name, text in self.space.config.items()
            if self.space.varies(name)
        }
        return {
            "experiment": self.run.experiment.name,
            "method": self.space.method,
            "seed": self.run.seed,
            "tuner": self.tuner,
            "config": {**config, **ranges},
        }

    def _score(self, trial: trial_lib.Trial) -> float:
        number, sample = self._sample(trial)
        total = "" if self.tuner == "hyperband" else f"/{self._num_trials}"
        head = f"[{number}{total}] {self.run.experiment.name} " + ", ".join(
            f"{name}={value}" for name, value in sample.values.items()
        )
        print(f"{head} ...", flush=True)
        record = execution.execute(self._run(number, sample), Progress())
        print(f"{head}: {directory.describe(record)}", flush=True)
        result = self._result(record)
        if math.isfinite(result):
            return result
        lower = self.run.experiment.lower_is_better
        return math.inf if lower else -math.inf

    def _outcome(self, trial: trial_lib.Trial) -> Outcome:
        number, sample = self._sample(trial)
        run = self._run(number, sample)
        # It has ended, unless its results were deleted.
        record = execution.execute(run, Progress())
        return Outcome(number, sample.values, run, record, self._result(record))

    def _sample(
        self, trial: trial_lib.Trial
    ) -> tuple[int, search_space.Sample]:
        """Returns a trial's number and its point of the space."""
        number = int(trial.trial_id) + 1
        sample = self.space.draw(trial.hyperparameters)
        if self.tuner != "hyperband":
            return number, sample
        epochs = trial.hyperparameters["tuner/epochs"]
        steps = epochs * sample.config.steps_per_epoch
        return number, search_space.Sample(
            sample.recipe,
            dataclasses.replace(sample.config, steps=steps),
            {**sample.values, "steps": steps},
        )

    def _run(self, number: int, sample: search_space.Sample) -> Run:
        return dataclasses.replace(
            self.run,
            recipe=sample.recipe,
            config=sample.config,
            directory=self.run.directory / _RUNS / f"{number:04d}",
        )

    def _result(self, record: Record) -> float:
        if record.status != "finished":
            return math.nan
        experiment = self.run.experiment
        return float(np.mean(experiment.samples(record)[experiment.compared]))

    def _rank(self, outcome: Outcome) -> tuple:
        lower = self.run.experiment.lower_is_better
        if not math.isfinite(outcome.result):
            return True, 0.0, outcome.number
        return False, outcome.result * (1 if lower else -1), outcome.number


def _has_other_files(directory: pathlib.Path) -> bool:
    # Workers that start before their chief create the folder of runs.
    return directory.exists() and any(
        path.name != _RUNS for path in directory.iterdir()
    )


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
