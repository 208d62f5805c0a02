"""Measures the network of the transfer experiment on mixed batches.

Chen et al., NeurIPS 2020, section 4.3: DenseNet-100-BC, a source and a target
data set with a loss each, gradients batch separated.
"""

from collections.abc import Mapping

import keras
import numpy as np

import graddrop_tf as gd
from data import mixed_batches
from trainers.benchmarks import arithmetic, measuring
from trainers.models import densenet

IMAGE_SHAPE = (32, 32, 3)
BATCH_SIZE = 8
NUM_CLASSES = {mixed_batches.SOURCE: 1000, mixed_batches.TARGET: 100}
BASELINE = "baseline"
GRADDROP = "graddrop(leak=[1, 0], k=0.25)"


def make_network(
    image_shape: tuple[int, int, int] = IMAGE_SHAPE,
    num_classes: Mapping[str, int] = NUM_CLASSES,
    **shape,
) -> tuple[keras.Model, keras.Model]:
    """Makes the network of the experiment.

    Args:
        image_shape: Height, width and channels.
        num_classes: Number of classes by data set.
        **shape: `depth` and `growth_rate`, see `densenet.make_trunk`.

    Returns:
        The trunk and the heads.
    """
    trunk = densenet.make_trunk(image_shape, list(num_classes), **shape)
    return trunk, densenet.make_heads(trunk.output, num_classes)


def make_step(
    recipe: str, trunk: keras.Model, heads: keras.Model
) -> measuring.Step:
    """Makes a training step on random images of both data sets.

    Args:
        recipe: Text of a recipe.
        trunk: The trunk, which several steps may share.
        heads: The heads, which several steps may share.

    Returns:
        The step.
    """
    model = gd.MultiLossModel(
        trunk, heads, recipe=gd.Recipe.parse(recipe), separate=True
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        loss={
            name: keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            for name in heads.output
        },
        jit_compile=False,
    )
    generator = np.random.default_rng(0)
    x = {
        name: generator.random((BATCH_SIZE, *image.shape[1:]), np.float32)
        for name, image in trunk.input.items()
    }
    y = {
        name: generator.integers(0, logits.shape[-1], BATCH_SIZE)
        for name, logits in heads.output.items()
    }
    return measuring.training_step(model, x, y)


def share_of_combining(trunk: keras.Model, heads: keras.Model) -> float:
    """Returns a step's multiply-adds with GradDrop over those without."""
    # One example of each data set; a head sees that of its data set only.
    T, F = len(trunk.output), trunk.output[0].shape[-1]
    counts = (
        T * arithmetic.forward_multiply_adds(trunk),
        arithmetic.forward_multiply_adds(heads),
    )
    combined = arithmetic.step_multiply_adds(*counts, combining=2 * T * F)
    return combined / arithmetic.step_multiply_adds(*counts)


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    network = make_network()
    steps = {}
    for recipe in (BASELINE, GRADDROP):
        progress.say(f"building {recipe}")
        steps[recipe] = make_step(recipe, *network)
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    allowed = share_of_combining(*network)
    return [
        measuring.time_row(
            times, GRADDROP, BASELINE, allowed=allowed, target=1.05
        )
    ]


SUITE = measuring.Suite(
    "step time; DenseNet-100-BC, batch "
    f"{' + '.join([str(BATCH_SIZE)] * len(NUM_CLASSES))}, "
    f"{IMAGE_SHAPE[0]} x {IMAGE_SHAPE[1]}, "
    f"{' and '.join(map(str, NUM_CLASSES.values()))} classes, a loss each, "
    "batch separated",
    _measure,
    pairs_per_round=2,
)
