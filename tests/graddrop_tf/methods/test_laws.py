"""The laws of Gradient Sign Dropout, and its conventions at the edges.

Expectations over U are exact: a mask is a step function of U that changes at
f(P) alone, so on a grid of N midpoints (j + 1/2) / N the mean is the
integral wherever N f(P) is a whole number. The gradients are small whole
numbers, which makes f(P) a fraction with a known denominator.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import MARGIN, TRANSFORMS, bounded, settle_uniform

NEXT_TO_0 = {"float32": 2.0**-24, "float64": 2.0**-53}
NEXT_TO_1 = {"float32": 1.0 - 2.0**-24, "float64": 1.0 - 2.0**-53}

few = settings(bounded, max_examples=25)
seeds = st.integers(0, 2**32)
whole = st.integers(-9, 9)
steep_enough = st.sampled_from(
    [{}, {"k": 1.5}, {"k": 20.0}, {"purity_transform": TRANSFORMS["cubic"]}]
)


def graddrop(gradients, activations, uniform, dtype="float32", **kwargs):
    """The library's function on arrays; returns T float64 arrays."""
    separate = isinstance(activations, list)
    masked = gd.graddrop(
        [tf.constant(g, dtype) for g in gradients],
        [tf.constant(a, dtype) for a in activations]
        if separate
        else tf.constant(activations, dtype),
        uniform=tf.constant(uniform, dtype),
        **kwargs,
    )
    return [m.numpy().astype(np.float64) for m in masked]


def over_uniform(g, num_points, **kwargs):
    """sum_i of one-dimensional gradients `g` at each midpoint of U."""
    U = (np.arange(num_points) + 0.5) / num_points
    ones = np.ones((1, num_points))
    return sum(graddrop([g_i * ones for g_i in g], ones, U, **kwargs))[0]


def whole_case(seed, separate=False):
    """Whole-number gradients, T of them, and activations without zeros."""
    rng = np.random.default_rng(seed)
    T, F = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    B = rng.integers(1, 4, T) if separate else [int(rng.integers(1, 4))] * T
    g = [rng.integers(-9, 10, (b, F)).astype(float) for b in B]
    A = [rng.choice([-2.0, -0.5, 0.5, 2.0], (b, F)) for b in B]
    return rng, g, A if separate else A[0]


def safe_uniform(rng, g, A, f=lambda p: p, marginalize_batch=True):
    P = reference.sign_purity(reference.marginalized(g, A, marginalize_batch))
    U = settle_uniform(rng, P, f)
    return U[0] if marginalize_batch else U


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


# Law 2.


@few
@given(
    seeds,
    st.booleans(),
    st.sampled_from([{}, {"k": 0.0}, {"k": 0.25}, {"k": 3.0}]),
)
def test_survivors_have_one_sign(seed, separate, f):
    rng, g, A = whole_case(seed, separate)
    U = rng.random(g[0].shape[1])
    masked = graddrop(g, A, U, **f)
    signs = [np.sign(a) for a in A] if separate else [np.sign(A)] * len(g)
    G = np.stack([(s * m).sum(0) for s, m in zip(signs, masked, strict=True)])
    assert not np.any((G > 0).any(0) & (G < 0).any(0))


@few
@given(seeds)
def test_survivors_have_one_sign_for_each_example(seed):
    rng, g, A = whole_case(seed)
    masked = np.stack(
        graddrop(g, A, rng.random(A.shape), marginalize_batch=False)
    )
    assert not np.any((masked > 0).any(0) & (masked < 0).any(0))


@few
@given(seeds, st.booleans())
def test_a_loss_survives_whole_or_not_at_all(seed, separate):
    """Leak 0: one mask for a feature, over the whole batch."""
    rng, g, A = whole_case(seed, separate)
    masked = graddrop(g, A, rng.random(g[0].shape[1]))
    for g_i, m_i in zip(g, masked, strict=True):
        assert np.all((m_i == g_i).all(0) | (m_i == 0.0).all(0))


# Law 3.


def magnitudes(rng, shape, low, high, dtype):
    """Positive numbers of every decade between the two exponents."""
    x = 10.0 ** rng.uniform(low, high, shape)
    return x.astype(dtype)


def extremes(dtype, num_features):
    """Draws next to 0, next to 1, and one between."""
    ends = [NEXT_TO_0[dtype], NEXT_TO_1[dtype], 0.3]
    return np.resize(ends, num_features)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@few
