"""MGDA's minimum-norm point, judged by the point and by its duality gap.

Weights are compared nowhere: with dependent gradients they are not unique.
For p = sum_i a_i g_i on the simplex, a'Ga - min_i (Ga)_i bounds both
|p|^2 - |p*|^2 and |p - p*|^2 from above, and is 0 at the optimum p* alone.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import graddrop_tf as gd
from graddrop_tf.methods import mgda as mgda_lib
from tests import reference
from tests.cases import DTYPES, bounded
from tests.graddrop_tf.methods.test_values import ORACLE

GAP = 1e-6
ROUNDING = 1e-6


@tf.function
def compiled_mgda(gradients):
    return gd.MGDA().combine(gradients, gradients[0])


compiled_weights = tf.function(mgda_lib.min_norm_weights)


def mgda(g, dtype="float32"):
    """Returns the T scaled gradients as float64 arrays."""
    gradients = [tf.constant(g_i, dtype) for g_i in g]
    out = compiled_mgda(gradients)
    assert len(out) == len(gradients)
    for y, x in zip(out, gradients, strict=True):
        assert (y.dtype, y.shape) == (x.dtype, x.shape)
    return np.stack([y.numpy().astype(np.float64) for y in out])


def min_norm_weights(gram, rounding=ROUNDING):
    a = compiled_weights(tf.constant(gram, tf.float64), rounding)
    assert a.dtype == tf.float64
    a = a.numpy()
    assert np.all(a >= 0.0)
    np.testing.assert_allclose(a.sum(), 1.0, rtol=1e-9)
    return a


def relative_gap(g, p):
    """(|p|^2 - min_i g_i . p) / max_i |g_i|^2."""
    g = np.reshape(g, (len(g), -1)).astype(np.float64)
    p = np.reshape(p, -1)
    largest = np.abs(g).max() or 1.0
    g, p = g / largest, p / largest
    return (p @ p - (g @ p).min()) / ((g**2).sum(1).max() or 1.0)


def check(g, dtype="float32"):
    g = np.asarray(g, DTYPES[dtype]).astype(np.float64)
    out = mgda(g, dtype)
    assert np.isfinite(out).all()
    assert relative_gap(g, out.sum(0)) <= GAP
    return out


def families(rng, T, kind):
    """Gradients that solvers find hard, by name."""
    d = 2 * T + 3
    g = rng.normal(size=(T, d))
    if kind == "near duplicates":
        g = g[:1] + 10.0 ** rng.uniform(-7, -2, (T, 1)) * g
    elif kind == "duplicates":
        g = g[rng.integers(0, (T + 1) // 2, T)]
    elif kind == "rank 2":
        g = rng.normal(size=(T, 2)) @ rng.normal(size=(2, d))
    elif kind == "0 inside":
        g = g - g.mean(0)
    elif kind == "0 far outside":
        g = g + 5.0
    elif kind == "some zero":
        g[rng.random(T) < 0.3] = 0.0
    elif kind == "many sizes":
        g *= 10.0 ** rng.uniform(-6, 0, (T, 1))
    elif kind == "opposite pairs":
        g[1::2] = -g[: T - T // 2][: len(g[1::2])]
    return g


KINDS = [
    "plain",
    "near duplicates",
    "duplicates",
    "rank 2",
    "0 inside",
    "0 far outside",
    "some zero",
    "many sizes",
    "opposite pairs",
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T", [1, 2, 10, 100])
def test_gap(T, kind, dtype):
    rng = np.random.default_rng([T, KINDS.index(kind)])
    check(families(rng, T, kind), dtype)


@pytest.mark.parametrize("T", [3, 9, 100])
def test_gap_in_the_unit_of_each_gradient(T):
    g = families(np.random.default_rng(T), T, "many sizes")
    p = min_norm_weights(g @ g.T, 1e-12) @ g
    gaps = (p @ p - g @ p) / np.linalg.norm(g, axis=1) / np.linalg.norm(p)
    assert gaps.max() <= 1e-9


def test_the_rounding_error_does_not_move_the_solution():
    g = np.random.default_rng(2).normal(size=(4, 20))
    want = min_norm_weights(g @ g.T, 1e-14)
    np.testing.assert_allclose(min_norm_weights(g @ g.T, 1e-3), want, atol=1e-7)


@settings(bounded, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(KINDS))
def test_point_against_every_active_set(seed, T, kind):
    g = families(np.random.default_rng(seed), T, kind)
    gram = g @ g.T
    best = reference.min_norm_point(gram)
    largest = np.sqrt(np.diag(gram).max()) or 1.0
    for a in (min_norm_weights(gram), min_norm_weights(gram, 1e-10)):
        assert relative_gap(g, a @ g) <= GAP
        # |p - p*|^2 is at most the gap.
        assert np.linalg.norm((a - best) @ g) <= np.sqrt(GAP) * largest
        assert a @ gram @ a <= best @ gram @ best + GAP * largest**2
    assert relative_gap(g, best @ g) <= 1e-9


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15, 1e30])
@pytest.mark.parametrize("kind", KINDS)
def test_scale(scale, kind):
    g = families(np.random.default_rng(3), 7, kind)
    # Rounded first, so that both are the same problem.
    g = g.astype(np.float32).astype(np.float64)
    point = check(g).sum(0)
    scaled = check(scale * g).sum(0) / scale
    largest = np.sqrt((g**2).sum(1).max())
    assert np.linalg.norm(point - scaled) <= 2 * np.sqrt(GAP) * largest


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_scale_of_the_gram_matrix(scale):
    g = np.random.default_rng(4).normal(size=(5, 20))
    a = min_norm_weights(scale * g @ g.T)
    assert relative_gap(g, a @ g) <= GAP


def test_the_largest_of_orthogonal_gradients_counts_least():
    """For orthogonal rows a_i is proportional to 1 / |g_i|^2."""
    out = mgda(np.diag([1.0, 2.0]))
    np.testing.assert_allclose(out, [[0.8, 0], [0, 0.4]], atol=1e-5)


def test_a_zero_gradient_takes_all_the_weight():
    g = np.random.default_rng(7).normal(size=(3, 5))
    g[1] = 0.0
    np.testing.assert_array_equal(check(g), 0.0)


def test_the_non_finite_stays_visible_in_every_weight():
    gram = np.array([[2.0, np.nan], [np.nan, 3.0]])
    weights = mgda_lib.min_norm_weights(tf.constant(gram), ROUNDING)
    assert np.isnan(weights).all()


@pytest.mark.parametrize("case", ORACLE["combiners"])
def test_weights_of_the_oracle(case):
    # Unique here: both Jacobians have independent rows.
    expected = ORACLE["combiners"][case]
    jacobian = np.array(expected["jacobian"])
    weights = min_norm_weights(jacobian @ jacobian.T, 0.0)
    np.testing.assert_allclose(weights, expected["mgda_weights"], atol=1e-6)
