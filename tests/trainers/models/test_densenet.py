import keras
import numpy as np
import pytest

from trainers.models import densenet, domain_normalization


def _layers(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def _count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.fixture(scope="module")
def full():
    """The paper's trunk for two data sets; with a head it has 100 layers."""
    return densenet.make_trunk((32, 32, 3), ["source", "target"])


def test_it_has_a_hundred_layers_one_kernel_each(full):
    convolutions = _layers(full, keras.layers.Conv2D)
    # The first one, 3 blocks of 16 layers of two, 2 transitions; the 100th
    # layer is the head.
    assert len(convolutions) == 1 + 3 * 16 * 2 + 2
    assert [c.kernel_size for c in convolutions].count((3, 3)) == 1 + 3 * 16
    assert all(c.bias is None for c in convolutions)
    kernels = {id(v) for c in convolutions for v in c.trainable_variables}
    assert len(kernels) == len(convolutions)
    others = [
        layer
        for layer in full.layers
        if layer.weights and layer not in convolutions
    ]
    # One before each convolution but the first, and one at the end.
    assert len(others) == 99
    assert all(
        isinstance(x, domain_normalization.DomainBatchNormalization)
        and x.synchronized
        for x in others
    )
    assert len(_layers(full, keras.layers.ReLU)) == 99


def test_feature_maps_shrink_and_grow_as_worked_out_by_hand(full):
    assert _layers(full, keras.layers.Conv2D)[0].output.shape == (
        None, 32, 32, 24,
    )  # fmt: skip
    blocks = [x.output.shape for x in _layers(full, keras.layers.Concatenate)]
    # 24 + 16 * 12 = 216, halved 108; + 192 = 300, halved 150; + 192 = 342.
    assert [blocks[index] for index in (15, 31, 47)] == [
        (None, 32, 32, 216), (None, 16, 16, 300), (None, 8, 8, 342),
    ]  # fmt: skip
    assert len(blocks) == 48
    pools = _layers(full, keras.layers.AveragePooling2D)
    assert [x.output.shape for x in pools] == [
        (None, 16, 16, 108), (None, 8, 8, 150),
    ]  # fmt: skip
    assert [x.shape for x in full.outputs] == [(None, 342)] * 2


def test_the_number_of_parameters_is_that_worked_out_by_hand(full):
    # Channels that the layers of a block see: 16 c + 12 (0 + 1 + ... + 15).
    seen = 16 * 24 + 1440, 16 * 108 + 1440, 16 * 150 + 1440
    assert seen == (1824, 3168, 3840)
    convolutions = (
        9 * 3 * 24
        + 48 * sum(seen)
        + 48 * 9 * 48 * 12
        + 216 * 108 + 300 * 150
    )  # fmt: skip
    # Scale and offset: before each bottleneck, after it, at the transitions
    # and at the end.
    norms = 2 * (sum(seen) + 48 * 48 + 216 + 300 + 342)
    assert convolutions == 741_744 and norms == 23_988
    assert _count(full.trainable_variables) == convolutions + 2 * norms
    # A set of statistics for each data set as well.
    assert _count(full.non_trainable_variables) == 2 * norms
    # With a head for CIFAR-100, one data set gives the published 0.8M.
    head = 342 * 100 + 100
    assert convolutions + norms + head == 800_032


def test_one_data_set_is_the_plain_network():
    trunk = densenet.make_trunk((8, 8, 3), ["target"], depth=16, growth_rate=4)
    # 8 -> 16, 8; 8 -> 16, 8; 8 -> 16.
    convolutions = (
        9 * 3 * 8 + 3 * (16 * (8 + 12) + 2 * 9 * 16 * 4) + 2 * (16 * 8)
    )  # fmt: skip
    norms = 2 * (3 * (8 + 12 + 2 * 16) + 3 * 16)
    assert _count(trunk.trainable_variables) == convolutions + norms
    assert [x.shape for x in trunk.outputs] == [(None, 16)]


@pytest.mark.parametrize("depth", [4, 9, 99, 101])
def test_a_depth_without_a_network_is_refused(depth):
    with pytest.raises(ValueError, match=f"got {depth}, expected 6 n"):
        densenet.layers_per_block(depth)


def test_layers_per_block():
    assert [densenet.layers_per_block(d) for d in (10, 40, 100)] == [1, 6, 16]
