"""Compares the function `gd.graddrop` with a plain sum of its input."""

import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from trainers.benchmarks import measuring, methods


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    _, heads = methods.make()
    shape = (
        methods.BATCH_SIZE,
        methods.num_activations(heads),
    )
    del heads
    generator = np.random.default_rng(0)

    def normal(*shape) -> tf.Tensor:
        return tf.constant(generator.standard_normal(shape, np.float32))

    stacked = normal(methods.NUM_LOSSES, *shape)
    activations = normal(*shape)
    uniform = tf.constant(generator.random(shape[1:], np.float32))

    def masked(stacked) -> list[tf.Tensor]:
        return gd.graddrop(stacked, activations, uniform=uniform)

    functions = {
        "sum": lambda stacked: tf.reduce_sum(stacked, axis=0),
        "graddrop": masked,
        "graddrop, their sum": lambda stacked: tf.add_n(masked(stacked)),
        "a copy": lambda stacked: [-g for g in tf.unstack(stacked)],
    }
    steps = {}
    for name, function in functions.items():
        compiled = tf.function(function)
        steps[name] = lambda compiled=compiled: compiled(stacked)
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))

    def row(case: str, **notes) -> measuring.Row:
        return measuring.time_row(times, case, "sum", **notes)

    # A sum reads every value once; masking reads it twice and writes it once.
    return [
        row("graddrop", allowed=3.0, target=2.5),
        row("graddrop, their sum", allowed=2.0),
        row("a copy", allowed=2.0),
    ]


SUITE = measuring.Suite(
    f"time of gd.graddrop in a tf.function on {methods.NUM_LOSSES} "
    "stacked gradients of the same size, against tf.reduce_sum over the "
    "losses; as arithmetic: reads and writes of memory",
    _measure,
)
