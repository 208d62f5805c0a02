"""keras-tuner's oracles and tuner, made safe against being killed."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Callable

import keras_tuner
from keras_tuner.engine import base_tuner, trial

from trainers import errors, files

TUNERS = ("random", "bayesian", "hyperband")
# Between two rounds Hyperband keeps one trial of so many, and multiplies its
# epochs by as much.
FACTOR = 3


class Stored:
    """Keeps an oracle's state in one file, which is replaced as a whole.

    keras-tuner would write a file for each trial and one for the rest, in
    place: a process that dies between them loses a trial, or leaves half a
    file.
    """

    def __init__(self, path: pathlib.Path, **arguments):
        """Makes an oracle that no number of failed trials stops.

        Args:
            path: The file.
            **arguments: The arguments of the oracle.
        """
        super().__init__(max_consecutive_failed_trials=sys.maxsize, **arguments)
        self._path = path

    def save(self):
        """Writes the state."""
        trials = {name: one.get_state() for name, one in self.trials.items()}
        state = {**self.get_state(), "trials": trials}
        files.write_text(self._path, json.dumps(state))

    def reload(self):
        """Reads the state, if any, and queues the trials that were running.

        Raises:
            UserError: If the file does not hold the state of a search.
        """
        state = files.read_json(self._path)
        if state is None:
            return
        try:
            self.trials = {
                name: trial.Trial.from_state(value)
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
        """Fails a trial without a finite result."""
        super().score_trial(trial)
        if math.isinf(trial.score):
            trial.score = math.nan

    def _save_trial(self, trial):
        """Writes nothing: `save` writes the trials as well."""


class _Random(Stored, keras_tuner.oracles.RandomSearchOracle):
    pass


class _Bayesian(Stored, keras_tuner.oracles.BayesianOptimizationOracle):
    pass


class _Hyperband(Stored, keras_tuner.oracles.HyperbandOracle):
    def score_trial(self, trial):
        """Ranks a trial without a finite result last.

        A round ends only when each of its trials has a score.
        """
        keras_tuner.oracles.HyperbandOracle.score_trial(self, trial)


def make(tuner: str, num_trials: int, **arguments) -> keras_tuner.Oracle:
    """Makes an oracle.

    Args:
        tuner: One of `TUNERS`.
        num_trials: The number of trials; for Hyperband, the number of epochs
            of its longest ones.
        **arguments: Other arguments of the oracle, and the `path` of its
            state.

    Returns:
        The oracle.
    """
    if tuner == "hyperband":
        oracle = _Hyperband(max_epochs=num_trials, factor=FACTOR, **arguments)
    elif tuner == "random":
        oracle = _Random(max_trials=num_trials, **arguments)
    else:
        oracle = _Bayesian(
            max_trials=num_trials,
            num_initial_points=max(3, num_trials // 3),
            **arguments,
        )
    oracle.verbose = 0
    return oracle


class Tuner(base_tuner.BaseTuner):
    """Carries out the trials that an oracle proposes."""

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        directory: pathlib.Path,
        score: Callable[[trial.Trial], float],
    ):
        """Makes a tuner.

        Args:
            oracle: Proposes the trials.
            directory: The directory of the trials' runs.
            score: Carries out a trial; returns its result, or the worst one.
        """
        super().__init__(
            oracle,
            directory=str(directory.parent),
            project_name=directory.name,
        )
        self._score = score

    def pre_create_trial(self):
        """Waits a moment: a worker without work asks again and again."""
        time.sleep(0.1)

    def run_trial(self, trial):
        """Carries out a trial."""
        try:
            return self._score(trial)
        except Exception as error:
            # keras-tuner prints the traceback of any other error and goes on.
            raise keras_tuner.errors.FatalError from error

    def save(self):
        """Does nothing: the oracle saves itself whenever it changes."""
