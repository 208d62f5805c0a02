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
