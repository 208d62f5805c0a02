"""DenseNet-BC for small images, shared by several data sets.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional
Networks", CVPR 2017, section 3: three dense blocks, bottleneck layers (B) and
transitions that compress by one half (C).
"""

from collections.abc import Callable, Mapping, Sequence

import keras

from trainers.models import domain_normalization

NUM_BLOCKS = 3
_BOTTLENECK = 4
_COMPRESSION = 0.5


def layers_per_block(depth: int) -> int:
    """Returns the number of layers in each dense block.

    Args:
        depth: Number of layers with weights: two for each layer of a block, the
            first convolution, a transition between blocks, and the classifier.

    Returns:
        The number of layers.

    Raises:
        ValueError: If `depth` is not 6 n + 4.
    """
    layers, rest = divmod(depth - 1 - NUM_BLOCKS, 2 * NUM_BLOCKS)
    if layers < 1 or rest:
        raise ValueError(
            f"depth: got {depth}, expected 6 n + 4, such as 10, 16, 22, 40 "
            "or 100."
        )
    return layers


def make_trunk(
    image_shape: tuple[int, int, int],
    domains: Sequence[str],
    *,
    depth: int = 100,
    growth_rate: int = 12,
) -> keras.Model:
    """Makes the network up to the pooled features.

    All convolutions are shared: they see one mixed batch. Only batch
    normalization (over the global batch of all replicas) has weights and
    statistics for each domain.

    Args:
        image_shape: Height, width and channels.
        domains: Names of the data sets.
        depth: Number of layers with weights, the classifier included; 6 n + 4.
        growth_rate: Channels that each layer of a block adds.

    Returns:
        A model from a dict of images `[batch_d, *image_shape]` by domain to
        a list of features `[batch_d, F]`, in the order of `domains`. Batches
        may differ in size and may be empty.

    Raises:
        ValueError: If `depth` is not 6 n + 4.
    """
    images = {name: keras.Input(image_shape, name=name) for name in domains}
    mixed, sizes = domain_normalization.DomainConcatenation()(
        [images[name] for name in domains]
    )

    def normalize(x):
        x = domain_normalization.DomainBatchNormalization(
            len(domains), synchronized=True
        )(x, sizes)
        return keras.layers.ReLU()(x)

    x = _pooled_features(mixed, depth, growth_rate, normalize)
    features = domain_normalization.DomainSplit(len(domains))(x, sizes)
    return keras.Model(images, features, name="trunk")


def of_domain(
    trunk: keras.Model, heads: keras.Model, index: int, name: str
) -> keras.Model:
    """Makes a network of one data set alone, of Keras' own layers.

    Args:
        trunk: What `make_trunk` returned.
        heads: What `make_heads` returned.
        index: The position of the data set in `domains`.
        name: Its name.

    Returns:
        A model from images to logits, with a copy of the weights.
    """
    (mixing,) = _layers(trunk, domain_normalization.DomainConcatenation)
    convolutions = _layers(trunk, keras.layers.Conv2D)
    norms = _layers(trunk, domain_normalization.DomainBatchNormalization)
    growth_rate = convolutions[0].filters // 2
    images = keras.Input(mixing.output[0].shape[1:])

    def normalize(x):
        norm = keras.layers.BatchNormalization(
            momentum=norms[0].momentum, epsilon=norms[0].epsilon
        )
        return keras.layers.ReLU()(norm(x))

    x = _pooled_features(images, len(convolutions) + 1, growth_rate, normalize)
    classifier = heads.get_layer(name)
    network = keras.Model(images, keras.layers.Dense(classifier.units)(x))
    for new, old in zip(
        _layers(network, keras.layers.Conv2D), convolutions, strict=True
    ):
        new.set_weights(old.get_weights())
    for new, old in zip(
        _layers(network, keras.layers.BatchNormalization), norms, strict=True
    ):
        new.set_weights([weights[index] for weights in old.get_weights()])
    network.layers[-1].set_weights(classifier.get_weights())
    return network


def _layers(model: keras.Model, kind: type) -> list:
    """Returns the layers of a kind, in the order in which they are called."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


def make_heads(
    features: Sequence[keras.KerasTensor], num_classes: Mapping[str, int]
) -> keras.Model:
    """Makes a linear classifier for each data set: features to logits.

    Args:
        features: The features of each data set, in the order of `num_classes`.
        num_classes: Number of classes by data set.

    Returns:
        A model from a list of features to a dict of logits by data set.
    """
    inputs = [keras.Input(x.shape[1:]) for x in features]
    outputs = {
        name: keras.layers.Dense(count, name=name)(x)
        for x, (name, count) in zip(inputs, num_classes.items(), strict=True)
    }
    return keras.Model(inputs, outputs, name="heads")


def _pooled_features(x, depth: int, growth_rate: int, normalize: Callable):
    """Adds all layers from the images to the pooled features."""
    num_layers = layers_per_block(depth)
    x = _convolution(x, 2 * growth_rate, 3)
    for block in range(NUM_BLOCKS):
        if block:
            x = _transition(x, normalize)
        for _ in range(num_layers):
            x = _dense_layer(x, growth_rate, normalize)
    return keras.layers.GlobalAveragePooling2D()(normalize(x))


def _convolution(x, channels: int, size: int):
    return keras.layers.Conv2D(
        channels,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)


def _dense_layer(x, growth_rate: int, normalize: Callable):
    """Adds channels computed from all previous channels."""
    new = _convolution(normalize(x), _BOTTLENECK * growth_rate, 1)
    new = _convolution(normalize(new), growth_rate, 3)
    return keras.layers.Concatenate()([x, new])


def _transition(x, normalize: Callable):
    """Halves channels, height and width."""
    x = _convolution(normalize(x), int(x.shape[-1] * _COMPRESSION), 1)
    return keras.layers.AveragePooling2D(2)(x)
