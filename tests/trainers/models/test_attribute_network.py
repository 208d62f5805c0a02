import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.models import attribute_network


def _shapes(model, kind):
    return [
        tuple(layer.output.shape[1:])
        for layer in model.layers
        if isinstance(layer, kind)
    ]


def test_the_network_is_the_papers():
    trunk, heads = attribute_network.make_network()
    # Three max pools with stride 2: 218 -> 109 -> 54 -> 27, 178 -> ... -> 22.
    assert _shapes(trunk, keras.layers.Conv2D) == [
        (218, 178, 64),
        (109, 89, 128), (109, 89, 128),
        (54, 44, 256), (54, 44, 256),
        (27, 22, 512), (27, 22, 512),
    ]  # fmt: skip
    assert _shapes(heads, keras.layers.Dense) == [(512,), (512,), (40,)]
    norms = [
        layer
        for model in (trunk, heads)
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 9
    assert len(_shapes(trunk, keras.layers.ReLU)) == 7
    assert len(_shapes(heads, keras.layers.ReLU)) == 2
    pools = [
        x for x in trunk.layers if isinstance(x, keras.layers.MaxPooling2D)
    ]
    assert [(p.pool_size, p.strides) for p in pools] == [((2, 2), (2, 2))] * 3


def test_the_number_of_parameters_is_that_worked_out_by_hand():
    trunk, heads = attribute_network.make_network()
    convolutions = 9 * (
        3 * 64
        + 64 * 128 + 128 * 128
        + 128 * 256 + 256 * 256
        + 256 * 512 + 512 * 512
    )  # fmt: skip
    # Scale and offset of each channel.
    norms = 2 * (64 + 2 * 128 + 2 * 256 + 2 * 512)
    assert convolutions == 4_646_592 and norms == 3_712
    # 27 x 22 x 512 = 304,128 activations.
    dense = 304_128 * 512 + 512 * 512 + 2 * 2 * 512 + 512 * 40 + 40
    assert dense == 155_998_248

    def count(model):
        return sum(int(np.prod(v.shape)) for v in model.trainable_variables)

    assert count(trunk) == convolutions + norms
    assert count(heads) == dense


def test_the_cross_entropy_of_each_attribute():
    labels = np.array([[0, 1, 0, 1], [1, 1, 0, 0]], np.float32)
    logits = np.array([[0, 2, -1, 3], [1, 0, 4, -2]], np.float32)
    signed = np.where(labels > 0, -logits, logits).astype(np.float64)
    losses = attribute_network.cross_entropy(labels, logits)
    np.testing.assert_allclose(losses, np.log1p(np.exp(signed)), rtol=1e-6)


def test_a_missing_label_has_no_loss_and_no_gradient():
    labels = np.array([[0, -1, 1], [-1, -1, -1]], np.float32)
    logits = tf.constant([[2.0, 3.0, -1.0], [5.0, -90.0, 90.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = attribute_network.cross_entropy(labels, logits)
    expected = np.log1p(np.exp([2.0, 1.0]))
    np.testing.assert_allclose(losses[0], [expected[0], 0, expected[1]], 1e-6)
    np.testing.assert_array_equal(losses[1], [0, 0, 0])
    known = np.array([[1, 0, 1], [0, 0, 0]])
    assert ((tape.gradient(losses, logits).numpy() != 0) == known).all()


@pytest.mark.parametrize("size", [(7, 8), (8, 7)])
def test_images_too_small_to_halve_are_refused(size):
    attribute_network.check_image_size(8, 8)
    with pytest.raises(ValueError, match="expected at least 8 x 8"):
        attribute_network.check_image_size(*size)
