"""Compares combiners with a plain sum, and their solvers with a Gram matrix."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import linalg, places
from graddrop_tf.rows import SharedRows
from trainers.benchmarks import measuring

NUM_LOSSES = 40
SOLVER_LOSSES = (2, 8, 40, 100)
SHAPE = (8, 32768)
_ROUNDING = linalg.rounding_error(tf.float32)
_SUM = "sum"


def combiners() -> dict[str, type[gd.Combiner]]:
    """Returns the combiners among the methods, by name."""
    return {
        name: method
        for name, method in gd.METHODS.items()
        if issubclass(method, gd.Combiner)
    }


def solvers() -> dict[str, type[gd.GramianCombiner]]:
    """Returns the combiners that solve for weights, by name."""
    return {
        name: method
        for name, method in combiners().items()
        if issubclass(method, gd.GramianCombiner)
    }


def random_gradients(num_losses: int) -> list[tf.Tensor]:
    """Draws a gradient for each loss.

    Args:
        num_losses: T.

    Returns:
        T tensors of the same shape.
    """
    generator = np.random.default_rng(0)
    return [
        tf.constant(generator.standard_normal(SHAPE, np.float32))
        for _ in range(num_losses)
    ]


def combining_step(
    method: type[gd.Combiner], gradients: list[tf.Tensor]
) -> measuring.Step:
    """Makes a function that combines gradients as a training step does.

    Args:
        method: The combiner.
        gradients: A gradient for each loss.

    Returns:
        The function; it returns what the trunk receives.
    """
    combiner = _built(method, len(gradients))
    activations = tf.ones_like(gradients[0])

    def combine(step, gradients, activations) -> tf.Tensor:
        with gd.random.drawing(step):
            place = places.of(activations)
            return combiner.combine_to_sum(gradients, place)

    return _compiled(combine, tf.zeros([], tf.int64), gradients, activations)


def solving_step(
    method: type[gd.GramianCombiner], gram: tf.Tensor
) -> measuring.Step:
    """Makes a function that solves for the weights of the losses.

    Args:
        method: The combiner.
        gram: The inner products of the gradients.

    Returns:
        The function; it returns what `weigh` returns.
    """
    combiner = _built(method, gram.shape[0])
    rounding = (_ROUNDING,) if combiner.needs_rounding else ()

    def weigh(step, gram) -> tf.Tensor:
        with gd.random.drawing(step):
            return combiner.weigh(gram, *rounding)

    return _compiled(weigh, tf.zeros([], tf.int64), gram)


def gram_step(gradients: list[tf.Tensor]) -> measuring.Step:
    """Makes a function that computes a Gram matrix.

    Args:
        gradients: A gradient for each loss.

    Returns:
        The function.
    """
    return _compiled(lambda g: SharedRows.of(g).gram(), gradients)


def _built(method: type[gd.Combiner], num_losses: int) -> gd.Combiner:
    combiner = method()
    combiner.set_losses(num_losses)
    combiner.build()
    return combiner


def _compiled(function: Callable, *inputs) -> measuring.Step:
    compiled = tf.function(function)
    return lambda: compiled(*inputs)


def _gram_of(num_losses: int) -> str:
    return f"Gram matrix, {num_losses} losses"


def _measure_combiners(
    rounds: int, progress: measuring.Progress
) -> list[measuring.Row]:
    gradients = random_gradients(NUM_LOSSES)
    gram = _gram_of(NUM_LOSSES)
    progress.say(f"building {len(combiners())} combiners")
    steps = {
        _SUM: _compiled(tf.add_n, gradients),
        gram: gram_step(gradients),
        **{
            name: combining_step(method, gradients)
            for name, method in combiners().items()
        },
    }
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    return [
        measuring.milliseconds_row(times, _SUM),
        measuring.time_row(times, gram, _SUM),
        *(measuring.time_row(times, name, _SUM) for name in combiners()),
    ]


def _measure_solvers(
    num_losses: int, rounds: int, progress: measuring.Progress
) -> list[measuring.Row]:
    gradients = random_gradients(num_losses)
    reference = _gram_of(num_losses)
    steps = {reference: gram_step(gradients)}
    gram = steps[reference]()
    progress.say(f"building solvers of {num_losses} losses")
    cases = {
        f"solver of {name}, {num_losses} losses": solving_step(method, gram)
        for name, method in solvers().items()
    }
    times = measuring.take_turns(
        {**steps, **cases}, rounds, progress=progress.start(rounds)
    )
    target = 1.0 if num_losses == NUM_LOSSES else None
    return [
        measuring.milliseconds_row(times, reference),
        *(
            measuring.time_row(times, case, reference, target=target)
            for case in cases
        ),
    ]


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    rows = _measure_combiners(rounds, progress)
    for num_losses in SOLVER_LOSSES:
        rows += _measure_solvers(num_losses, rounds, progress)
    return rows


SUITE = measuring.Suite(
    f"time of what the trunk receives from {NUM_LOSSES} gradients of "
    f"{SHAPE[0]} x {SHAPE[1]} values, against their tf.add_n, and of the "
    "solvers alone, against the Gram matrix of as many gradients; in a "
    "tf.function",
    _measure,
    pairs_per_round=2,
)
