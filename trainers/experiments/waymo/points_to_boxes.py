"""The trained detector in use: from the points of a frame to its boxes."""

import keras
import tensorflow as tf

import graddrop_tf as gd
from trainers.experiments.waymo import frames
from trainers.models.pointpillars import decoding, pillars
from trainers.models.pointpillars.presets import Preset
from trainers.runs import serving


def make(model: keras.Model, preset: Preset) -> serving.Endpoint:
    """Makes the function that a SavedModel of the detector holds.

    It takes `points` `[N, F]`, float32: x, y and z in metres, intensity and
    whatever else the preset uses, as in `data.lidar.examples`. It returns
    `boxes` `[M, 7]` (centre, length, width, height, heading) and `scores`
    `[M]`, best first.

    Args:
        model: From pillars to the nine outputs.
        preset: Values of the detector.
    """
    network = gd.inference_model(model)

    def detect(points):
        inputs = pillars.pillarize(points, preset, frames.SEED)
        batch = {name: values[None] for name, values in inputs.items()}
        found = decoding.detect(network(batch, training=False), preset)
        count = found["num_detections"][0]
        return {
            "boxes": found["boxes"][0, :count],
            "scores": found["scores"][0, :count],
        }

    spec = tf.TensorSpec(
        [None, preset.num_point_features], tf.float32, name="points"
    )
    return serving.Endpoint(network, detect, spec)
