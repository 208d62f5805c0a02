"""Compares methods on the lidar detector: nine losses that share a wide map."""

import keras
import tensorflow as tf

import graddrop_tf as gd
from trainers.benchmarks import measuring, random_scenes
from trainers.models.pointpillars import encoding, losses, network, presets

PRESET = "small"
METHODS = ("graddrop", "pcgrad", "mgda", "gradnorm")
# Of the baseline's time.
TARGETS = {"graddrop": 1.2, "pcgrad": 1.15, "mgda": 1.15}
_BASELINE = "baseline"
SEED = (0, 0)


def make_encoder(preset: presets.Preset):
    """Makes a compiled function of a frame and a seed, as pipelines map it.

    Args:
        preset: The detector's values.

    Returns:
        The function. It returns the inputs and the targets of one example.
    """
    return tf.function(
        lambda frame, seed: encoding.encode_frame(frame, preset, seed)
    )


def training_step(
    preset: presets.Preset, example, batch_size: int, recipe: str | None = None
) -> measuring.Step:
    """Makes a step that trains a new detector.

    Args:
        preset: The detector's values.
        example: What an encoder returns.
        batch_size: How often the example is in the batch.
        recipe: The recipe; the plain sum by default.

    Returns:
        The step.
    """
    inputs, targets = tf.nest.map_structure(
        lambda tensor: tf.stack([tensor] * batch_size), example
    )
    trunk = network.make_trunk(preset)
    model = gd.MultiLossModel(
        trunk, network.make_heads(trunk.output), recipe=recipe
    )
    model.compile(
        keras.optimizers.Adam(1e-3),
        losses.make_losses(),
        losses.LOSS_WEIGHTS,
        jit_compile=False,
    )
    return measuring.training_step(model, inputs, targets)


def _measure(rounds: int, progress: measuring.Progress) -> list[measuring.Row]:
    preset = presets.PRESETS[PRESET]
    example = make_encoder(preset)(
        random_scenes.random_frame(), tf.constant(SEED)
    )
    progress.say(f"building {1 + len(METHODS)} detectors")
    steps = {_BASELINE: training_step(preset, example, 1)}
    for method in METHODS:
        steps[method] = training_step(preset, example, 1, method)
    times = measuring.take_turns(steps, rounds, progress=progress.start(rounds))
    return [
        measuring.milliseconds_row(times, _BASELINE),
        *(
            measuring.time_row(
                times, method, _BASELINE, target=TARGETS.get(method)
            )
            for method in METHODS
        ),
    ]


SUITE = measuring.Suite(
    f"step time; PointPillars, preset {PRESET}, one frame of "
    f"{random_scenes.NUM_POINTS:,} points, nine losses",
    _measure,
)
