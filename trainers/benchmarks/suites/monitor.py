"""Compares `fit` with and without a `gd.GradientMonitor`."""

from collections.abc import Sequence

import keras
import tensorflow as tf

import graddrop_tf as gd
from trainers.benchmarks import measuring, methods

STEPS = 50
_WITHOUT = "without the monitor"
_WITH = "gd.GradientMonitor"


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    network = methods.make()
    model = methods.compiled(methods.BASELINE, *network)
    batch = methods.random_batch(*network)
    batches = tf.data.Dataset.from_tensors(batch).repeat()

    def fit(
        steps: int, callbacks: Sequence[keras.callbacks.Callback] = ()
    ) -> None:
        model.fit(
            batches,
            steps_per_epoch=steps,
            callbacks=list(callbacks),
            shuffle=False,
            verbose=0,
        )

    monitor = gd.GradientMonitor(batch, every_steps=STEPS)
    progress.say("building")
    # It samples at the end of this epoch and once in each of the next.
    fit(1, [monitor])
    steps = {
        _WITHOUT: lambda: fit(STEPS),
        _WITH: lambda: fit(STEPS, [monitor]),
    }
    times = measuring.take_turns(
        steps, rounds, warm_up=0, progress=progress.start(rounds)
    )
    return [measuring.time_row(times, _WITH, _WITHOUT, target=1.05)]


SUITE = measuring.Suite(
    f"time of {STEPS} steps of fit, in which the monitor samples once; the "
    "same network, trained by the baseline",
    _measure,
    pairs_per_round=8,
)
