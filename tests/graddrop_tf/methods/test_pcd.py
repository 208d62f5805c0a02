"""PCD's memory and its primary loss; its values are in `test_combination`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from tests.graddrop_tf.models import NAMES, VECTOR, batch


def steps(gradients, **options):
    """Returns the combined gradient of each of several steps."""
    method = gd.PCD(num_losses=len(gradients[0]), **options)
    method.build()
    totals = []
    for step in gradients:
        rows = [tf.constant(g, tf.float64) for g in step]
        totals.append(tf.add_n(method.combine(rows, rows[0])).numpy())
    return method, totals


def test_norms_are_means_weighted_as_in_adam():
    # |g_2|^2 is 1, then 9: with a decay of 0.5 the mean of the second step is
    # (0.25 * 1 + 0.5 * 9) / 0.75 = 19 / 3. Normalised, g_2 has the length
    # 3 / (19 / 3)^0.5, of which the orthogonal g_1 gives it tau.
    first, second = [[1, 0], [0, 1]], [[1, 0], [0, 3]]
    method, totals = steps([first, second], tau=0.5, decay=0.5, epsilon=1e-14)
    for total, length in zip(totals, (1, 3 / (19 / 3) ** 0.5), strict=True):
        expected = np.array([1, 0.5 * length])
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(total, expected, atol=1e-12)
    np.testing.assert_allclose(method.state["squares"], [0.75, 4.75])
    assert float(method.state["total"]) == 0.75


def test_a_step_that_is_not_finite_is_not_remembered():
    rows = [[1.0, 0.0], [0.0, 1.0]]
    broken = [[1.0, 0.0], [0.0, np.nan]]
    method, totals = steps([rows, broken, rows])
    assert np.isnan(totals[1]).any()
    kept, _ = steps([rows, rows])
    for name, value in kept.state.items():
        np.testing.assert_array_equal(method.state[name], value)
    np.testing.assert_array_equal(totals[2], totals[0])


def test_two_opposed_auxiliary_losses_leave_the_primary_one():
    rows = [[1, 2, 0], [1, 0, 1], [-1, 0, -1]]
    _, (total,) = steps([rows])
    np.testing.assert_allclose(total, rows[0], atol=1e-12)


def test_without_a_primary_gradient_there_is_no_step():
    _, (total,) = steps([[[0, 0], [3, 1]]])
    np.testing.assert_array_equal(total, 0.0)


def test_the_primary_loss_by_name():
    by_name = VECTOR.compiled("pcd(primary='b')", keras.optimizers.SGD(0.05))
    by_index = VECTOR.compiled("pcd(primary=1)", keras.optimizers.SGD(0.05))
    first = VECTOR.compiled("pcd", keras.optimizers.SGD(0.05))
    for model in (by_name, by_index, first):
        VECTOR.train(model, steps=3)
    x, _ = batch()
    predicted = by_name.predict(x, verbose=0)
    np.testing.assert_array_equal(predicted, by_index.predict(x, verbose=0))
    assert not np.allclose(predicted, first.predict(x, verbose=0))


def test_no_such_primary_loss():
    with pytest.raises(ValueError, match="primary='d'.*losses a, b, c"):
        VECTOR.train(VECTOR.compiled("pcd(primary='d')"))
    with pytest.raises(ValueError, match="primary=3.*3 losses"):
        gd.PCD(primary=3).set_losses(3, NAMES)
    with pytest.raises(ValueError, match="primary='a'.*give its index"):
        gd.PCD(num_losses=2, primary="a")(tf.ones([1, 2]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"primary": -1}, "`primary`"),
        ({"primary": True}, "`primary`"),
        ({"primary": 1.0}, "`primary`"),
        ({"tau": 1.5}, "`tau`"),
        ({"tau": "a"}, "`tau`"),
        ({"decay": 1.0}, "`decay`"),
        ({"epsilon": 0.0}, "`epsilon`"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        gd.PCD(**arguments)
