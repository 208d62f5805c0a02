"""Measures `gd.GradDrop` in a plain Keras model with a head per loss."""

from collections.abc import Callable, Sequence

import keras
import numpy as np

import graddrop_tf as gd
from trainers.benchmarks import arithmetic, measuring

_NUM_TASKS = 8
_BATCH_SIZE = 32
_WITHOUT = "without the layer"
_WITH = "GradDrop layer"


def task_network(
    num_tasks: int = _NUM_TASKS, widths: Sequence[int] = (32, 64, 128, 128)
) -> tuple[keras.Model, list[keras.Model]]:
    """Makes a convolutional trunk for 32 x 32 images and separate heads.

    Args:
        num_tasks: Number of heads, each with two dense layers.
        widths: Channels of the convolutions; a max pool follows all but the
            third.

    Returns:
        The trunk and the heads.
    """
    inputs = keras.Input((32, 32, 3))
    hidden = inputs
    for index, width in enumerate(widths):
        hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(
            hidden
        )
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.ReLU()(hidden)
        if index != 2:
            hidden = keras.layers.MaxPooling2D()(hidden)
    outputs = keras.layers.Flatten()(hidden)
    trunk = keras.Model(inputs, outputs, name="trunk")
    heads = []
    for index in range(num_tasks):
        activations = keras.Input(outputs.shape[1:])
        hidden = keras.layers.Dense(64, activation="relu")(activations)
        hidden = keras.layers.Dense(10)(hidden)
        heads.append(keras.Model(activations, hidden, name=f"task_{index}"))
    return trunk, heads


def _make_step(branches: Callable) -> measuring.Step:
    trunk, heads = task_network()
    features = branches(trunk.output)
    outputs = [
        head(feature) for head, feature in zip(heads, features, strict=True)
    ]
    model = keras.Model(trunk.input, outputs)
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss=[
            keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for _ in heads
        ],
        jit_compile=False,
    )
    generator = np.random.default_rng(0)
    x = generator.normal(size=(_BATCH_SIZE, 32, 32, 3))
    y = generator.integers(0, 10, (len(heads), _BATCH_SIZE))
    return measuring.training_step(model, x.astype(np.float32), tuple(y))


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    progress.say("building")
    steps = {
        _WITHOUT: _make_step(lambda features: [features] * _NUM_TASKS),
        _WITH: _make_step(gd.GradDrop(num_losses=_NUM_TASKS)),
    }
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    trunk, heads = task_network()
    alone = arithmetic.step_multiply_adds(
        arithmetic.forward_multiply_adds(trunk),
        sum(map(arithmetic.forward_multiply_adds, heads)),
    )
    masking = 2 * _NUM_TASKS * trunk.output.shape[-1]
    return [
        measuring.time_row(
            times,
            _WITH,
            _WITHOUT,
            allowed=(alone + masking) / alone,
            target=1.02,
        )
    ]


SUITE = measuring.Suite(
    f"step time; {_NUM_TASKS} tasks with a head each, convolutional trunk, "
    f"batch {_BATCH_SIZE}, plain Keras model",
    _measure,
)
