"""The network of CelebA: a trunk, and heads with a logit per attribute.

Appendix A.4 of Chen et al., NeurIPS 2020.
"""

import keras
import tensorflow as tf

_WIDTHS = (1, 2, 4, 8)
_NUM_DENSE = 2
_SMALLEST = 2 ** (len(_WIDTHS) - 1)


def check_image_size(height: int, width: int) -> None:
    """Raises a `ValueError` for images too small for the network."""
    if min(height, width) < _SMALLEST:
        raise ValueError(
            f"height, width: got {height} x {width}, expected at least "
            f"{_SMALLEST} x {_SMALLEST}: the network halves an image three "
            "times."
        )


def make_network(
    shape: tuple[int, int, int] = (218, 178, 3),
    num_attributes: int = 40,
    channels: int = 64,
    synchronized: bool = False,
) -> tuple[keras.Model, keras.Model]:
    """Makes the nine-layer network of appendix A.4.

    `[CONV-3-64][MAX][CONV-3-128]x2[MAX][CONV-3-256]x2[MAX][CONV-3-512]x2
    [DENSE-512]x2[DENSE-40]`, batch norm and ReLU after every layer but the
    last. As batch norm follows, only the last layer has a bias.

    Args:
        shape: Height, width and channels of the images.
        num_attributes: T.
        channels: Channels of the first convolution.
        synchronized: Whether batch norm uses the statistics of all replicas.

    Returns:
        The trunk, up to the last convolution, and the heads, to logits
        `[batch, T]`.
    """
    inputs = keras.Input(shape, name="image")
    widths = [channels * width for width in _WIDTHS]

    def normalized(hidden: keras.KerasTensor) -> keras.KerasTensor:
        norm = keras.layers.BatchNormalization(synchronized=synchronized)
        return keras.layers.ReLU()(norm(hidden))

    def convolution(hidden: keras.KerasTensor, filters: int):
        return normalized(
            keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(
                hidden
            )
        )

    hidden = convolution(inputs, widths[0])
    for width in widths[1:]:
        hidden = keras.layers.MaxPooling2D()(hidden)
        hidden = convolution(convolution(hidden, width), width)
    trunk = keras.Model(inputs, hidden, name="trunk")
    activations = keras.Input(hidden.shape[1:], name="activations")
    hidden = keras.layers.Flatten()(activations)
    for _ in range(_NUM_DENSE):
        hidden = keras.layers.Dense(widths[-1], use_bias=False)(hidden)
        hidden = normalized(hidden)
    outputs = keras.layers.Dense(num_attributes, name="attributes")(hidden)
    return trunk, keras.Model(activations, outputs, name="heads")


@keras.saving.register_keras_serializable("celeba")
def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the sigmoid cross-entropy of each attribute, `[batch, T]`.

    Args:
        labels: `[batch, T]`: 0, 1, or less than 0 where a label is missing,
            whose cross-entropy is 0.
        logits: `[batch, T]`.
    """
    known = tf.cast(labels >= 0, logits.dtype)
    labels = tf.cast(labels, logits.dtype) * known
    return known * tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