@given(
    seeds,
    st.integers(1, 8),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.booleans(),
    st.sampled_from([(-30, -30), (30, 30), (-30, 30), (0, 0)]),
    steep_enough,
)
def test_losses_that_agree_are_never_dropped(
    dtype, seed, num_losses, leak, marginalize_batch, decades, f
):
    """Also where one loss is 60 decades smaller than its neighbour."""
    rng = np.random.default_rng(seed)
    shape = (2, 6)
    direction = rng.choice([-1.0, 1.0], shape[1:])
    A = rng.choice([-3.0, 0.5], shape)
    g = [
        direction * np.sign(A) * magnitudes(rng, shape, *decades, dtype)
        for _ in range(num_losses)
    ]
    g = [g_i.astype(dtype) for g_i in g]
    U = extremes(dtype, 6)
    if not marginalize_batch:
        U = np.stack([U, U[::-1]])
    masked = graddrop(
        g, A, U, dtype, leak=leak, marginalize_batch=marginalize_batch, **f
    )
    for m_i, g_i in zip(masked, g, strict=True):
        # Whatever the leak, l + (1 - l) * 1 may round; nothing is dropped.
        if leak in (0.0, 1.0):
            np.testing.assert_array_equal(m_i, g_i)
        else:
            np.testing.assert_allclose(m_i, g_i, rtol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@few
@given(seeds, st.booleans(), steep_enough)
def test_one_loss_is_the_identity(dtype, scale, seed, marginalize_batch, f):
    rng = np.random.default_rng(seed)
    g = (scale * rng.normal(size=(3, 6))).astype(dtype)
    A = rng.choice([-3.0, 0.5], g.shape)
    assume(np.all(np.abs((np.sign(A) * g).sum(0)) > MARGIN * scale))
    U = extremes(dtype, 6)
    U = U if marginalize_batch else np.stack([U] * 3)
    (masked,) = graddrop(
        [g], A, U, dtype, marginalize_batch=marginalize_batch, **f
    )
    np.testing.assert_array_equal(masked, g)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@few
@given(seeds, st.integers(1, 6), st.booleans(), st.booleans(), st.floats(0, 3))
def test_leak_1_is_the_plain_sum(scale, seed, T, separate, as_list, k):
    """Exactly, for any U and f, with zeros and dead units among them."""
    rng = np.random.default_rng(seed)
    B = rng.integers(1, 4, T) if separate else [2] * T
    g = [(scale * rng.normal(size=(b, 5))).astype("float32") for b in B]
    A = [np.maximum(rng.normal(size=(b, 5)), 0.0) for b in B]
    masked = graddrop(
        g,
        A if separate else A[0],
        rng.random(5),
        leak=[1.0] * T if as_list else 1.0,
        k=k,
    )
    for m_i, g_i in zip(masked, g, strict=True):
        np.testing.assert_array_equal(m_i, g_i)


# Law 4.


@few
@given(seeds, st.integers(-100, 100), st.booleans())
def test_positive_scaling(seed, exponent, renormalize):
    """Powers of two, so that c g is exact."""
    rng, g, A = whole_case(seed)
    U = safe_uniform(rng, g, A)
    c = 2.0**exponent
    out = graddrop(g, A, U, renormalize=renormalize)
    scaled = graddrop([c * g_i for g_i in g], A, U, renormalize=renormalize)
    assume(np.any(sum(out)) or not np.any(out))
    for x, y in zip(out, scaled, strict=True):
        np.testing.assert_allclose(y, c * x, rtol=1e-5 if renormalize else 0.0)


@few
@given(seeds, st.booleans(), st.booleans())
def test_permuting_the_losses(seed, separate, leaky):
    rng, g, A = whole_case(seed, separate)
    U = safe_uniform(rng, g, A)
    leak = [0.25 * (i % 5) if leaky else 0.0 for i in range(len(g))]
    order = rng.permutation(len(g))
    out = graddrop(g, A, U, leak=leak)
    permuted = graddrop(
        [g[i] for i in order],
        [A[i] for i in order] if separate else A,
        U,
        leak=[leak[i] for i in order],
    )
    for i, x in zip(order, permuted, strict=True):
        np.testing.assert_array_equal(x, out[i])


@few
@given(seeds, st.booleans(), st.sampled_from([0.0, 0.25, 1.0, 2.0]))
def test_flipping_all_signs(seed, marginalize_batch, k):
    rng, g, A = whole_case(seed)
    U = safe_uniform(rng, g, A, reference.clip_transform(k), marginalize_batch)
    kwargs = {"k": k, "marginalize_batch": marginalize_batch}
    out = graddrop(g, A, U, **kwargs)
    flipped = graddrop([-g_i for g_i in g], A, 1.0 - U, **kwargs)
    for x, y in zip(out, flipped, strict=True):
        np.testing.assert_array_equal(y, -x)
    # The sign of A turns G, hence P and the mask, but not dL/dA.
    turned = graddrop(g, -A, 1.0 - U, **kwargs)
    for x, y in zip(out, turned, strict=True):
        np.testing.assert_array_equal(y, x)


@few
@given(seeds)
def test_only_the_sign_of_activations_counts(seed):
    rng, g, A = whole_case(seed)
    U = rng.random(A.shape[1])
    out = graddrop(g, A, U)
    sized = graddrop(g, A * 10.0 ** rng.integers(-20, 21, A.shape), U)
    for x, y in zip(out, sized, strict=True):
        np.testing.assert_array_equal(x, y)


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


# Conventions.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("marginalize_batch", [True, False])
@pytest.mark.parametrize("renormalize", [True, False])
def test_nothing_arrives(dtype, marginalize_batch, renormalize):
    zeros = tf.zeros([2, 3], dtype)
    U = tf.fill([3] if marginalize_batch else [2, 3], 0.3)
    U = tf.cast(U, "float64" if dtype == "float64" else "float32")
    masked = gd.graddrop(
        [zeros, zeros],
        tf.ones([2, 3], dtype),
        uniform=U,
        marginalize_batch=marginalize_batch,
        renormalize=renormalize,
    )
    for m in masked:
        np.testing.assert_array_equal(m.numpy().astype(float), 0.0)
    np.testing.assert_array_equal(gd.sign_purity([zeros, zeros]), 0.5)


@pytest.mark.parametrize("U", [0.1, 0.5, 0.9])
def test_a_dead_unit_is_masked_and_spares_the_others(U):
    g = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 1.0]] * 2)]
    A = np.array([[0.0, 1.0], [0.0, 1.0]])
    masked = graddrop(g, A, [U, U])
    for m_i, g_i in zip(masked, g, strict=True):
        np.testing.assert_array_equal(m_i[:, 0], 0.0)
        np.testing.assert_array_equal(m_i[:, 1], g_i[:, 1])


