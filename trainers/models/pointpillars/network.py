"""The network: a trunk up to the shared map, and nine heads on it.

Lang et al., CVPR 2019, section 2.

    trunk = make_trunk(preset)
    heads = make_heads(trunk.output)
    model = gd.MultiLossModel(trunk, heads, recipe=recipe)
    model.compile(optimizer, losses.make_losses(), losses.LOSS_WEIGHTS)
    model.fit(frames.map(encode).batch(batch_size))
"""

import dataclasses
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainers.models.pointpillars import anchors
from trainers.models.pointpillars.losses import LOSS_NAMES
from trainers.models.pointpillars.pillars import (
    describe_points,
    max_over_points,
    scatter,
)
from trainers.models.pointpillars.presets import Grid, Preset

_EPSILON = 1e-3
# The initial bias assumes that one anchor in 100 is a vehicle.
_CLASS_PRIOR = 0.01


@keras.saving.register_keras_serializable("pointpillars")
class PillarFeatures(keras.layers.Layer):
    """Features of each pillar, computed from its points.

    A linear layer, batch norm over the points (padding does not count) and
    ReLU, then the maximum over the pillar's points.

    Args:
        grid: A `Grid`, or its fields as a dict.
        channels: Width of the result.
        momentum: Of batch norm's moving statistics.
        **kwargs: `name`, `dtype`.

    Input shape:
        `points` `[batch, N, F]`, `pillars` `[batch, N]` and `cells`
        `[batch, P]`, as `pillars.pillarize` makes them.

    Output shape:
        `[batch, P, channels]`; zeros for a pillar without points.
    """

    def __init__(
        self,
        grid: Grid | dict,
        channels: int,
        momentum: float = 0.99,
        **kwargs,
    ):
        # Half precision is too coarse for coordinates.
        super().__init__(autocast=False, **kwargs)
        self.grid = grid if isinstance(grid, Grid) else Grid(**grid)
        self.channels = channels
        self.momentum = momentum
        self.linear = keras.layers.Dense(
            channels, use_bias=False, dtype=self.dtype_policy, name="linear"
        )
        self.normalization = keras.layers.BatchNormalization(
            momentum=momentum,
            epsilon=_EPSILON,
            dtype=self.dtype_policy,
            name="normalization",
        )

    def build(self, points_shape, pillars_shape, cells_shape):
        """Creates the weights."""
        described = (*points_shape[:-1], points_shape[-1] + 5)
        self.linear.build(described)
        self.normalization.build((*points_shape[:-1], self.channels))
        self.built = True

    def call(self, points, pillars, cells, training=False):
        """See the class."""
        described = describe_points(points, pillars, cells, self.grid)
        features = self.normalization(
            self.linear(described), training=training, mask=pillars >= 0
        )
        # ReLU and maximum commute: it also brings empty pillars to 0.
        return tf.nn.relu(max_over_points(features, pillars, cells.shape[1]))

    def compute_output_spec(self, points, pillars, cells, training=False):
        """Returns the specification of the result."""
        return keras.KerasTensor(
            (points.shape[0], cells.shape[1], self.channels), self.compute_dtype
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "grid": dataclasses.asdict(self.grid),
            "channels": self.channels,
            "momentum": self.momentum,
        }


@keras.saving.register_keras_serializable("pointpillars")
class Scatter(keras.layers.Layer):
    """Scatters pillars onto the grid.

    Args:
        shape: Rows and columns of the grid.
        **kwargs: `name`, `dtype`.

    Input shape:
        Features `[batch, P, C]` and cells `[batch, P]`.

    Output shape:
        `[batch, rows, columns, C]`.
    """

    def __init__(self, shape: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.shape = tuple(shape)

    def call(self, features, cells):
        """See the class."""
        return scatter(features, cells, self.shape)

    def compute_output_spec(self, features, cells):
        """Returns the specification of the result."""
        return keras.KerasTensor(
            (features.shape[0], *self.shape, features.shape[-1]),
            self.compute_dtype,
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "shape": self.shape}


def make_trunk(preset: Preset) -> keras.Model:
    """Makes the shared part: pillars to the map of all upsampled blocks."""
    points = keras.Input(
        (preset.max_points, preset.num_point_features), name="points"
    )
    pillars = keras.Input((preset.max_points,), dtype="int32", name="pillars")
    cells = keras.Input((preset.max_pillars,), dtype="int32", name="cells")
    features = PillarFeatures(
        preset.grid,
        preset.pillar_channels,
        preset.batch_norm_momentum,
        name="pillar_features",
    )(points, pillars, cells)
    hidden = Scatter(preset.grid.shape)(features, cells)
    upsampled = []
    for index, depth in enumerate(preset.block_depths):
        strides = [preset.block_strides[index]] + [1] * depth
        for layer, stride in enumerate(strides):
            hidden = _normalized(
                keras.layers.Conv2D(
                    preset.block_channels[index],
                    3,
                    stride,
                    padding="same",
                    use_bias=False,
                    name=f"block_{index}_convolution_{layer}",
                ),
                hidden,
                preset.batch_norm_momentum,
            )
        factor = math.prod(preset.block_strides[1 : index + 1])
        upsampled.append(
            _normalized(
                keras.layers.Conv2DTranspose(
                    preset.upsampled_channels,
                    factor,
                    factor,
                    use_bias=False,
                    name=f"block_{index}_upsampling",
                ),
                hidden,
                preset.batch_norm_momentum,
            )
        )
    shared = keras.layers.Concatenate(name="shared_map")(upsampled)
    inputs = {"points": points, "pillars": pillars, "cells": cells}
    return keras.Model(inputs, shared, name="trunk")


def _normalized(convolution, inputs, momentum: float):
    """Applies a convolution with batch norm and ReLU."""
    hidden = keras.layers.BatchNormalization(
        momentum=momentum,
        epsilon=_EPSILON,
        name=f"{convolution.name}_normalization",
    )(convolution(inputs))
    return keras.layers.ReLU()(hidden)


def make_heads(shared_map: keras.KerasTensor) -> keras.Model:
    """Makes the heads: the shared map to the nine outputs by name."""
    inputs = keras.Input(shared_map.shape[1:], name="shared_map")
    outputs = _predict(inputs)
    return keras.Model(inputs, outputs, name="heads")


def _predict(shared: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
    """Applies a linear layer for each loss at every position of the map."""
    outputs = {}
    num_headings = len(anchors.HEADINGS)
    for name in LOSS_NAMES:
        if name == "direction":
            logits = keras.layers.Dense(
                2 * num_headings, name="direction_logits"
            )(shared)
            shape = (*shared.shape[1:3], num_headings, 2)
            outputs[name] = keras.layers.Reshape(shape, name=name)(logits)
            continue
        bias = "zeros"
        if name == "class":
            bias = keras.initializers.Constant(
                math.log(_CLASS_PRIOR / (1 - _CLASS_PRIOR))
            )
        outputs[name] = keras.layers.Dense(
            num_headings, bias_initializer=bias, name=name
        )(shared)
    return outputs
