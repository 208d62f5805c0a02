"""Gramian methods, judged by the conditions that define their results."""

import itertools

import numpy as np
import pytest

import graddrop_tf as gd
from tests.graddrop_tf.methods import test_mgda
from tests.graddrop_tf.methods.judges import JUDGES, judge, solve

KINDS = [*test_mgda.KINDS, "orthonormal", "one large"]
REGULAR = ["plain", "0 far outside", "some zero", "many sizes", "orthonormal"]
SCALES = (1.0, 1e-30, 1e30)
# Where an interior-point method gets lost.
HARD = [
    [[3, 2, -4, 2], [-2, -1, 4, 2], [-3, -1, 3, -4]],
    [[0, 2, 0, -2], [-2, 1, -4, -3], [3, 2, -3, -4]],
    [[0, -4, 1, 4], [1, 3, -1, -3], [-1, 3, 1, -2]],
]


def family(T, kind):
    """Returns T rows, all kinds of one T of the same length."""
    rng = np.random.default_rng([T, KINDS.index(kind)])
    g = test_mgda.families(rng, T, kind)
    if kind == "orthonormal":
        g = np.linalg.qr(g.T)[0].T
    elif kind == "one large":
        g[T // 2] *= 1e6
    return g


@pytest.mark.parametrize("T", [1, 2, 3, 8, 9, 40])
@pytest.mark.parametrize("text", JUDGES)
def test_optimality(text, T):
    for kind, scale in itertools.product(KINDS, SCALES):
        judge(text, scale * family(T, kind))


@pytest.mark.parametrize("text", [t for t in JUDGES if "=" not in t])
def test_optimality_of_many_losses(text):
    judge(text, family(100, "many sizes"))


@pytest.mark.parametrize("T", [3, 9])
@pytest.mark.parametrize("text", JUDGES)
def test_optimality_in_single_precision(text, T):
    for kind, scale in itertools.product(REGULAR, (1.0, 1e-24, 1e30)):
        judge(text, scale * family(T, kind), "float32")


@pytest.mark.parametrize("text", JUDGES)
def test_optimality_of_many_matrices(text):
    rng = np.random.default_rng(0)
    for rows in (*HARD, *rng.integers(-4, 5, size=(100, 3, 4))):
        judge(text, np.pad(rows, [(0, 0), (0, 5)]))


@pytest.mark.parametrize("kind", ["plain", "many sizes", "opposite pairs"])
def test_pcd_with_another_primary_loss(kind):
    # The judge's primary loss is the first.
    case = solve("pcd(primary=2)", family(3, kind))
    order = [2, 0, 1]
    JUDGES["pcd"](case._replace(rows=case.rows[order], parts=case.parts[order]))


@pytest.mark.parametrize("text", ["cagrad(c=0.4)", "cagrad(c=0.9)"])
def test_opposed_gradients_have_no_huge_parts(text):
    rng = np.random.default_rng(1)
    for rows in rng.integers(-3, 4, size=(100, 3, 4)):
        judge(text, np.pad([rows[0], -rows[0], rows[2]], [(0, 0), (0, 5)]))


def test_pcd_remembers_the_mean_of_the_squared_norms():
    """Adam's weights: .9 * .1 and .1, over what they add up to."""
    method = gd.PCD(num_losses=2, decay=0.9, tau=0.5)
    first, second = np.array([[[3.0, 4.0], [1.0, 0.0]], [[2, 0], [-1, 2]]])
    method.build()
    method.combine(list(first), np.ones(2))
    total = sum(p.numpy() for p in method.combine(list(second), np.ones(2)))
    squares = (0.09 * np.array([25, 1]) + 0.1 * np.array([4, 5])) / 0.19
    a, b = second / np.sqrt(squares + 1e-8)[:, None]
    # On the boundary of the one constraint.
    bent = a + (0.5 * b @ b - a @ b) / (b @ b) * b
    expected = 2 * bent / np.linalg.norm(bent)
    np.testing.assert_allclose(total, expected, rtol=1e-9)
