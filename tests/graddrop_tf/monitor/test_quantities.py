import math

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places
from graddrop_tf.monitor import quantities

# Two losses, two examples, four features; the last is a dead unit.
A = np.float32([[1, -1, 2, 0], [3, 1, 0, 0]])


G = np.float32(
    [
        [[3, 1, 0, 0], [0, 1, 2, 0]],
        [[-1, 2, 4, 0], [0, 0, -5, 0]],
    ]
)


def tensors(arrays):
    return [tf.constant(a, tf.float32) for a in arrays]


@pytest.mark.parametrize(
    ("options", "kept", "purity"),
    [
        # Summed over the batch, sgn(A) G is (3, 0, 0) and (-1, -2, 4): P is
        # 3/4, 0 and 1. Of 4 + 4 values 3/4 and 1/4 + 1 + 2 are kept.
        ({}, 4 / 8, (3 / 4 + 0 + 1) / 3),
        # The first loss has 1/2 + 3/4 / 2 + 2 (1/2) + 1/2 of its four.
        ({"leak": [0.5, 0.0]}, (2.375 + 3.25) / 8, 1.75 / 3),
        # A fair coin wherever there is a sum: 1/2 and 1/2 + 1/2 + 2 (1/2).
        ({"k": 0.0}, 2.5 / 8, 1.75 / 3),
        # P is 3/4, 0, 1 and, for the second example, 1 at the second unit;
        # where A is 0, all is kept: 3/4 + 1 + 1 + 1 and 1/4 + 1 + 1 + 1.
        ({"marginalize_batch": False}, 7 / 8, (3 / 4 + 0 + 1 + 1) / 4),
    ],
)
def test_kept_share_and_purity_by_hand(options, kept, purity):
    layer = gd.GradDrop(**options)
    g, a = tensors(G), places.of(tf.constant(A))
    assert float(quantities.kept_share(g, a, layer)) == kept
    measured = float(quantities.mean_purity(g, a, layer))
    assert measured == pytest.approx(purity, rel=1e-6)


def test_batch_separated_by_hand():
    """The sums are (3, 0, 0, 0) and (-1, 2, 4, 0), of batches of 2 and 1."""
    g = [tf.constant(G[0]), tf.constant([[1.0, 2.0, 4.0, 0.0]])]
    a = places.of([tf.constant(A), tf.constant([[-2.0, 1.0, 1.0, 1.0]])])
    layer = gd.GradDrop(marginalize_batch=False)
    kept = float(quantities.kept_share(g, a, layer))
    assert kept == pytest.approx((3 / 4 + 1 / 4 + 1 + 1) / 7)
    purity = float(quantities.mean_purity(g, a, layer))
    assert purity == pytest.approx((3 / 4 + 1 + 1) / 3)
    cosine, rate = quantities.mean_cosine_and_conflict_rate(g, a)
    assert float(cosine) == pytest.approx(-1 / math.sqrt(21))
    assert float(rate) == 1.0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_cosines_and_conflicts_by_hand(scale):
    """Of the pairs two have cosine -1 / sqrt(2), the third 0."""
    g = np.float32([[1, 0], [0, 2], [-3, -3]]) * np.float32(scale)
    a = places.of(tf.ones([2]))
    cosine, rate = quantities.mean_cosine_and_conflict_rate(tensors(g), a)
    assert float(cosine) == pytest.approx(-math.sqrt(2) / 3)
    assert float(rate) == pytest.approx(2 / 3)
    with_zeros = tensors([*g, [0, 0]])
    cosine, rate = quantities.mean_cosine_and_conflict_rate(with_zeros, a)
    assert float(cosine) == pytest.approx(-math.sqrt(2) / 6)
    assert float(rate) == pytest.approx(2 / 6)


def test_one_loss_has_no_pairs():
    g, a = tensors([[[3.0, -4.0]]]), places.of(tf.ones([1, 2]))
    values = quantities.mean_cosine_and_conflict_rate(g, a)
    assert [float(v) for v in values] == [0.0, 0.0]


def test_nothing_arrives():
    g, a = tensors(np.zeros([2, 3, 2])), places.of(tf.ones([3, 2]))
    assert float(quantities.kept_share(g, a, gd.GradDrop())) == 0.0
    assert float(quantities.mean_purity(g, a, gd.GradDrop())) == 0.5
    values = quantities.mean_cosine_and_conflict_rate(g, a)
    assert [float(v) for v in values] == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_non_finite_stays_visible(bad):
    g = G.copy()
    g[1, 0, 0] = bad
    g, a = tensors(g), places.of(tf.constant(A))
    assert math.isnan(quantities.kept_share(g, a, gd.GradDrop()))
    assert math.isnan(quantities.mean_purity(g, a, gd.GradDrop()))
    for value in quantities.mean_cosine_and_conflict_rate(g, a):
        assert math.isnan(value)


def test_kept_share_is_the_mean_over_all_draws():
    """With P in quarters, four draws stand for the whole interval."""
    g = np.random.RandomState(0).choice([-3.0, -1.0, 1.0, 3.0], [2, 1, 30])
    a, layer = tf.ones([1, 30]), gd.GradDrop(leak=[0.0, 0.25], k=1.0)
    purities = set(np.asarray(gd.sign_purity(tensors(g))).ravel())
    assert purities == {0.0, 0.25, 0.5, 0.75, 1.0}
    shares = [
        np.mean(
            gd.graddrop(
                tensors(g), a, uniform=tf.fill([30], u), leak=[0.0, 0.25]
            )
            / g
        )
        for u in (0.125, 0.375, 0.625, 0.875)
    ]
    kept = float(quantities.kept_share(tensors(g), places.of(a), layer))
    assert kept == pytest.approx(np.mean(shares), rel=1e-6)
