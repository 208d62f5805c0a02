"""The library against the slow reference, on random cases.

`cases.py` says how the cases keep away from ties; exact ties are the subject
of `methods/graddrop/test_function.py`.

Half precision: the reference receives the values as they were rounded to
half, so only the arithmetic differs. The library takes purity in float32
there, so the masks agree, and what is left is l_i + (1 - l_i) M_i, its
product with the gradient and the renormalising factor: three roundings, each
of at most half an epsilon of the gradient's type.
"""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import (
    DTYPES,
    SCALES,
    TRANSFORMS,
    bounded,
    eps,
    random_activations,
    random_gradients,
    settle_signs,
    settle_uniform,
)


def condition(g, separate):
    """How much the cancellation in sum_i g_i amplifies a relative error."""
    if separate:
        return 1.0
    absolute = reference.norm_of_sum([np.abs(g_i) for g_i in g])
    norm = reference.norm_of_sum(g)
    if absolute == 0.0:
        return 1.0
    return absolute / norm if norm else np.inf


@st.composite
def cases(draw, max_losses=6, max_rank=5):
    dtype = draw(st.sampled_from(list(DTYPES)))
    T = draw(st.integers(1, max_losses))
    features = tuple(
        draw(st.lists(st.integers(1, 3), min_size=1, max_size=max_rank - 1))
    )
    separate = draw(st.booleans())
    # Batch separated, the batch is summed away whatever is asked for.
    marginalize = draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    batches = rng.integers(1, 5, T) if separate else [rng.integers(1, 5)] * T
    shapes = [(int(b), *features) for b in batches]
    scale = draw(st.sampled_from(SCALES[dtype]))
    spread = draw(st.integers(0, 6))
    dL = random_gradients(rng, shapes, dtype, scale, spread)
    if separate:
        A = [random_activations(rng, shape, dtype) for shape in shapes]
    else:
        A = random_activations(rng, shapes[0], dtype)
    settle_signs(dL, A, marginalize)
    leak = draw(
        st.sampled_from([0.0, 1.0, 0.3])
        | st.lists(
            st.sampled_from([0.0, 0.1, 0.5, 1.0]), min_size=T, max_size=T
        )
    )
    transform = draw(st.sampled_from([None, *TRANSFORMS]))
    k = draw(st.sampled_from([0.0, 0.25, 1.0, 2.5, 8.0]))
    f = TRANSFORMS[transform] if transform else reference.clip_transform(k)
    P = reference.sign_purity(reference.marginalized(dL, A, marginalize))
    U = settle_uniform(rng, P, f)
    if draw(st.booleans()) and (separate or marginalize):
        U = U[0]
    return dict(
        dtype=dtype,
        dL=dL,
        A=A,
        U=U,
        P=P,
        f=f,
        leak=leak,
        # Alternatives of each other: k is left alone beside a transform.
        f_arguments={"purity_transform": f} if transform else {"k": k},
        marginalize_batch=marginalize,
        renormalize=draw(st.booleans()),
        stacked=draw(st.booleans()) and not separate,
    )


def check(case):
    """Runs the library and the reference on one case and compares."""
    dtype, dL, A, leak = (case[n] for n in ("dtype", "dL", "A", "leak"))
    separate = isinstance(A, list)
    gradients = [tf.constant(g) for g in dL]
    masked = gd.graddrop(
        tf.stack(gradients) if case["stacked"] else gradients,
        [tf.constant(a) for a in A] if separate else tf.constant(A),
        uniform=tf.constant(
            case["U"], tf.float64 if dtype == "float64" else tf.float32
        ),
        leak=leak,
        marginalize_batch=case["marginalize_batch"],
        renormalize=case["renormalize"],
        **case["f_arguments"],
    )
    leaks = leak if isinstance(leak, list) else [leak] * len(dL)
    expected = reference.graddrop(
        dL,
        A,
        case["U"],
        leaks,
        case["f"],
        case["marginalize_batch"],
        case["renormalize"],
    )
    rtol = 1.5 * eps(dtype)
    if case["renormalize"]:
        plain = reference.graddrop(
            dL,
            A,
            case["U"],
            leaks,
            case["f"],
            case["marginalize_batch"],
        )
        # Both norms inherit the error of the sums below them, amplified
        # by cancellation; the one after the mask also its rounding to half.
        before = condition([g.astype(np.float64) for g in dL], separate)
        after = condition(plain, separate)
        assume(before < 100 and after < 100)
        sums = eps("float64" if dtype == "float64" else "float32")
        rtol += (len(dL) + 4) * sums * (before + after)
        rtol += 2 * eps(dtype) * after
    # Below the smallest normal number precision is absolute (float16) or
    # the hardware flushes to zero.
    atol = float(ml_dtypes.finfo(DTYPES[dtype]).smallest_normal)
    atol *= eps(dtype) if dtype == "float16" else 1.0
    assert len(masked) == len(dL)
    for actual, want, g in zip(masked, expected, dL, strict=True):
        assert actual.dtype == dtype
        assert actual.shape == g.shape
        np.testing.assert_allclose(
            actual.numpy().astype(np.float64), want, rtol=rtol, atol=atol
        )


@settings(bounded, max_examples=200)
@given(cases())
def test_graddrop(case):
    check(case)


@settings(bounded, max_examples=25)
@given(cases(max_losses=40, max_rank=3))
def test_graddrop_with_many_losses(case):
    check(case)


@settings(bounded, max_examples=60)
@given(cases())
def test_sign_purity(case):
    dL, dtype = case["dL"], case["dtype"]
    gradients = [g[:1] for g in dL]
    P = gd.sign_purity([tf.constant(g) for g in gradients])
    assert P.dtype == (dtype if dtype == "float64" else "float32")
    np.testing.assert_allclose(
        P,
        reference.sign_purity(gradients),
        rtol=0.0,
        atol=4 * len(dL) * eps(P.dtype.name),
    )


@pytest.mark.parametrize("num_losses", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("separate", [False, True])
def test_every_rank_dtype_and_kind(num_losses, rank, dtype, separate):
    """The corners that a bounded random search need not visit."""
    rng = np.random.default_rng([num_losses, rank, separate])
    T, features = num_losses, (3, 2, 2, 2)[: rank - 1]
    batches = rng.integers(1, 4, T) if separate else [3] * T
    shapes = [(int(b), *features) for b in batches]
    dL = random_gradients(rng, shapes, dtype, 1.0, 3)
    if separate:
        A = [random_activations(rng, shape, dtype) for shape in shapes]
    else:
        A = random_activations(rng, shapes[0], dtype)
    settle_signs(dL, A, True)
    f = reference.clip_transform(0.25)
    P = reference.sign_purity(reference.marginalized(dL, A))
    check(
        dict(
            dtype=dtype,
            dL=dL,
            A=A,
            U=settle_uniform(rng, P, f)[0],
            f=f,
            leak=[0.25 * (i % 5) for i in range(T)],
            f_arguments={"k": 0.25},
            marginalize_batch=True,
            renormalize=False,
            stacked=False,
        )
    )
