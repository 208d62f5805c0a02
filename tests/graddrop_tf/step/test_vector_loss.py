import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import squared_errors

Y_TRUE = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]], np.float32)
Y_PRED = np.array([[1.0, 1.0], [0.0, 3.0], [1.0, 3.0]], np.float32)
# (1 + 4 + 0) / 3 and (0 + 9 + 4) / 3
MEANS = np.array([5 / 3, 13 / 3])


def test_values_by_hand():
    loss = gd.VectorLoss(squared_errors, names=["a", "b"])
    np.testing.assert_allclose(loss.values(Y_TRUE, Y_PRED), MEANS, rtol=1e-6)
    assert float(loss(Y_TRUE, Y_PRED)) == pytest.approx(MEANS.sum())


def test_sample_weights_by_hand():
    loss = gd.VectorLoss(squared_errors)
    by_example = loss.values(Y_TRUE, Y_PRED, np.array([1.0, 0.0, 2.0]))
    np.testing.assert_allclose(by_example, [1 / 3, 8 / 3], rtol=1e-6)
    by_value = loss.values(
        Y_TRUE, Y_PRED, np.array([[1.0, 1.0], [0.5, 0.0], [1.0, 0.5]])
    )
    np.testing.assert_allclose(by_value, [1.0, 2 / 3], rtol=1e-6)


def test_mask_by_hand():
    y_pred = tf.constant(Y_PRED)
    keras.src.backend.set_keras_mask(y_pred, tf.constant([True, False, True]))
    values = gd.VectorLoss(squared_errors).values(Y_TRUE, y_pred)
    np.testing.assert_allclose(values, [0.5, 2.0], rtol=1e-6)


@pytest.mark.parametrize("weights", [[2.0, 0.5], {"a": 2.0, "b": 0.5}])
def test_loss_weights(weights):
    loss = gd.VectorLoss(squared_errors, ["a", "b"], weights)
    expected = MEANS * [2.0, 0.5]
    values = loss.weighted(loss.values(Y_TRUE, Y_PRED))
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert float(loss(Y_TRUE, Y_PRED)) == pytest.approx(expected.sum())
    again = gd.VectorLoss.from_config(loss.get_config())
    assert float(again(Y_TRUE, Y_PRED)) == pytest.approx(expected.sum())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"fn": 3}, "callable"),
        ({"names": []}, "at least one"),
        ({"names": ["a", "a"]}, "different"),
        ({"names": ["a"], "loss_weights": {"b": 1.0}}, "no such loss"),
        ({"names": ["a"], "loss_weights": [1.0, 2.0]}, "2 for 1"),
        ({"loss_weights": ["x"]}, "numbers"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(ValueError, match=said):
        gd.VectorLoss(**{"fn": squared_errors, **arguments})


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"must return `\[batch, T\]`"):
        gd.VectorLoss(lambda t, p: tf.reduce_mean(t - p, -1)).values(
            Y_TRUE, Y_PRED
        )
    named = gd.VectorLoss(squared_errors, names=["a", "b", "c"])
    with pytest.raises(ValueError, match="3 names"):
        named.values(Y_TRUE, Y_PRED)
    loss = gd.VectorLoss(squared_errors)
    with pytest.raises(ValueError, match="sample_weight"):
        loss.values(Y_TRUE, Y_PRED, np.ones([3, 5]))
    with pytest.raises(ValueError, match="sample_weight"):
        loss.values(Y_TRUE, Y_PRED, np.ones([3, 2, 1]))
    with pytest.raises(ValueError, match="2, expected|for 2 losses"):
        gd.VectorLoss(squared_errors, loss_weights=[1.0, 1.0, 1.0]).weighted(
            tf.ones([2])
        )


def test_logged_means_are_those_of_the_epoch():
    """Batches of 2 and 1 count by their size."""
    inputs = keras.Input([2])
    trunk = keras.Model(inputs, keras.layers.Identity()(inputs))
    shared = keras.Input([2])
    heads = keras.Model(shared, keras.layers.Identity()(shared))
    model = gd.MultiLossModel(trunk, heads)
    model.compile(loss=gd.VectorLoss(squared_errors, names=["a", "b"]))
    logs = model.evaluate(
        Y_PRED, Y_TRUE, batch_size=2, verbose=0, return_dict=True
    )
    assert logs["a_loss"] == pytest.approx(MEANS[0])
    assert logs["b_loss"] == pytest.approx(MEANS[1])
    assert logs["loss"] == pytest.approx(MEANS.sum())


def test_another_number_of_losses_than_columns_is_told():
    inputs = keras.Input([2])
    trunk = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    shared = keras.Input([2])
    heads = keras.Model(shared, keras.layers.Dense(2)(shared))
    model = gd.MultiLossModel(trunk, heads)
    model.compile(loss=gd.VectorLoss(lambda t, p: (t - p)[:, :1]))
    with pytest.raises(ValueError, match="Give the VectorLoss `names`"):
        model.train_on_batch(Y_PRED, Y_TRUE)
