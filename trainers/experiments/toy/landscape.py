"""The five losses of one weight.

Source: Chen et al., NeurIPS 2020, appendix A.3.
"""

import keras
import numpy as np
import tensorflow as tf

SLOPES = (1.0, 1.5, 2.0, 2.5, 5.0)
OFFSETS = (0.0, 0.2, 0.4, 0.6, 0.8)
LOSS_NAMES = tuple(f"loss_{i}" for i in range(1, len(SLOPES) + 1))
GLOBAL_MINIMUM = 1.4133
_HIT_TOLERANCE = 0.01


def losses(weight: tf.Tensor) -> tf.Tensor:
    """Computes the five losses `[..., 5]` at weights of any shape `[...]`."""
    return tf.sin(weight[..., None] * SLOPES + OFFSETS) + 1.0


def derivatives(weight: tf.Tensor) -> tf.Tensor:
    """Computes the derivatives `[..., 5]` of `losses`."""
    return tf.cos(weight[..., None] * SLOPES + OFFSETS) * SLOPES


def at_global_minimum(final_losses: np.ndarray) -> np.ndarray:
    """Returns 1.0 where a sum of the losses is the smallest, and else 0.0."""
    return (final_losses < GLOBAL_MINIMUM + _HIT_TOLERANCE).astype(np.float64)


def model_of(weights: np.ndarray) -> keras.Model:
    """Returns a model from the number of a start to its weight and losses.

    Args:
        weights: The weight of each start, `[num_starts]`.

    Returns:
        A functional model. It takes `start`, `[batch]` int32, and returns
        `weight` and one output for each of `LOSS_NAMES`, `[batch]` float32.
    """
    table = keras.layers.Embedding(weights.size, 1, name="weights")
    start = keras.Input([], dtype="int32", name="start")
    weight = keras.ops.squeeze(table(start), -1)
    table.set_weights([weights[:, None]])
    outputs = {"weight": weight}
    for name, slope, offset in zip(LOSS_NAMES, SLOPES, OFFSETS, strict=True):
        outputs[name] = keras.ops.sin(weight * slope + offset) + 1.0
    return keras.Model(start, outputs)
