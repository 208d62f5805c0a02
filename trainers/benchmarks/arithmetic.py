"""Counts multiply-adds from the shapes of a model's layers."""

import keras
import numpy as np


def forward_multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds of a forward pass of one example.

    Args:
        model: A functional model; its convolutions and dense layers count.

    Returns:
        The number.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += forward_multiply_adds(layer)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            # The kernel counts the channels; the batch is one example.
            positions = int(np.prod(layer.output.shape[1:-1]))
            total += positions * int(np.prod(layer.kernel.shape))
    return total


def step_multiply_adds(
    trunk: int, heads: int, num_backward: int = 1, combining: int = 0
) -> int:
    """Counts the multiply-adds of a training step of one example.

    Args:
        trunk: Multiply-adds of the trunk's forward pass.
        heads: Multiply-adds of the heads' forward pass.
        num_backward: Number of backward passes through the heads.
        combining: Multiply-adds of combining the gradients.

    Returns:
        The number.
    """
    return 3 * (trunk + heads) + (num_backward - 1) * heads + combining