@pytest.mark.parametrize("U", [2.0**-24, 0.4, 0.6, 1.0 - 2.0**-24])
def test_a_loss_that_cancels_over_the_batch_is_masked(U):
    """G_1 = 0 although dL_1/dA is not: both indicators are strict."""
    g = [np.array([[2.0], [-2.0]]), np.array([[1.0], [3.0]])]
    masked = graddrop(g, np.ones((2, 1)), [U])
    np.testing.assert_array_equal(masked[0], 0.0)
    np.testing.assert_array_equal(masked[1], g[1])
    leaked = graddrop(g, np.ones((2, 1)), [U], leak=[0.5, 0.0])
    np.testing.assert_array_equal(leaked[0], 0.5 * g[0])


def test_a_tie_of_purity_and_draw_drops_both_signs():
    """f(P) > U and f(P) < U are both strict."""
    ones = np.ones((1, 2))
    masked = graddrop([ones, ones, ones, -ones], ones, [0.75, 0.5])
    np.testing.assert_array_equal(np.stack(masked)[:, 0, 0], 0.0)
    np.testing.assert_array_equal(np.stack(masked)[:, 0, 1], [1, 1, 1, 0])
    masked = graddrop([ones, ones, -ones], ones, [0.5, 0.5], k=0.0)
    np.testing.assert_array_equal(np.stack(masked), 0.0)


