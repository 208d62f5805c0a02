"""Compares weightings that see losses alone with the plain sum."""

import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from trainers.benchmarks import measuring, methods
from trainers.benchmarks.methods import BASELINE

TARGET = 1.03
_FORWARD = "a forward pass"


def cases() -> dict[str, gd.Recipe]:
    """Returns the recipes of the weightings without norms, by their texts."""
    texts = [
        name
        for name, method in gd.METHODS.items()
        if issubclass(method, gd.Weighting) and not method.needs_norms
    ]
    return {t: gd.Recipe.parse(t) for t in (*texts, "famo(lagged=True)")}


def forward_step(trunk, heads) -> measuring.Step:
    """Makes a forward pass as in training, up to the losses.

    Args:
        trunk: The trunk.
        heads: The heads.

    Returns:
        A function that returns the losses.
    """
    x, y = map(tf.constant, methods.random_batch(trunk, heads))
    loss = methods.loss()

    @tf.function
    def forward():
        y_pred = heads(trunk(x, training=True), training=True)
        return loss.values(y, y_pred)

    return forward


def needs_another_pass(recipe: gd.Recipe) -> bool:
    """Returns whether a weighting sees the losses after the update."""
    return recipe.make_state().needs_losses_after


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    network = methods.make()
    progress.say(f"building {len(cases())} weightings")
    steps = {
        BASELINE.name: methods.make_step(BASELINE, *network),
        _FORWARD: forward_step(*network),
    }
    for text, recipe in cases().items():
        method = methods.Method(text, lambda recipe=recipe: recipe)
        steps[text] = methods.make_step(method, *network)
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    rows = [
        measuring.milliseconds_row(times, BASELINE.name),
        measuring.time_row(times, _FORWARD, BASELINE.name),
    ]
    for text, recipe in cases().items():
        case = text
        if needs_another_pass(recipe):
            rows.append(measuring.time_row(times, text, BASELINE.name))
            case = f"{text}, less {_FORWARD}"
            times[case] = np.subtract(times[text], times[_FORWARD])
        rows.append(
            measuring.time_row(times, case, BASELINE.name, target=TARGET)
        )
    return rows


SUITE = measuring.Suite(
    f"time of a step of weightings that see losses alone; CelebA network, "
    f"{methods.NUM_LOSSES} losses, {methods.IMAGE_SIZE} x "
    f"{methods.IMAGE_SIZE}, batch {methods.BATCH_SIZE}",
    _measure,
)
