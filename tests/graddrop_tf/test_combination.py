"""`gd.combine` against published values, eagerly, in a graph and under XLA.

`tests/oracle/aggregators.json` holds the combined gradients of 8 matrices from
two independent float64 computations. Means of T losses are multiplied by T.
"""

import functools
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd

ORACLE = json.loads(
    (pathlib.Path(__file__).parents[1] / "oracle/aggregators.json").read_text()
)
MATRICES = {name: np.array(rows) for name, rows in ORACLE["matrices"].items()}


def mean(num_losses, gram):
    """Returns the factor of a method that the paper defines as a mean."""
    return num_losses


def homogeneous(alpha):
    """Returns the factor of the equation for G divided by its norm."""
    power = alpha / (1 + alpha)
    return lambda num_losses, gram: np.linalg.norm(gram) ** power


def none(num_losses, gram):
    return 1.0


# In a recipe; what the oracle's values are multiplied by.
CASES = {
    "mgda": ("mgda", none),
    "upgrad": ("upgrad", mean),
    "dualproj": ("dualproj", mean),
    "cagrad_0.5": ("cagrad(c=0.5)", mean),
    "cagrad_0.2": ("cagrad(c=0.2)", mean),
    "imtl_g": ("imtl_g", none),
    "aligned_mtl_min": ("aligned_mtl", mean),
    "aligned_mtl_median": ("aligned_mtl(mode='median')", mean),
    "aligned_mtl_rmse": ("aligned_mtl(mode='rmse')", mean),
    "nash_mtl": ("nash_mtl", homogeneous(1.0)),
    "fairgrad_0.5": ("fairgrad(alpha=0.5)", homogeneous(0.5)),
    "fairgrad_1.0": ("fairgrad(alpha=1.0)", homogeneous(1.0)),
    "fairgrad_2.0": ("fairgrad", homogeneous(2.0)),
    "config": ("config", none),
    "equal_norm": ("equal_norm", none),
    "pcd": ("pcd", none),
}


@functools.cache
def function(text, **options):
    """Returns the sum of the combined rows as a function of the rows."""

    @tf.function(autograph=False, **options)
    def run(rows):
        parts = gd.combine(text, rows)
        assert {part.dtype for part in parts} == {rows.dtype}
        return tf.add_n(parts)

    return run


def padded(rows):
    """Returns rows of one length for all matrices, to share their traces."""
    longest = max(len(row) for rows in MATRICES.values() for row in rows)
    return np.pad(rows, [(0, 0), (0, longest - len(rows[0]))])


