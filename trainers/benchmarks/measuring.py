"""Times cases in turn and computes statistics over the rounds."""

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Step = Callable[[], Any]
LOW, HIGH = 10, 90
WARM_UP = 3
RATIOS = ("speed", "time")

_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured quantity.

    Attributes:
        case: The measured case.
        against: The case it is divided by, or that is subtracted from it.
        quantity: `speed` or `time` (ratios), `ms`, `MiB`, `images/s` or
            `frames/s`.
        median: Median over all rounds.
        low: The 10th percentile.
        high: The 90th percentile.
        allowed: The value that counting operations predicts.
        target: The smallest speed, or the largest value of another quantity,
            that is aimed at; None for none.
        paper: The paper's number, if it has one.
    """

    case: str
    against: str
    quantity: str
    median: float
    low: float
    high: float
    allowed: float | None = None
    target: float | None = None
    paper: float | None = None

    @property
    def verdict(self) -> str:
        """`met` or `missed`; empty without a target."""
        if self.target is None:
            return ""
        better = self.median - self.target
        if self.quantity != "speed":
            better = -better
        return "met" if better >= 0 else "missed"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median and the 10th and 90th percentiles."""
    low, median, high = np.percentile(values, [LOW, 50, HIGH])
    return float(median), float(low), float(high)


def speed_row(
    times: Mapping[str, Sequence[float]], case: str, against: str, **notes
) -> Row:
    """Compares speeds: more is better.

    Args:
        times: Seconds of each round, by case.
        case: The case to compare.
        against: The case to compare it with.
        **notes: `allowed`, `target` and `paper` of the row.

    Returns:
        The row.
    """
    ratios = np.divide(times[against], times[case])
    return Row(case, against, "speed", *spread(ratios), **notes)


def time_row(
    times: Mapping[str, Sequence[float]], case: str, against: str, **notes
) -> Row:
    """Compares times: less is better. Arguments as in `speed_row`."""
    ratios = np.divide(times[case], times[against])
    return Row(case, against, "time", *spread(ratios), **notes)


def rate_row(
    times: Mapping[str, Sequence[float]], case: str, count: int, unit: str
) -> Row:
    """Computes how many units a case processes per second.

    Args:
        times: Seconds of each round, by case.
        case: The measured case.
        count: Units in a step.
        unit: Name of the unit.

    Returns:
        The row, with the quantity `unit/s`.
    """
    rates = np.divide(count, times[case])
    return Row(case, "", f"{unit}/s", *spread(rates))


def milliseconds_row(
    times: Mapping[str, Sequence[float]], case: str, **notes
) -> Row:
    """Computes the duration of a step. Arguments as in `speed_row`."""
    return Row(case, "", "ms", *spread(np.multiply(1e3, times[case])), **notes)


def take_turns(
    steps: Mapping[Hashable, Step],
    rounds: int,
    *,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[Hashable, list[float]]:
    """Times steps in turn; each round starts with a different case.

    Args:
        steps: The steps to time, by case.
        rounds: Number of timings of each step.
        warm_up: Number of untimed rounds before.
        clock: Returns seconds.
        progress: Called with the number of finished rounds.

    Returns:
        Seconds of each round, by case.
    """
    for step in steps.values():
        for _ in range(warm_up):
            step()
    names = list(steps)
    times = {name: [] for name in names}
    for done in range(rounds):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            started = clock()
            steps[name]()
            times[name].append(clock() - started)
        progress(done + 1)
    return times


def training_step(model: keras.Model, x, y) -> Step:
    """Makes a function that trains a compiled model for one step.

    Args:
        model: The model; not copied.
        x: The batch of every step, over all replicas.
        y: Its labels.

    Returns:
        The function.
    """
    options = tf.data.Options()
    # An iterator whose thread tunes the pipeline takes seconds to end.
    options.autotune.enabled = False
    batch = tf.data.Dataset.from_tensors((x, y)).with_options(options)
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        parts = iter(batch.repeat())
    else:
        # Each iterator over replicas has threads that take seconds to end.
        distributed = strategy.experimental_distribute_dataset(batch)
        parts = itertools.repeat(next(iter(distributed)))
    model.make_train_function()
    return lambda: model.train_function(parts)


class Progress:
    """Prints the progress of a suite to stderr."""

    def __init__(self, suite: str):
        self._suite = suite
        self._started = self._printed = time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line."""
        print(f"{self._suite}: {text}", file=sys.stderr, flush=True)

    def start(self, rounds: int) -> Callable[[int], None]:
        """Returns the `progress` of `take_turns`."""
        self._started = self._printed = time.monotonic()

        def update(done: int) -> None:
            now = time.monotonic()
            if done < rounds and now - self._printed < _SECONDS_BETWEEN_LINES:
                return
            left = (now - self._started) / done * (rounds - done)
            self.say(f"round {done} of {rounds}, {left:.0f} s left")
            self._printed = now

        return update


@dataclasses.dataclass(frozen=True)
class Suite:
    """A group of cases measured together.

    Attributes:
        title: Description of the measurement.
        measure: Measures a number of rounds.
        pairs_per_round: Divides the number of rounds, for suites whose rounds
            take long.
    """

    title: str
    measure: Callable[[int, Progress], list[Row]]
    pairs_per_round: int = 1

    def rounds(self, pairs: int) -> int:
        """Returns the number of rounds, at least one."""
        return max(1, pairs // self.pairs_per_round)
