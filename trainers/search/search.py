"""Searches over an experiment's config and the arguments of its method.

keras-tuner proposes; each of its trials is an ordinary run in a directory of
its own, so a search that was killed loses no trial and no finished epoch. The
epochs of Hyperband are those of `--config.steps_per_epoch`. A trial that it
promotes is trained anew with more steps, not continued: schedules depend on
the number of steps, and the best trial has to be repeatable as one run.

Several processes share a search in keras-tuner's way. One of them has
KERASTUNER_TUNER_ID=chief and hands out the trials; each of the others, which
carry them out, has another name there. All have the chief's address in
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, and the same `--run_dir`.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import keras_tuner
import numpy as np
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as trial_lib

from trainers import config as config_lib
from trainers import errors, files, text_table
from trainers.runs import directory, execution
from trainers.runs import experiment as experiment_lib
from trainers.search import space as search_space
from trainers.training.progress import Progress

TUNERS = ("random", "bayesian", "hyperband")
NUM_TRIALS = 20
_PLAN = "search.json"
_STATE = "oracle.json"
_TABLE = "trials.csv"
_RUNS = "trials"
_BEST = "best"
_FACTOR = 3
_ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
_NAME = "KERASTUNER_TUNER_ID"


class _Stored:
    """Keeps an oracle's state in one file, which is replaced as a whole.

    keras-tuner would write a file for each trial and one for the rest, in
    place: a process that dies between them loses a trial, or leaves half a
    file.
    """

    def __init__(self, path: pathlib.Path, **arguments):
        """Makes an oracle that no number of failed trials stops.

        Args:
            path: The file.
            **arguments: Those of the oracle.
        """
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **arguments)
        self._path = path

    def save(self):
        """Writes the state."""
        trials = {name: one.get_state() for name, one in self.trials.items()}
        state = {**self.get_state(), "trials": trials}
        files.write_text(self._path, json.dumps(state))

    def reload(self):
        """Reads the state, if any; what was running is to be run again."""
        state = files.read_json(self._path)
        if state is None:
            return
        try:
            self.trials = {
                name: trial_lib.Trial.from_state(value)
                for name, value in state["trials"].items()
            }
            waiting = [*state["retry_queue"], *state["ongoing_trials"].values()]
            self.set_state(
                {**state, "ongoing_trials": {}, "retry_queue": waiting}
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise errors.UserError(
                f"{self._path} is not the state of a search ({error!r}); "
                "restore it, or give another --run_dir."
            ) from None

    def score_trial(self, trial):
        """Makes a trial without a finite result a failed one."""
        super().score_trial(trial)
        if math.isinf(trial.score):
            trial.score = math.nan

    def _save_trial(self, trial):
        """Writes no file of its own."""


class _Random(_Stored, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(_Stored, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(_Stored, keras_tuner.oracles.HyperbandOracle):
    def score_trial(self, trial):
        """Ranks a trial without a finite result last.

        A round is decided when all its trials have a score.
        """
        keras_tuner.oracles.HyperbandOracle.score_trial(self, trial)


class _Tuner(base_tuner.BaseTuner):
    """Carries out the trials that an oracle proposes."""

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        directory: pathlib.Path,
        score: Callable[[trial_lib.Trial], float],
    ):
        """Makes a tuner.

        Args:
            oracle: Proposes the trials.
            directory: Of the search.
            score: Carries out a trial; gives its result, or the worst.
        """
        super().__init__(oracle, directory=str(directory), project_name=_RUNS)
        self._score = score

    def pre_create_trial(self):
        """Waits a moment: a worker without work asks again and again."""
        time.sleep(0.1)

    def run_trial(self, trial):
        """Carries out a trial."""
        try:
            return self._score(trial)
        except Exception as error:
            # Of any other, keras-tuner prints the traceback and goes on.
            raise keras_tuner.errors.FatalError from error

    def save(self):
        """Does nothing: the oracle saves itself whenever it changes."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A trial that has ended.

    Attributes:
        number: Counted from 1.
        values: What was drawn for it, by name.
        run: What was run.
        record: How that ended.
        result: The experiment's compared metric; NaN for a failed trial.
    """

    number: int
    values: Mapping[str, Any]
    run: experiment_lib.Run
    record: experiment_lib.Record
    result: float


@dataclasses.dataclass(frozen=True)
class Search:
    """A search for the values with which an experiment ends best.

    Attributes:
        space: What it varies.
        run: What all trials have in common; its directory is the search's,
            its method and config are replaced.
        tuner: One of `TUNERS`.
        num_trials: How many trials; None for `NUM_TRIALS`. Hyperband counts
            its own.
    """

    space: search_space.SearchSpace
    run: experiment_lib.Run
    tuner: str = "random"
    num_trials: int | None = None

    def execute(self) -> list[Outcome] | None:
        """Carries out the trials that have not ended.

        Returns:
            All trials, the best one first; None in a worker, whose chief has
            them.

        Raises:
            UserError: If it is not possible, before any trial starts.
        """
        role = _role()
        self._check(role)
        oracle = self._oracle()
        oracle.verbose = 0
        if role != "worker":
            files.write_json(self.run.directory / _PLAN, self._plan())
            oracle.reload()
        if oracle.end_order:
            print(f"{len(oracle.end_order)} trials have ended.", flush=True)
        if role == "chief":
            print(f"handing out trials at {_address()}.", flush=True)
        tuner = _Tuner(oracle, self.run.directory, self._score)
        try:
            tuner.search()
        except keras_tuner.errors.FatalError as error:
            raise error.__cause__ from None
        except RuntimeError as error:
            if role != "chief":
                raise
            raise errors.UserError(
                f"{_address()}: the chief cannot listen there ({error}); give "
                f"an address of this machine and a free port in "
                f"{' and '.join(_ADDRESS)}."
            ) from None
        except grpc.RpcError as error:
            raise errors.UserError(
                f"{_address()}: the chief of the search does not answer "
                f"({error.code().name}); start it again, then this worker."
            ) from None
        if role == "worker":
            return None
        outcomes = [self._outcome(trial) for trial in oracle.trials.values()]
        return sorted(outcomes, key=self._rank)

    def write(self, outcomes: Sequence[Outcome]) -> str:
        """Writes `trials.csv`.

        Args:
            outcomes: All trials, the best one first.

        Returns:
            The same as text, with the command that repeats the best.
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
        """Looks for all that would stop the search at its start."""
        path = self.run.directory
        if self.run.devices.has_workers:
            raise errors.UserError(
                f"--strategy: got {self.run.devices.strategy}, expected "
                "devices of one machine for each trial; share the search by "
                f"{_NAME}."
            )
        known = files.read_json(path / _PLAN)
        if known is None and role != "worker" and _has_other_files(path):
            raise errors.UserError(
                f"{path} holds other files and no {_PLAN}; give a new or "
                "an empty --run_dir."
            )
        if known is not None and known != self._plan():
            changes = config_lib.difference(known, self._plan())
            raise errors.UserError(
                f"{path} holds another search ({'; '.join(changes)}: "
                "there / asked for); give another --run_dir or remove this one."
            )
        for sample in self.space.corners():
            execution.check(self._run(0, sample))

    def _oracle(self) -> keras_tuner.Oracle:
        experiment = self.run.experiment
        arguments = {
            "path": self.run.directory / _STATE,
            "objective": keras_tuner.Objective(
                experiment.compared,
                "min" if experiment.lower_is_better else "max",
            ),
            "hyperparameters": self.space.hyperparameters(),
            # keras-tuner takes 0 for none.
            "seed": self.run.seed + 1,
        }
        if self.tuner == "hyperband":
            return _Hyperband(
                max_epochs=self._max_epochs(), factor=_FACTOR, **arguments
            )
        arguments["max_trials"] = self._num_trials
        if self.tuner == "random":
            return _Random(**arguments)
        return _Bayesian(
            num_initial_points=max(3, self._num_trials // 3), **arguments
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
        if not isinstance(config, config_lib.FitConfig):
            raise errors.UserError(
                f"--tuner: got hyperband, but {self.run.experiment.name} has "
                "no epochs; use random or bayesian."
            )
        epochs = config.steps // config.steps_per_epoch
        if epochs < _FACTOR:
            raise errors.UserError(
                f"--tuner: got hyperband and {epochs} epochs (--config.steps "
                f"by --config.steps_per_epoch), expected at least {_FACTOR}."
            )
        return epochs

    def _plan(self) -> dict[str, Any]:
        """Says what makes two searches the same."""
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
        # It has ended, unless somebody took its results away.
        record = execution.execute(run, Progress())
        return Outcome(number, sample.values, run, record, self._result(record))

    def _sample(
        self, trial: trial_lib.Trial
    ) -> tuple[int, search_space.Sample]:
        """Gives a trial's number and its point of the space."""
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

    def _run(
        self, number: int, sample: search_space.Sample
    ) -> experiment_lib.Run:
        return dataclasses.replace(
            self.run,
            recipe=sample.recipe,
            config=sample.config,
            directory=self.run.directory / _RUNS / f"{number:04d}",
        )

    def _result(self, record: experiment_lib.Record) -> float:
        if record.status != "finished":
            return math.nan
        experiment = self.run.experiment
        return float(np.mean(experiment.samples(record)[experiment.compared]))

    def _rank(self, outcome: Outcome) -> tuple:
        lower = self.run.experiment.lower_is_better
        if not math.isfinite(outcome.result):
            return True, 0.0, outcome.number
        return False, outcome.result * (1 if lower else -1), outcome.number


def _role() -> str | None:
    """Tells the chief and the workers of a shared search apart."""
    names = (_NAME, *_ADDRESS)
    if not any(name in os.environ for name in names):
        return None
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise errors.UserError(
            f"{', '.join(missing)}: got nothing, expected values for all of "
            f"{', '.join(names)}, or for none of them."
        )
    port = os.environ[_ADDRESS[1]]
    if not port.isdecimal():
        raise errors.UserError(
            f"{_ADDRESS[1]}: got {port!r}, expected the number of a port."
        )
    return "chief" if "chief" in os.environ[_NAME] else "worker"


def _has_other_files(directory: pathlib.Path) -> bool:
    # Workers may be there before their chief, and make the folder of runs.
    return directory.exists() and any(
        path.name != _RUNS for path in directory.iterdir()
    )


def _address() -> str:
    return ":".join(os.environ[name] for name in _ADDRESS)


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