@few
@given(seeds, st.integers(0, 6))
def test_a_loss_that_does_not_depend_on_the_activations(seed, position):
    """A gradient of zeros changes nothing; leaks stay with their losses."""
    rng, g, A = whole_case(seed)
    U = safe_uniform(rng, g, A)
    leak = [0.25 * (i % 5) for i in range(len(g))]
    out = graddrop(g, A, U, leak=leak)
    position = min(position, len(g))
    g.insert(position, np.zeros_like(A))
    leak.insert(position, 0.7)
    more = graddrop(g, A, U, leak=leak)
    np.testing.assert_array_equal(more.pop(position), 0.0)
    for x, y in zip(out, more, strict=True):
        np.testing.assert_array_equal(x, y)


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


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e18, 1e30])
@pytest.mark.parametrize("separate", [False, True])
@settings(bounded, max_examples=10)
@given(seeds)
def test_renormalisation_restores_the_norm(scale, separate, seed):
    rng, g, A = whole_case(seed, separate)
    g = [scale * g_i for g_i in g]
    U = safe_uniform(rng, g, A)
    out = graddrop(g, A, U, renormalize=True)
    plain = graddrop(g, A, U)
    before = reference.norm_of_sum(g, separate)
    after = reference.norm_of_sum(out, separate)
    if not np.any([p.any() for p in plain]):
        assert after == 0.0
        return
    assume(reference.norm_of_sum(plain, separate) > 0.0)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5 * scale)


def test_renormalisation_does_not_overflow_in_half_precision():
    """Norms are taken in float32: 60,000 + 60,000 is beyond float16."""
    g = tf.constant([[[6e4]], [[6e4]], [[-6e4]]], "float16")
    for U, want in ((0.9, [0, 0, -6e4]), (0.1, [3e4, 3e4, 0])):
        masked = gd.graddrop(
            g, tf.ones([1, 1], "float16"), uniform=[U], renormalize=True
        )
        np.testing.assert_allclose(
            [m.numpy().astype(float).item() for m in masked], want, rtol=2e-3
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leak", [0.0, 0.5, [0.0, 0.3, 1.0]])
@pytest.mark.parametrize("U", [2.0**-24, 0.5, 1.0 - 2.0**-24])
@pytest.mark.parametrize("activation", [1.0, -1.0, 0.0])
def test_the_non_finite_stays_visible(bad, leak, U, activation):
    rng = np.random.default_rng(0)
    for loss in range(3):
        g = [rng.normal(size=(4, 3)) for _ in range(3)]
        A = rng.normal(size=(4, 3))
        A[2, 1] = activation
        clean = graddrop(g, A, [U] * 3, leak=leak)
        g[loss][2, 1] = bad
        masked = np.stack(graddrop(g, A, [U] * 3, leak=leak))
        # Marginalised: the feature, for the whole batch and every loss.
        assert not np.isfinite(masked[:, :, 1]).any()
        np.testing.assert_array_equal(
            masked[:, :, [0, 2]], np.stack(clean)[:, :, [0, 2]]
        )
        masked = graddrop(
            g, A, np.full((4, 3), U), leak=leak, marginalize_batch=False
        )
        finite = np.isfinite(np.stack(masked))
        assert not finite[:, 2, 1].any()
        assert finite.sum() == finite.size - 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("leak", [0.0, [0.0, 1.0]])
@pytest.mark.parametrize("loss", [0, 1])
def test_the_non_finite_stays_visible_batch_separated(bad, leak, loss):
    rng = np.random.default_rng(0)
    g = [rng.normal(size=(b, 3)) for b in (2, 4)]
    A = [np.maximum(rng.normal(size=(b, 3)), 0.0) for b in (2, 4)]
    g[loss][1, 1] = bad
    for masked in graddrop(g, A, [0.4] * 3, leak=leak):
        assert not np.isfinite(masked[:, 1]).any()
        assert np.isfinite(masked[:, [0, 2]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_non_finite_stays_visible_in_every_dtype(bad, dtype):
    g = tf.constant([[[1.0, 2.0]], [[-1.0, bad]]], dtype)
    P = gd.sign_purity(g)
    assert P[0, 0] == 0.5
    assert not np.isfinite(P[0, 1])
    U = tf.constant([0.9, 0.9], P.dtype)
    for renormalize in (False, True):
        masked = gd.graddrop(
            g, tf.ones_like(g[0]), uniform=U, renormalize=renormalize
        )
        for m in masked:
            assert not np.isfinite(m[0, 1].numpy().astype(float))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_non_finite_stays_visible_with_leak_1(bad):
    g = np.array([[[1.0, 2.0]], [[-1.0, bad]]])
    masked = graddrop(g, np.ones((1, 2)), [0.5, 0.5], leak=1.0)
    assert not np.isfinite(sum(masked)[0, 1])
    np.testing.assert_array_equal([m[0, 0] for m in masked], [1.0, -1.0])
