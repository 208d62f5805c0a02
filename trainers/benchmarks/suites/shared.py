"""Compares methods on CelebA's network, whose 40 losses share the heads."""

import time
from collections.abc import Mapping

from trainers.benchmarks import measuring, methods, plain
from trainers.benchmarks.methods import (
    BARE,
    BASELINE,
    CHUNKED,
    GRADDROP,
    METHODS,
)

# Of what counting operations allows, against plain Keras.
TARGET = 0.95
FIRST_STEP_TARGET = 1.5


def make_steps(progress: measuring.Progress) -> dict[str, measuring.Step]:
    """Makes the steps to compare, by name."""
    network = methods.make()
    makers = {
        plain.KERAS: lambda: plain.keras_step(*network),
        plain.TENSORFLOW: lambda: plain.tensorflow_step(*network),
    }
    for method in METHODS:
        makers[method.name] = lambda method=method: methods.make_step(
            method, *network
        )
    progress.say(f"building {len(makers)} cases")
    # The first graph of a process takes longer to trace.
    plain.keras_step(*network)()
    return {name: make() for name, make in makers.items()}


def first_steps(steps: Mapping[str, measuring.Step]) -> dict[str, list[float]]:
    """Takes the first step of each case, in which it is traced.

    Args:
        steps: The steps.

    Returns:
        Seconds, by case.
    """
    times = {}
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        times[f"first step of {name}"] = [time.perf_counter() - started]
    return times


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    steps = make_steps(progress)
    first = first_steps(steps)
    times = measuring.take_turns(
        steps, rounds, warm_up=1, progress=progress.start(rounds)
    )
    network = methods.make()
    once = methods.multiply_adds(BASELINE, *network)

    def row(method: methods.Method) -> measuring.Row:
        allowed = once / methods.multiply_adds(method, *network)
        target = None if method.chunk else TARGET * allowed
        return measuring.speed_row(
            times,
            method.name,
            plain.KERAS,
            allowed=allowed,
            target=target,
            paper=method.paper,
        )

    def first_row(case: str) -> measuring.Row:
        return measuring.time_row(
            first,
            f"first step of {case}",
            f"first step of {plain.KERAS}",
            target=None if case == plain.TENSORFLOW else FIRST_STEP_TARGET,
        )

    return [
        measuring.milliseconds_row(times, plain.KERAS),
        measuring.speed_row(times, plain.TENSORFLOW, plain.KERAS),
        *map(row, METHODS),
        measuring.speed_row(times, GRADDROP.name, plain.TENSORFLOW, target=1.0),
        measuring.speed_row(times, GRADDROP.name, BARE.name),
        measuring.speed_row(times, CHUNKED.name, GRADDROP.name),
        *(first_row(case) for case in steps if case != plain.KERAS),
    ]


SUITE = measuring.Suite(
    f"step speed; CelebA network, {methods.NUM_LOSSES} losses with "
    f"shared heads, {methods.IMAGE_SIZE} x {methods.IMAGE_SIZE}, "
    f"batch {methods.BATCH_SIZE}",
    _measure,
)
