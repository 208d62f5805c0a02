"""PCGrad and its iterative form against the slow reference, and laws."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from graddrop_tf import linalg
from graddrop_tf.methods import pcgrad as pcgrad_lib
from graddrop_tf.rows import SharedRows
from tests import reference
from tests.cases import DTYPES, bounded, eps
from tests.graddrop_tf.methods.test_values import ORACLE

both_forms = pytest.mark.parametrize("iterative", [False, True])


def project(gradients, order, row_order=None):
    """The library's functions of the Gram matrix, on gradients."""
    rows = SharedRows.of(gradients)
    if row_order is None:
        return rows.mix(pcgrad_lib.project(rows.gram(), order))
    rounding = linalg.rounding_error(gradients[0].dtype)
    return rows.mix(
        pcgrad_lib.project_iteratively(rows.gram(), order, row_order, rounding)
    )


compiled = tf.function(project, reduce_retracing=True)


def pcgrad(g, order, row_order=None, dtype="float64", function=project):
    """The same on arrays; returns T float64 arrays."""
    extra = {}
    if row_order is not None:
        extra["row_order"] = tf.constant(row_order, tf.int32)
    out = function(
        [tf.constant(g_i, dtype) for g_i in g],
        tf.constant(order, tf.int32),
        **extra,
    )
    assert len(out) == len(g)
    for h_i, g_i in zip(out, g, strict=True):
        assert h_i.dtype == dtype
        assert h_i.shape == np.shape(g_i)
    return [h_i.numpy().astype(np.float64) for h_i in out]


def random_orders(rng, T, iterative):
    """Rows of `order` are permutations of all T; its own index is skipped."""
    order = np.stack([rng.permutation(T) for _ in range(T)])
    return order, rng.permutation(T) if iterative else None


@both_forms
@settings(bounded, max_examples=24)
@given(
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.sampled_from([(), (2,), (3, 2)]),
    st.sampled_from(list(DTYPES)),
    st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_reference(iterative, seed, T, features, dtype, scale):
    rng = np.random.default_rng(seed)
    # Room for T directions: where they are dependent, the iterative form
    # projects onto remainders of cancellation, whose direction is rounding.
    g = rng.normal(size=(T, 2 * T, *features))
    g -= rng.uniform(0.0, 0.5) * g.sum(axis=0, keepdims=True)
    g *= 1.0 if dtype == "float16" else scale
    g[rng.random(T) < 0.1] = 0.0
    g = [g_i.astype(DTYPES[dtype]) for g_i in g]
    order, row_order = random_orders(rng, T, iterative)
    h = pcgrad(g, order, row_order, dtype)
    want = reference.pcgrad(g, order, row_order)
    size = max(float(np.abs(g_i.astype(float)).max()) for g_i in g)
    # Arithmetic in float32 or better, one rounding to half at the end.
    atol = size * 200 * eps("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(h, want, rtol=eps(dtype), atol=atol)


@both_forms
def test_forty_losses(iterative):
    rng = np.random.default_rng(0)
    g = list(rng.normal(size=(40, 100)).astype(np.float32))
    order, row_order = random_orders(rng, 40, iterative)
    np.testing.assert_allclose(
        pcgrad(g, order, row_order, "float32", compiled),
        reference.pcgrad(g, order, row_order),
        atol=1e-4,
    )


@both_forms
@settings(bounded, max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_losses_without_conflict_are_left_alone(iterative, seed, T):
    rng = np.random.default_rng(seed)
    g = np.abs(rng.normal(size=(T, 5))) * (rng.random((T, 5)) < 0.7)
    h = pcgrad(list(g), *random_orders(rng, T, iterative))
    np.testing.assert_array_equal(h, g)


@settings(bounded, max_examples=30)
@given(st.integers(0, 2**32))
def test_two_losses_in_conflict_end_orthogonal(seed):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(2, 6))
    g[1] *= -np.sign(g[0] @ g[1])
    h = pcgrad(list(g), [[0, 1], [1, 0]])
    np.testing.assert_allclose([h[0] @ g[1], h[1] @ g[0]], 0.0, atol=1e-12)


@both_forms
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_zero_gradient_is_skipped(iterative, dtype):
    g = [[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -2.0]]
    rng = np.random.default_rng(0)
    for _ in range(6):
        order, row_order = random_orders(rng, 3, iterative)
        h = pcgrad(g, order, row_order, dtype)
        assert np.isfinite(h).all()
        np.testing.assert_array_equal(h[1], 0.0)
        # An exact opposite leaves nothing; where that was projected first,
        # the iterative form has nothing to project the other one onto.
        want = reference.pcgrad(g, order, row_order)
        np.testing.assert_allclose(h, want, atol=1e-6)


@both_forms
@pytest.mark.parametrize("T", [3, 4, 5])
def test_no_gradient_grows(iterative, T):
    """A projection never lengthens, not even onto what rounding left over.

    With more losses than dimensions the iterative form comes upon remainders
    that are zero but for rounding; divided by their square, it explodes.
    """
    for seed in range(40):
        rng = np.random.default_rng([T, seed])
        g = np.outer(rng.normal(size=T), rng.normal(size=3))
        g += (seed % 3) * 1e-6 * rng.normal(size=(T, 3))
        order, row_order = random_orders(rng, T, iterative)
        h = pcgrad(list(g), order, row_order, "float32", compiled)
        limit = np.linalg.norm(g, axis=1).max()
        assert np.linalg.norm(h, axis=1).max() <= 1.001 * limit


@both_forms
def test_permuting_losses_and_orders(iterative):
    rng = np.random.default_rng(1)
    g = rng.normal(size=(4, 6))
    order, row_order = random_orders(rng, 4, iterative)
    new = rng.permutation(4)
    place = np.argsort(new)
    rows = None if row_order is None else place[row_order]
    np.testing.assert_allclose(
        pcgrad(list(g[new]), place[order[new]], rows),
        np.stack(pcgrad(list(g), order, row_order))[new],
        atol=1e-12,
    )


@pytest.mark.parametrize("case", ORACLE["combiners"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@both_forms
def test_reaches_the_sums_of_the_oracle_and_no_others(case, dtype, iterative):
    jacobian = np.array(ORACLE["combiners"][case]["jacobian"])
    listed = np.array(
        ORACLE["combiners"][case]["iterative_pcgrad" if iterative else "pcgrad"]
    )
    reached = set()
    for order, row_order in reference.every_order(len(jacobian), iterative):
        out = sum(pcgrad(jacobian, order, row_order, dtype, compiled))
        distance = np.abs(listed - out).max(axis=1)
        assert distance.min() <= 1e-6
        reached.add(int(distance.argmin()))
    assert reached == set(range(len(listed)))
