"""Measures GradDrop over numbers of devices, losses and chunks.

The number of logical devices is fixed when TensorFlow starts: there is a
process for each, and they take turns.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

import graddrop_tf as gd
from trainers import quiet
from trainers.benchmarks import measuring, methods
from trainers.models import attribute_network
from trainers.training import devices

_DEVICES = (1, 2, 4)
_LOSSES = (2, 4, 8, 16, 32, 64)
BATCH_SIZE = 32
IMAGE_SHAPE = (32, 32, 3)
CHANNELS = (16, 32)
_HIDDEN = 64


class Case(NamedTuple):
    """A case to measure.

    Attributes:
        num_devices: Number of replicas, which share each batch.
        num_losses: T.
        chunk: Number of gradients that may exist at once; None for all.
    """

    num_devices: int
    num_losses: int
    chunk: int | None

    def __str__(self) -> str:
        """Returns its name in the table."""
        plural = "s" if self.num_devices > 1 else ""
        chunk = methods.chunk_text(self.chunk)
        return (
            f"{self.num_losses} losses, {chunk}, {self.num_devices} "
            f"device{plural}"
        )


def _start(num_devices: int) -> None:
    quiet.silence_libraries()
    tf.config.set_visible_devices([], "GPU")
    devices.split_cpu(num_devices)


def make_network(num_losses: int) -> tuple[keras.Model, keras.Model]:
    """Makes two convolutions, and two dense layers shared by all losses.

    Args:
        num_losses: T.

    Returns:
        The trunk and the heads.
    """
    inputs = hidden = keras.Input(IMAGE_SHAPE)
    for channels in CHANNELS:
        hidden = keras.layers.Conv2D(
            channels, 3, padding="same", activation="relu"
        )(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    trunk = keras.Model(inputs, hidden, name="trunk")
    activations = keras.Input(hidden.shape[1:])
    hidden = keras.layers.Flatten()(activations)
    hidden = keras.layers.Dense(_HIDDEN, activation="relu")(hidden)
    outputs = keras.layers.Dense(num_losses)(hidden)
    return trunk, keras.Model(activations, outputs, name="heads")


def make_step(case: Case) -> measuring.Step:
    """Makes a training step of a small network.

    Args:
        case: The case, on logical devices of the CPU.

    Returns:
        The step.
    """
    strategy = tf.distribute.get_strategy()
    if case.num_devices > 1:
        strategy = tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(case.num_devices)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    with strategy.scope():
        trunk, heads = make_network(case.num_losses)
        model = gd.MultiLossModel(
            trunk,
            heads,
            recipe=gd.Recipe.parse("graddrop"),
            loss_chunk_size=case.chunk,
        )
        model.compile(
            keras.optimizers.Adam(1e-3),
            loss=gd.VectorLoss(attribute_network.cross_entropy),
            jit_compile=False,
        )
        model.optimizer.build(model.trainable_variables)
    return measuring.training_step(
        model, *methods.random_batch(trunk, heads, BATCH_SIZE)
    )


# Of the process of its number of devices.
_step = functools.cache(make_step)


def _take(case: Case) -> None:
    _step(case)()


def cases() -> list[Case]:
    """Lists the cases, in groups to compare."""
    return [
        Case(num_devices, num_losses, chunk)
        for num_losses in _LOSSES
        for chunk in (None, num_losses // 2)
        for num_devices in _DEVICES
    ]


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    context = multiprocessing.get_context("spawn")
    found = cases()
    with contextlib.ExitStack() as stack:
        pools = {
            num_devices: stack.enter_context(
                concurrent.futures.ProcessPoolExecutor(
                    1, context, _start, (num_devices,)
                )
            )
            for num_devices in _DEVICES
        }

        def run(function, case):
            return pools[case.num_devices].submit(function, case)

        for case, built in [(case, run(_take, case)) for case in found]:
            built.result()
            progress.say(f"built {case}")
        steps = {
            case: lambda case=case: run(_take, case).result() for case in found
        }
        times = measuring.take_turns(
            steps, rounds, progress=progress.start(rounds)
        )
    return rows(times)


def rows(times: Mapping[Case, list[float]]) -> list[measuring.Row]:
    """Makes the rows of each case.

    Args:
        times: Seconds of each round.

    Returns:
        Milliseconds; the speed in shares of one device's, where there are
        several.
    """
    named = {str(case): seconds for case, seconds in times.items()}
    found = []
    for case in times:
        found.append(measuring.milliseconds_row(named, str(case)))
        if case.num_devices > 1:
            alone = case._replace(num_devices=1)
            found.append(
                measuring.speed_row(named, str(case), str(alone), allowed=1.0)
            )
    return found


SUITE = measuring.Suite(
    "graddrop on a network of four layers, "
    f"{IMAGE_SHAPE[0]} x {IMAGE_SHAPE[1]}, batch {BATCH_SIZE} over all "
    "devices: step time; speed in shares of one device's. Logical devices "
    "share the cores of one CPU: their efficiency is about overhead only",
    _measure,
    pairs_per_round=2,
)
