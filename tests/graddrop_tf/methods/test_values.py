"""The table of expected values, with the randomness passed in."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import mgda as mgda_lib
from tests import reference
from tests.graddrop_tf.methods.test_pcgrad import project

ORACLE = json.loads(
    (pathlib.Path(__file__).parents[2] / "oracle/gradients.json").read_text()
)
TOLERANCE = 1e-6
DTYPES = ["float32", "float64"]

graddrop_cases = pytest.mark.parametrize(
    "case", ORACLE["graddrop"], ids=[c["name"] for c in ORACLE["graddrop"]]
)
combiner_cases = pytest.mark.parametrize("case", ORACLE["combiners"])
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def close(actual, expected, **kwargs):
    np.testing.assert_allclose(
        actual, expected, rtol=0.0, atol=TOLERANCE, **kwargs
    )


def graddrop_inputs(case, dtype):
    gradients = [tf.constant(g, dtype) for g in case["gradients"]]
    if case["separate"]:
        activations = [tf.constant(a, dtype) for a in case["activations"]]
    else:
        activations = tf.constant(case["activations"], dtype)
    return gradients, activations


@graddrop_cases
@dtypes
def test_graddrop(case, dtype):
    gradients, activations = graddrop_inputs(case, dtype)
    masked = gd.graddrop(
        gradients,
        activations,
        uniform=tf.constant(case["uniform"], dtype),
        leak=case["leak"],
        k=case["k"],
        marginalize_batch=case["marginalize_batch"],
    )
    assert len(masked) == len(case["per_loss"])
    for actual, expected in zip(masked, case["per_loss"], strict=True):
        assert actual.dtype == dtype
        close(actual, expected)
    if "total" in case:
        close(sum(masked), case["total"])


@graddrop_cases
@dtypes
def test_sign_purity(case, dtype):
    gradients, activations = graddrop_inputs(case, dtype)
    if not case["separate"]:
        activations = [activations] * len(gradients)
    G = [tf.sign(a) * g for a, g in zip(activations, gradients, strict=True)]
    if case["marginalize_batch"]:
        G = [tf.reduce_sum(G_i, axis=0, keepdims=True) for G_i in G]
    for form in (G, tf.stack(G)):
        P = gd.sign_purity(form)
        assert P.dtype == dtype
        close(P, case["purity"])


@graddrop_cases
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


@combiner_cases
@dtypes
@pytest.mark.parametrize("iterative", [False, True])
def test_pcgrad_reaches_the_listed_sums_and_no_others(case, dtype, iterative):
    jacobian = np.array(ORACLE["combiners"][case]["jacobian"])
    listed = np.array(
        ORACLE["combiners"][case]["iterative_pcgrad" if iterative else "pcgrad"]
    )
    rows = [tf.constant(row, dtype) for row in jacobian]
    pcgrad = tf.function(project)
    reached = set()
    for order, row_order in reference.every_order(len(rows), iterative):
        extra = {"row_order": tf.constant(row_order)} if iterative else {}
        out = pcgrad(rows, tf.constant(order), **extra)
        distance = np.abs(listed - sum(out).numpy()).max(axis=1)
        assert distance.min() <= TOLERANCE
        reached.add(int(distance.argmin()))
    assert reached == set(range(len(listed)))


@combiner_cases
@dtypes
def test_mgda_point(case, dtype):
    expected = ORACLE["combiners"][case]
    rows = [tf.constant(row, dtype) for row in expected["jacobian"]]
    scaled = gd.MGDA().combine(rows, rows[0])
    assert len(scaled) == len(rows)
    assert all(g.dtype == dtype for g in scaled)
    close(sum(scaled), expected["mgda"])


@combiner_cases
def test_mgda_weights(case):
    # Unique here: both Jacobians have independent rows.
    expected = ORACLE["combiners"][case]
    jacobian = np.array(expected["jacobian"])
    gram = tf.constant(jacobian @ jacobian.T, tf.float64)
    close(mgda_lib.min_norm_weights(gram, 0.0), expected["mgda_weights"])
