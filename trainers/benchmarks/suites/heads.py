"""Compares methods with plain Keras where each loss has a head of its own."""

import keras
import numpy as np

import graddrop_tf as gd
from trainers.benchmarks import arithmetic, measuring, methods
from trainers.benchmarks.suites import layer

LOSSES = (2, 8, 64)
METHODS = {
    method.name: method.combining
    for method in methods.METHODS
    if method.name in ("baseline", "graddrop", "pcgrad", "mgda", "gradnorm")
}
# Of what counting operations allows.
TARGET = 0.95
BATCH_SIZE = 32
_KERAS = "plain Keras"


def make_step(
    method: str | None, trunk: keras.Model, heads: list[keras.Model]
) -> measuring.Step:
    """Makes a training step on random images.

    Args:
        method: The recipe; None for a plain Keras model.
        trunk: The trunk.
        heads: A head for each loss.

    Returns:
        The step.
    """
    shared = keras.Input(trunk.output.shape[1:])
    joined = keras.Model(shared, [head(shared) for head in heads])
    if method is None:
        model = keras.Model(trunk.inputs, joined(trunk.output))
    else:
        model = gd.MultiLossModel(trunk, joined, recipe=method)
    losses = [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        for _ in heads
    ]
    model.compile(keras.optimizers.Adam(1e-3), losses, jit_compile=False)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(BATCH_SIZE, *trunk.input.shape[1:]))
    y = generator.integers(0, 10, (len(heads), BATCH_SIZE))
    return measuring.training_step(model, x.astype(np.float32), tuple(y))


def allowed(method: str, trunk: keras.Model, heads: list[keras.Model]) -> float:
    """Returns the speed that counting operations allows, at most 1.

    The gradients at the activations come with those of the heads' variables.
    """
    combining = METHODS[method]
    if combining is None:
        return 1.0
    alone = arithmetic.step_multiply_adds(
        arithmetic.forward_multiply_adds(trunk),
        sum(map(arithmetic.forward_multiply_adds, heads)),
    )
    return alone / (alone + combining(len(heads), trunk.output.shape[-1]))


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    rows = []
    for num_losses in LOSSES:
        progress.say(f"building models of {num_losses} losses")
        trunk, heads = layer.task_network(num_losses)

        def name(method: str, count: int = num_losses) -> str:
            return f"{method}, {count} losses"

        reference = name(_KERAS)
        steps = {reference: make_step(None, trunk, heads)}
        for method in METHODS:
            steps[name(method)] = make_step(method, trunk, heads)
        times = measuring.take_turns(
            steps, rounds, progress=progress.start(rounds)
        )
        rows.append(measuring.milliseconds_row(times, reference))
        for method in METHODS:
            limit = allowed(method, trunk, heads)
            row = measuring.speed_row(
                times,
                name(method),
                reference,
                allowed=limit,
                target=TARGET * limit,
            )
            rows.append(row)
    return rows


SUITE = measuring.Suite(
    f"step speed; convolutional trunk, a head for each loss, batch "
    f"{BATCH_SIZE}",
    _measure,
)
