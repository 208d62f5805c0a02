"""Sign purity by the oracle, and as a pure ratio at any scale."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import settle_uniform
from tests.graddrop_tf.methods.graddrop.cases import (
    few,
    graddrop,
    magnitudes,
    seeds,
)
from tests.graddrop_tf.methods.test_values import ORACLE, close

cases = pytest.mark.parametrize(
    "case", ORACLE["graddrop"], ids=[c["name"] for c in ORACLE["graddrop"]]
)


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sign_purity(case, dtype):
    gradients = [tf.constant(g, dtype) for g in case["gradients"]]
    activations = case["activations"]
    if not case["separate"]:
        activations = [activations] * len(gradients)
    activations = [tf.constant(a, dtype) for a in activations]
    G = [tf.sign(a) * g for a, g in zip(activations, gradients, strict=True)]
    if case["marginalize_batch"]:
        G = [tf.reduce_sum(G_i, axis=0, keepdims=True) for G_i in G]
    for form in (G, tf.stack(G)):
        P = gd.sign_purity(form)
        assert P.dtype == dtype
        close(P, case["purity"])


@cases
def test_the_reference_itself(case):
    U, l = np.array(case["uniform"]), case["leak"]  # noqa: E741
    A = case["activations"]
    A = A if case["separate"] else np.array(A)
    dL = [np.array(g) for g in case["gradients"]]
    f = reference.clip_transform(case["k"])
    newgrad = reference.graddrop(dL, A, U, l, f, case["marginalize_batch"])
    for actual, expected in zip(newgrad, case["per_loss"], strict=True):
        close(actual, expected)
    P = reference.sign_purity(
        reference.marginalized(dL, A, case["marginalize_batch"])
    )
    close(P, case["purity"])


def test_figure_1():
    P = gd.sign_purity([tf.constant([3.0, 7.0]), tf.constant([1.0, -3.0])])
    assert P[0] == 1.0
    close(P, [1.0, 0.7])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_purity_of_nothing_is_a_half(dtype):
    zeros = tf.zeros([2, 3], dtype)
    np.testing.assert_array_equal(gd.sign_purity([zeros, zeros]), 0.5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@few
@given(seeds)
def test_purity_is_a_pure_ratio(scale, seed):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(4, 2, 5))
    P = gd.sign_purity(tf.constant(scale * g, "float32"))
    np.testing.assert_allclose(P, reference.sign_purity(g), atol=1e-6)


@few
@given(seeds)
def test_purity_is_a_pure_ratio_beside_other_scales(seed):
    """Features of 1e-30 and of 1e30 in one tensor."""
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(4, 2, 5))
    g *= 10.0 ** rng.choice([-30, 0, 30], (2, 5))
    P = gd.sign_purity(tf.constant(g, "float32"))
    np.testing.assert_allclose(P, reference.sign_purity(g), atol=1e-6)
    A = rng.choice([-1.0, 1.0], (2, 5))
    U = settle_uniform(rng, reference.sign_purity(np.sign(A) * g), float)
    out = graddrop(g, A, U, marginalize_batch=False)
    want = reference.graddrop(list(g), A, U, [0.0] * 4, None, False)
    np.testing.assert_allclose(out, want, rtol=1e-6)


def test_purity_of_a_small_minority_keeps_its_digits():
    minority = 2.0 ** -np.arange(20.0, 100.0, 10.0)
    P = gd.sign_purity(
        [tf.constant(minority, "float32"), -tf.ones(len(minority))]
    )
    np.testing.assert_allclose(P, minority / (1.0 + minority), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@few
@given(seeds, st.integers(1, 9))
def test_purity_of_losses_that_agree_is_exact(dtype, seed, num_losses):
    rng = np.random.default_rng(seed)
    g = [magnitudes(rng, (7,), -30, 30, dtype) for _ in range(num_losses)]
    P = gd.sign_purity([tf.constant(g_i) for g_i in g])
    np.testing.assert_array_equal(P, 1.0)
    P = gd.sign_purity([tf.constant(-g_i) for g_i in g])
    np.testing.assert_array_equal(P, 0.0)
