"""What every method makes of given numbers: a row for each method.

`Combined` takes gradients to gradients, `Weighted` losses and norms to
weights. The expected values are those of `tests/oracle/gradients.json`, or
were calculated by hand; draws are given. A method may have several rows.
"""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf.methods import METHODS

ORACLE = json.loads(
    (pathlib.Path(__file__).parents[2] / "oracle/gradients.json").read_text()
)


@dataclasses.dataclass(frozen=True)
class Combined:
    """A combiner's values.

    Attributes:
        method: The method with its arguments, as in a recipe.
        gradients: T gradients, `[features]` or `[batch, features]`.
        expected: T combined gradients, or None.
        total: The sum of the combined gradients, or None.
        activations: A; ones if None. A list of T if `separate`.
        separate: Whether the gradients are batch separated.
        uniform: U.
        permutations: The drawn orders.
    """

    method: str
    gradients: list
    expected: list | None = None
    total: list | None = None
    activations: list | None = None
    separate: bool = False
    uniform: list | None = None
    permutations: list | None = None


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A weighting's values.

    Attributes:
        method: The method with its arguments, as in a recipe.
        losses: T losses for each step.
        expected: T weights for each step: those that the same losses get
            after it.
        norms: T norms for each step; None for a method that needs none.
        uniform: U.
    """

    method: str
    losses: list
    expected: list
    norms: list | None = None
    uniform: list | None = None


def graddrop(case):
    """Returns the row of a case of the oracle."""
    options = {n: case[n] for n in ("leak", "k", "marginalize_batch")}
    arguments = ", ".join(f"{name}={options[name]}" for name in options)
    return Combined(
        f"graddrop({arguments})",
        case["gradients"],
        case["per_loss"],
        case.get("total"),
        case["activations"],
        case["separate"],
        case["uniform"],
    )


CONFLICT, AXES = [[2, 0], [-1, 1]], [[1, 0], [0, 2]]
BASE, THREE = ORACLE["combiners"]["base"], ORACLE["combiners"]["three"]
ROWS = [
    *map(graddrop, ORACLE["graddrop"]),
    # f(P) = 1/2, whatever P: U = 0.3 keeps what is positive in G, U = 0.7
    # what is negative. G_1 = (1, -2, -3), G_2 = (-4, -5, 6).
    Combined(
        "random_graddrop",
        [[[1, 2, -3]], [[-4, 5, 6]]],
        [[[1, 0, -3]], [[0, 0, 0]]],
        activations=[[1, -1, 2]],
        uniform=[0.3, 0.3, 0.7],
    ),
    # g_1 . g_2 = -2, |g_1|^2 = 4, |g_2|^2 = 2: h_1 = g_1 + g_2 and
    # h_2 = g_2 + g_1 / 2.
    Combined(
        "pcgrad",
        [[2, 0], [-1, 1]],
        [[1, 1], [0, 1]],
        permutations=[[0, 1], [0, 1], [1, 0]],
    ),
    # h_1 = (1, 1) comes first, and no longer conflicts with g_2.
    Combined(
        "pcgrad(iterative=True)",
        [[2, 0], [-1, 1]],
        [[1, 1], [-1, 1]],
        permutations=[[0, 1], [0, 1], [1, 0]],
    ),
    # h_2 = (0, 1) comes first, and no longer conflicts with g_1.
    Combined(
        "pcgrad(iterative=True)",
        [[2, 0], [-1, 1]],
        [[2, 0], [0, 1]],
        permutations=[[1, 0], [0, 1], [1, 0]],
    ),
    Combined("mgda", BASE["jacobian"], total=BASE["mgda"]),
    Combined("mgda", THREE["jacobian"], total=THREE["mgda"]),
    # Of g_1 the part along g_2 is g_1 . g_2 / |g_2|^2 = -1, of g_2 that along
    # g_1 is -1/2: h_1 = g_1 + g_2 and h_2 = g_2 + g_1 / 2.
    Combined("upgrad", CONFLICT, [[1, 1], [0, 1]]),
    # The sum (1, 1) conflicts with neither.
    Combined("dualproj", CONFLICT, CONFLICT),
    # The sum (1, 0) has the product -1 with g_2 = (-1, 1), of square 2:
    # with g_2 / 2 more it is 0.
    Combined("dualproj", [[2, -1], [-1, 1]], [[2, -1], [-1.5, 1.5]]),
    # c times 5, the length of the sum d = (3, 4), along g_1: g_1 . d = 9 is the
    # smaller product and, raised to 15, stays below g_2 . d = 16.
    Combined("cagrad(c=0.4)", [[3, 0], [0, 4]], [[5, 0], [0, 4]]),
    # Orthogonal: w_i = 1 / |g_i|, times the root of |G| = 17 ** 0.5.
    Combined("nash_mtl", AXES, total=[17**0.25, 17**0.25]),
    # Orthogonal: w_i = |g_i|^(-2 alpha / (1 + alpha)), times |G|^(2/3).
    Combined(
        "fairgrad", AXES, total=[17 ** (1 / 3), 17 ** (1 / 3) * 2 ** (-1 / 3)]
    ),
    # Orthogonal: unit gradients, times the smallest norm, or the root of the
    # mean square.
    Combined("aligned_mtl", AXES, [[1, 0], [0, 1]]),
    Combined("aligned_mtl(mode='rmse')", AXES, [[2.5**0.5, 0], [0, 2.5**0.5]]),
    # Orthogonal: a_i is proportional to 1 / |g_i|, of sum 1.
    Combined("imtl_g", AXES, [[2 / 3, 0], [0, 2 / 3]]),
    # The unit vector v = (1, 1) / 2 ** 0.5, times g_1 . v + g_2 . v.
    Combined("config", AXES, [[1.5, 0], [0, 1.5]]),
    Combined("equal_norm", AXES, [[2, 0], [0, 2]]),
    # Unit gradients u_1 = (1, 0) and u_2 = (-0.6, 0.8): u_2 . d is 0.2 for
    # d = u_1 + 0.8 u_2 = (0.52, 0.64), of square 0.68, made as long as g_1.
    Combined(
        "pcd(tau=0.2, epsilon=1e-12)",
        [[2, 0], [-3, 4]],
        total=[2 * 0.52 / 0.68**0.5, 2 * 0.64 / 0.68**0.5],
    ),
    # The second loss is the primary one, (0, 1); the first asks for 0.02.
    Combined(
        "pcd(primary=1, epsilon=1e-12)",
        [[1, 0], [0, 2]],
        [[0.04 / 1.0004**0.5, 0], [0, 2 / 1.0004**0.5]],
    ),
    # U > 0.25 stays, divided by 0.75.
    Combined(
        "gradient_dropout(rate=0.25)",
        [[[3, 6]], [[-3, 9]]],
        [[[0, 8]], [[0, 12]]],
        uniform=[[0.2, 0.3]],
    ),
    # 0.7 in place of P: U = 0.6 keeps the positive sign although both G_i are
    # negative, U = 0.8 the negative one.
    Combined(
        "graddrop(purity=0.7)",
        [[[-1, -2]], [[-3, 4]]],
        [[[0, -2]], [[0, 0]]],
        uniform=[0.6, 0.8],
    ),
    # The first step records the losses: both ratios are 1, both targets the
    # mean norm (3 + 1) / 2 = 2; the slopes are 3 and -1, the weights 0.7 and
    # 1.1, and times 2 / 1.8 they are 7/9 and 11/9.
    # Then the ratios are 1/2 and 1, their mean is 3/4, the rates 2/3 and 4/3.
    # The norms are 7/9 and 22/9, their mean is 29/18, the targets are 29/27
    # and 58/27. The slopes are -1 and 2, and 7/9 + 0.1 and 11/9 - 0.2 have
    # the sum 1.9.
    Weighted(
        "gradnorm(alpha=1.0, learning_rate=0.1)",
        losses=[[2, 5], [1, 5]],
        norms=[[3, 1], [1, 2]],
        expected=[
            [7 / 9, 11 / 9],
            [(7 / 9 + 0.1) * 2 / 1.9, (11 / 9 - 0.2) * 2 / 1.9],
        ],
    ),
    # The slope of exp(-s) L / 2 + s / 2 at s = 0 is (1 - L) / 2: 0 and -1.
    Weighted("uncertainty", [[1, 3]], [[0.5, 0.5 * math.exp(-0.1)]]),
    # The slope of exp(-s) L + s / 2 at s = 0 is 1/2 - L.
    Weighted(
        "uncertainty('classification')",
        [[1, 3]],
        [[math.exp(-0.05), math.exp(-0.25)]],
    ),
    # The slope of exp(s) L - s at s = 0 is L - 1: 0 and 2.
    Weighted("imtl_l", [[1, 3]], [[1, math.exp(-0.1)]]),
    Weighted("log_sum", [[2, 4]], [[1 / 2, 1 / 4]]),
    # The mean is 4.
    Weighted("geometric_mean", [[2, 8]], [[4 / (2 * 2), 4 / (2 * 8)]]),
    # Half of the softmax of half the losses, 0 and log 3.
    Weighted("stch(log=False)", [[0, 2 * math.log(3)]], [[1 / 8, 3 / 8]]),
    # L / n is 3 and 1: shares 3/4 and 1/4, times T / L.
    Weighted("stch(nadir=[1, 4])", [[3, 4]], [[2 / 4, 1 / 8]]),
    # In proportion to 1 / L. Then the first loss falls by log 2, the shares
    # are 1/2, and the slopes +- log(2) / 4: xi moves by as much.
    Weighted(
        "famo(1.0, weight_decay=0.0, optimizer='sgd', lagged=True)",
        [[1, 3], [0.5, 3]],
        [
            [3 / 4, 1 / 4],
            [
                2**0.75 / (2**0.75 + 2**0.25 / 3),
                (2**0.25 / 3) / (2**0.75 + 2**0.25 / 3),
            ],
        ],
    ),
    # Ratios 1 and 1 + log 3.
    Weighted(
        "dwa(temperature=1.0, window=1)",
        [[2, 2], [2, 2 + 2 * math.log(3)]],
        [[1, 1], [2 * 1 / 4, 2 * 3 / 4]],
    ),
    # The quantiles of a normal number are 0 and 1.
    Weighted(
        "rlw",
        [[5, 7]],
        [[1 / (1 + math.e), math.e / (1 + math.e)]],
        uniform=[0.5, 0.8413447],
    ),
    Weighted("constant([1, 0.5])", [[5, 7]], [[1, 0.5]]),
]


def of(kind):
    """Returns the rows of a kind, by the texts of their methods."""
    rows = [row for row in ROWS if isinstance(row, kind)]
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.method)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0.0, atol=1e-6)


@of(Combined)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_combined_gradients(row, dtype):
    gradients = [tf.constant(g, dtype) for g in row.gradients]
    if row.activations is None:
        activations = tf.ones_like(gradients[0])
    elif row.separate:
        activations = [tf.constant(a, dtype) for a in row.activations]
    else:
        activations = tf.constant(row.activations, dtype)
    (method,) = gd.Recipe.parse(row.method).combiners
    method = method.build()
    method.set_losses(len(gradients))
    method.build()
    method.uniform = lambda *_, **__: tf.constant(row.uniform, dtype)
    method.permutations = lambda *_: tf.constant(row.permutations)
    combined = method.combine(gradients, activations)
    if row.expected is not None:
        assert len(combined) == len(row.expected)
        for actual, expected in zip(combined, row.expected, strict=True):
            close(actual, expected)
    if row.total is not None:
        close(sum(combined), row.total)


@of(Weighted)
def test_weights(row):
    method = gd.Recipe.parse(row.method).weighting.build()
    method.uniform = lambda *_, **__: tf.constant(row.uniform, tf.float32)
    state = method.start(len(row.losses[0]))
    for step, expected in enumerate(row.expected):
        losses = tf.constant(row.losses[step], tf.float32)
        norms = row.norms and tf.constant(row.norms[step], tf.float32)
        state = method.advance(state, losses, norms)
        close(method.weights_of(state, losses), expected)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_row(name):
    rows = [row for row in ROWS if row.method.split("(")[0] == name]
    assert rows, f"Add a row for {name!r} to ROWS."
    assert all(
        row.expected is not None or row.total is not None for row in rows
    )
