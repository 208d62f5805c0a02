"""The laws of Gradient Sign Dropout, and its conventions at the edges."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import TRANSFORMS, bounded
from tests.graddrop_tf.methods.graddrop.cases import (
    few,
    graddrop,
    magnitudes,
    safe_uniform,
    seeds,
    whole_case,
)

NEXT_TO_0 = {"float32": 2.0**-24, "float64": 2.0**-53}
NEXT_TO_1 = {"float32": 1.0 - 2.0**-24, "float64": 1.0 - 2.0**-53}

steep_enough = st.sampled_from(
    [{}, {"k": 1.5}, {"k": 20.0}, {"purity_transform": TRANSFORMS["cubic"]}]
)


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
@given(seeds, st.booleans())
def test_leaks_stay_with_their_losses(seed, separate):
    rng, g, A = whole_case(seed, separate)
    U = safe_uniform(rng, g, A)
    leak = [0.25 * (i % 5) for i in range(len(g))]
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


# Conventions.


@pytest.mark.parametrize("U", [0.1, 0.5, 0.9])
def test_all_passes_where_no_loss_has_a_sign(U):
    """At A = 0, by example or in the sum; and where the batch cancels."""
    g = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 1.0]] * 2)]
    A = np.array([[0.0, 1.0], [0.0, 1.0]])
    for leak in (0.0, 0.1, [0.3, 1.0]):
        masked = graddrop(g, A, [U, U], leak=leak)
        np.testing.assert_array_equal(masked, g)
    masked = graddrop(g, A, np.full((2, 2), U), marginalize_batch=False)
    np.testing.assert_array_equal(masked, g)
    g[0][:, 0], g[1][:, 0] = [1.0, -1.0], [-3.0, 3.0]
    masked = graddrop(g, np.ones((2, 2)), [U, U])
    np.testing.assert_array_equal(masked, g)


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
