"""Expectations of GradDrop over U, exactly.

A mask is a step function of U that changes at f(P) alone, so on a grid of N
midpoints (j + 1/2) / N the mean is the integral wherever N f(P) is a whole
number. The gradients are small whole numbers, which makes f(P) a fraction
with a known denominator.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import TRANSFORMS, bounded
from tests.graddrop_tf.methods.graddrop.cases import (
    few,
    graddrop,
    seeds,
    whole_case,
)

whole = st.integers(-9, 9)


def over_uniform(g, num_points, **kwargs):
    """sum_i of one-dimensional gradients `g` at each midpoint of U."""
    U = (np.arange(num_points) + 0.5) / num_points
    ones = np.ones((1, num_points))
    return sum(graddrop([g_i * ones for g_i in g], ones, U, **kwargs))[0]


# Law 1.


@few
@given(seeds, st.booleans())
def test_unbiased(seed, separate):
    """E_U[sum_i M_i G_i] = sum_i G_i, with G_i summed over the batch."""
    _, g, A = whole_case(seed, separate)
    signs = [np.sign(a) for a in A] if separate else [np.sign(A)] * len(g)
    for j in range(g[0].shape[1]):
        G = [
            float((s[:, j] * g_i[:, j]).sum())
            for s, g_i in zip(signs, g, strict=True)
        ]
        num_points = int(sum(map(abs, G))) or 1
        U = (np.arange(num_points) + 0.5) / num_points

        def repeat(x, j=j, num_points=num_points):
            return np.repeat(x[:, j : j + 1], num_points, axis=1)

        masked = graddrop(
            [repeat(g_i) for g_i in g],
            [repeat(a) for a in A] if separate else repeat(A),
            U,
        )
        newgrad = sum(
            (repeat(s) * m).sum(0) for s, m in zip(signs, masked, strict=True)
        )
        assert newgrad.sum() == num_points * sum(G)


@few
@given(seeds)
def test_unbiased_for_each_example_on_its_own(seed):
    """The same without marginalisation: at every position of g itself."""
    _, g, A = whole_case(seed)
    for position in np.ndindex(A.shape):
        g_j = [float(g_i[position]) for g_i in g]
        num_points = int(sum(map(abs, g_j))) or 1
        newgrad = over_uniform(g_j, num_points, marginalize_batch=False)
        assert newgrad.sum() == num_points * sum(g_j)


# Law 5.


@few
@given(
    st.lists(whole, min_size=1, max_size=6),
    st.sampled_from([0.0, 0.5]),
    st.sampled_from([0.0, 0.25, 1.0, 4.0, 1e6]),
)
def test_proposition_1(g, leak, k):
    """newgrad is zero for every U only if every dL_i/dA is zero."""
    newgrad = over_uniform(g, 256, leak=leak, k=k)
    assert np.any(newgrad) == np.any(g)


# Law 6.


@settings(bounded, max_examples=60)
@given(st.lists(whole, min_size=1, max_size=5), st.integers(0, 8))
def test_proposition_3(g, eighths):
    """Mean and variance of dL = -(p - n) newgrad, learning rate 1."""
    k = eighths / 8.0
    p = float(sum(x for x in g if x > 0))
    n = float(sum(-x for x in g if x < 0))
    newgrad = over_uniform(g, max(int(16 * (p + n)), 1), k=k)
    dL = -(p - n) * newgrad
    mean = -0.5 * (k + 1.0) * (p - n) ** 2
    variance = (
        0.25
        * (p - n) ** 2
        * ((p - n) ** 2 * (-(k**2) - 1.0) + 2.0 * p**2 + 2.0 * n**2)
    )
    np.testing.assert_allclose(dL.mean(), mean, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(dL.var(), variance, rtol=1e-12, atol=1e-9)
    if k == 1.0:
        # That of plain SGD, whose step is p - n for certain.
        np.testing.assert_allclose(dL.mean(), -((p - n) ** 2), rtol=1e-12)


# Law 7.


@settings(bounded, max_examples=40)
@given(
    st.lists(whole, min_size=1, max_size=5),
    st.tuples(st.integers(0, 32), st.integers(0, 32)),
)
def test_corollary_3_1(g, eighths):
    """A steeper f: lower expected dL, lower variance; beyond k = 1 too."""
    low, high = sorted(eighths)
    p = sum(x for x in g if x > 0)
    n = sum(-x for x in g if x < 0)
    points = max(16 * (p + n), 1)
    gentle = -(p - n) * over_uniform(g, points, k=low / 8.0)
    steep = -(p - n) * over_uniform(g, points, k=high / 8.0)
    tiny = 1e-9
    assert steep.mean() <= gentle.mean() + tiny
    assert steep.var() <= gentle.var() + tiny
    clipped = low / 8.0 * abs(p - n) >= p + n
    if low < high and p and n and p != n and not clipped:
        assert steep.mean() < gentle.mean()
        assert steep.var() < gentle.var()


@few
@given(st.lists(whole, min_size=2, max_size=5))
def test_corollary_3_1_for_a_transform(g):
    """smoothstep is steeper than the identity, f(p) = p."""
    p = sum(x for x in g if x > 0)
    n = sum(-x for x in g if x < 0)
    points = 4000
    plain = -(p - n) * over_uniform(g, points)
    smooth = -(p - n) * over_uniform(
        g, points, purity_transform=TRANSFORMS["smoothstep"]
    )
    # The grid leaves one point of `points` undecided.
    slack = 2.0 * abs(p - n) * (p + n) / points
    assert smooth.mean() <= plain.mean() + slack
    assert smooth.var() <= plain.var() + 4.0 * slack * max(p + n, 1) ** 2
