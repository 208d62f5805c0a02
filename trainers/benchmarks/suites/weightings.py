"""Compares weightings that see losses alone with the plain sum."""

from collections.abc import Mapping, Sequence

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
    baseline = {BASELINE.name: methods.make_step(BASELINE, *network)}
    alone, with_pass = {}, {_FORWARD: forward_step(*network)}
    for text, recipe in cases().items():
        group = with_pass if needs_another_pass(recipe) else alone
        method = methods.Method(text, lambda recipe=recipe: recipe)
        group[text] = methods.make_step(method, *network)

    def take_turns(group: dict[str, measuring.Step]) -> dict[str, list[float]]:
        return measuring.take_turns(
            {**baseline, **group}, rounds, progress=progress.start(rounds)
        )

    times = take_turns(alone)
    rows = [
        measuring.milliseconds_row(times, BASELINE.name),
        *(_row(times, text) for text in alone),
    ]
    # A difference of times is noisier: in turns of its own.
    times = take_turns(with_pass)
    rows += [measuring.time_row(times, c, BASELINE.name) for c in with_pass]
    for text in [*with_pass][1:]:
        rest = f"{text}, less {_FORWARD}"
        times[rest] = np.subtract(times[text], times[_FORWARD])
        rows.append(_row(times, rest))
    return rows


def _row(times: Mapping[str, Sequence[float]], case: str) -> measuring.Row:
    return measuring.time_row(times, case, BASELINE.name, target=TARGET)


SUITE = measuring.Suite(
    f"time of a step of weightings that see losses alone; CelebA network, "
    f"{methods.NUM_LOSSES} losses, {methods.IMAGE_SIZE} x "
    f"{methods.IMAGE_SIZE}, batch {methods.BATCH_SIZE}",
    _measure,
)
