"""Measures the memory of per-loss gradients, by chunk size."""

import concurrent.futures
import dataclasses
import multiprocessing

import numpy as np

from trainers.benchmarks import measuring, methods, peaks

# With 320 MiB of gradients: compiled code and the like is 50 to 100 MiB.
BATCH_SIZE = 64
_CHUNKS = (4, 8, 16)
_METHODS = (
    methods.BASELINE,
    methods.GRADDROP,
    *(dataclasses.replace(methods.GRADDROP, chunk=chunk) for chunk in _CHUNKS),
)
_MEBIBYTE = 2**20


def _peaks(index: int) -> list[float]:
    """Measures a method by its index, as methods cannot be pickled."""
    trunk, heads = methods.make()
    model = methods.compiled(_METHODS[index], trunk, heads)
    batch = methods.random_batch(trunk, heads, BATCH_SIZE)
    return peaks.of_step(measuring.training_step(model, *batch))


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    del rounds
    if not peaks.can_be_read():
        progress.say(
            "skipped: reading peak memory needs /proc, which only Linux has"
        )
        return []
    measured = []
    context = multiprocessing.get_context("spawn")
    for index, method in enumerate(_METHODS):
        text = methods.chunk_text(method.chunk)
        progress.say(f"a process for {method.name}, {text}")
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            measured.append(pool.submit(_peaks, index).result())
    _, heads = methods.make()
    floats = BATCH_SIZE * methods.num_activations(heads)
    baseline = float(np.median(measured[0]))
    return [
        measuring.Row(
            f"{method.name}, {methods.chunk_text(method.chunk)}",
            "less baseline",
            "MiB",
            *measuring.spread(np.subtract(values, baseline)),
            allowed=4
            * floats
            * (method.chunk or methods.NUM_LOSSES)
            / _MEBIBYTE,
        )
        for method, values in zip(_METHODS[1:], measured[1:], strict=True)
    ]


SUITE = measuring.Suite(
    f"peak resident memory of a process that trains the same network, batch "
    f"{BATCH_SIZE}, less the baseline's; as arithmetic: the gradients that "
    "exist at once",
    _measure,
)