def assert_is(total, expected, tolerance):
    size = np.abs(expected).max()
    np.testing.assert_allclose(total, expected, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("case", CASES)
def test_values(case):
    text, factor = CASES[case]
    values = ORACLE["values"][case]
    for name, rows in MATRICES.items():
        expected = np.array(values["results"][name])
        expected = factor(len(rows), rows @ rows.T) * expected
        total = tf.add_n(gd.combine(text, rows)).numpy()
        assert_is(total, expected, values["tolerance"])
        rows, expected = padded(rows), padded([expected])[0]
        graph, xla = function(text), function(text, jit_compile=True)
        for run in (graph, xla):
            total = run(tf.constant(rows, "float64")).numpy()
            assert_is(total, expected, values["tolerance"])
        # Under XLA for matrices of three rows alone, as compiling takes long.
        for run in (graph, xla) if len(rows) == 3 else (graph,):
            total = run(tf.constant(rows, "float32")).numpy()
            assert_is(total, expected, values["tolerance_float32"])


def arrays(structure):
    return [np.array(tensor) for tensor in tf.nest.flatten(structure)]


def assert_same(first, second):
    for a, b in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


ROWS = np.random.default_rng(0).normal(size=(3, 4, 6))


def test_gradients_in_all_forms():
    """A stack, a list, numbers, and blocks whose products add up."""
    expected = gd.combine("mgda", ROWS)
    assert_same(gd.combine("mgda", list(ROWS)), expected)
    assert_same(gd.combine("mgda", tuple(tf.constant(ROWS))), expected)
    blocks = [{"a": row[:, :2], "b": [row[:, 2:]]} for row in ROWS]
    combined = gd.combine("mgda", blocks)
    tf.nest.assert_same_structure(combined[0], blocks[0])
    joined = [np.concatenate([h["a"], h["b"][0]], axis=1) for h in combined]
    assert_same(joined, expected)
    stacks = {"a": ROWS[..., :2], "b": [ROWS[..., 2:]]}
    assert_same(gd.combine("mgda", stacks), combined)
    (a, b) = gd.combine("mgda", [[2, 0], [-1, 1]])
    assert a.dtype == b.dtype == tf.float32
    # By hand: w = (0.4, 0.6) makes (0.2, 0.6), of the product 0.4 with both.
    np.testing.assert_allclose([a, b], [[0.8, 0], [-0.6, 0.6]], atol=1e-6)


@pytest.mark.parametrize("method", gd.METHODS)
def test_every_method_keeps_shapes_and_dtypes(method):
    losses = None
    if issubclass(gd.METHODS[method], gd.Weighting):
        losses = [1.0, 2.0]
        with pytest.raises(ValueError, match="needs `losses`"):
            gd.combine(method, ROWS)
    for shape in ([], [5], [2, 5], [2, 3, 4]):
        for dtype in ("bfloat16", "float64"):
            gradients = [tf.ones(shape, dtype), -2 * tf.ones(shape, dtype)]
            for part in gd.combine(method, gradients, losses=losses):
                assert (part.shape, part.dtype) == (shape, dtype)


def test_vectors_are_single_examples():
    """Each position of a vector has its own purity and draw."""
    vectors = np.random.default_rng(1).normal(size=(2, 500))
    one, other = arrays(gd.combine("graddrop(seed=2)", vectors))
    assert_same(
        gd.combine("graddrop(seed=2)", vectors[:, None]),
        [one[None], other[None]],
    )
    kept = np.sign(one + other)
    assert 100 < (kept > 0).sum() < 400


def test_none_stands_for_zeros():
    zeros = np.zeros_like(ROWS[0])
    expected = gd.combine("upgrad", [zeros, ROWS[1], ROWS[2]])
    assert_same(gd.combine("upgrad", [None, ROWS[1], ROWS[2]]), expected)
    blocks = [{"a": ROWS[0], "b": None}, {"a": None, "b": ROWS[1]}]
    assert_same(gd.combine("baseline", blocks)[1], {"a": zeros, "b": ROWS[1]})
    with pytest.raises(ValueError, match="None for all"):
        gd.combine("mgda", [None, None])


def test_a_rank_has_to_be_known():
    @tf.function(input_signature=[tf.TensorSpec(None)] * 2)
    def run(a, b):
        return gd.combine("mgda", [a, b])

    with pytest.raises(ValueError, match="known rank"):
        run(tf.ones([2]), tf.ones([2]))


def test_activations():
    # sgn(A) turns the second gradient, so that both agree in the first
    # feature; in the second they agree without.
    gradients = list(np.float32([[[1.0, -2.0]], [[-3.0, -1.0]]]))
    shared = gd.combine("graddrop", gradients, np.ones([1, 2], np.float32))
    assert 0.0 in arrays(shared)[0] or 0.0 in arrays(shared)[1]
    separate = [tf.constant([[1.0, 1.0]]), tf.constant([[-1.0, 1.0]])]
    assert_same(gd.combine("graddrop", gradients, separate), gradients)
    # A list in the form of one gradient is shared.
    blocks = [[g, g] for g in gradients]
    a = tf.constant([[1.0, 1.0]])
    assert len(gd.combine("graddrop", blocks, [a, a])[0]) == 2


def test_draws_follow_from_the_seed_and_the_step():
    first = gd.combine("graddrop", ROWS, step=1)
    assert_same(gd.combine("graddrop", ROWS, step=tf.constant(1)), first)
    assert_same(gd.combine("graddrop(seed=0)", ROWS, step=1), first)
    run = tf.function(
        lambda step: gd.combine("graddrop", ROWS, step=step), jit_compile=True
    )
    assert_same(run(tf.constant(1, tf.int64)), first)
    for other in (
        gd.combine("graddrop", ROWS, step=2),
        gd.combine("graddrop(seed=1)", ROWS, step=1),
    ):
        assert not np.array_equal(other[0], first[0])
    layer = gd.GradDrop(seed=0)
    assert_same(gd.combine(layer, ROWS, step=1), first)
    assert not layer.built
    drawn = gd.GradDrop()
    assert_same(gd.combine(drawn, ROWS), gd.combine(drawn, ROWS))


def test_several_combiners_act_in_order():
    step = gd.combine("graddrop(seed=3)", gd.combine("pcgrad(seed=3)", ROWS))
    both = gd.combine("pcgrad(seed=3)+mgda", ROWS)
    assert_same(both, gd.combine("mgda", gd.combine("pcgrad(seed=3)", ROWS)))
    chain = gd.Chain([gd.PCGrad(seed=3), gd.MGDA()])
    assert_same(gd.combine(chain, ROWS), both)
    assert not np.allclose(step[0], both[0])
    assert_same(gd.combine("baseline", ROWS), list(ROWS))


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_weightings_come_first(mode):
    """Gradients of losses of 2 and 4, by the inverse, then what is shorter."""

    def combine(rows, losses):
        return gd.combine("log_sum+mgda", rows, losses=losses)

    if mode != "eager":
        combine = tf.function(combine, jit_compile=mode == "xla")
    rows = tf.constant([[4.0, 0.0], [0.0, 4.0]], tf.float64)
    first, second = combine(rows, tf.constant([2.0, 4.0]))
    # (2, 0) and (0, 1): a convex combination is shortest at (2, 4) / 5.
    np.testing.assert_allclose(first, [0.4, 0.0], rtol=1e-9)
    np.testing.assert_allclose(second, [0.0, 0.8], rtol=1e-9)
    assert first.dtype == tf.float64


def test_weightings_alone():
    """A layer or text, of losses in any form; a draw for each step."""
    for losses in ([2, 4.0], np.array([2.0, 4.0]), tf.constant([2.0, 4.0])):
        for method in (gd.LogSum(), "log_sum", gd.Recipe.of("log_sum")):
            combined = gd.combine(method, [[1.0], [1.0]], losses=losses)
            assert_same(combined, [[0.5], [0.25]])
    for method in ("rlw", gd.RandomWeighting(seed=0)):
        steps = [
            gd.combine(method, [[1.0], [1.0]], losses=[1, 1], step=step)
            for step in (0, 0, 1)
        ]
        assert_same(*steps[:2])
        assert float(tf.add_n(steps[0])[0]) == pytest.approx(1.0)
        assert not np.allclose(steps[0], steps[2])
    # The first step of one that remembers, and of one that needs norms.
    assert_same(
        gd.combine("uncertainty", [[1.0], [3.0]], losses=[5, 7]), [[0.5], [1.5]]
    )
    assert_same(
        gd.combine("gradnorm", [[1.0], [3.0]], losses=[5, 7]), [[1], [3]]
    )


@pytest.mark.parametrize(
    ("method", "losses", "message"),
    [
        ("mgda", [1.0, 2.0], "the method has none"),
        ("log_sum", [1.0], r"shape \[3\].*Received: shape"),
        ("log_sum", 1.0, r"shape \[3\].*Received: shape"),
        ("constant([1, 2])", [1.0, 2.0, 3.0], "2 values for 3 losses"),
    ],
)
def test_mistakes_with_losses(method, losses, message):
    with pytest.raises(ValueError, match=message):
        gd.combine(method, ROWS, losses=losses)


def test_every_call_is_a_first_step():
    """A method that remembers is not changed, and a built one starts anew."""
    rows = [[1.0, 0.0], [0.0, 3.0]]
    method = gd.PCD(num_losses=2, tau=0.5, decay=0.5)
    expected = gd.combine(method, rows)
    method.build()
    method.keep(squares=[7.0, 9.0], total=0.5)
    assert_same(gd.combine(method, rows), expected)
    np.testing.assert_array_equal(method.state["squares"], [7.0, 9.0])


@pytest.mark.parametrize(
    ("method", "gradients", "message"),
    [
        ("mgda+clip(1.0)", ROWS, "a weighting and combiners.*clip"),
        ("penalty(0.1)", ROWS, "a weighting and combiners"),
        ("log_sum+mgda", ROWS, "LogSum needs `losses`"),
        ("log_sum+famo", ROWS, "at most one weighting"),
        ("mgad", ROWS, "no method 'mgad'"),
        (3, ROWS, "A recipe is"),
        ("mgda", [], "empty"),
        ("mgda", 1.0, "static first axis"),
        ("mgda", [ROWS[0], ROWS[1][:, :2]], "shape"),
        ("graddrop(leak=[1, 0])", ROWS, "leak"),
        (gd.MGDA(num_losses=2), ROWS, "num_losses=2"),
    ],
)
def test_mistakes(method, gradients, message):
    with pytest.raises(ValueError, match=message):
        gd.combine(method, gradients)
