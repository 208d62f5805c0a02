"""What defines the results of the Gramian methods: a judge for each.

No value here comes from the library. A judge takes the gradients as unit rows
and norms, and the parts of the result; multipliers are found by nonnegative
least squares, or read off the parts and then tested for what they must be.
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from scipy.optimize import nnls

import graddrop_tf as gd

# Relative rounding errors of a sum of products.
ROUNDING = {"float64": 1e-15, "float32": 1e-6}
# That of a Gram matrix, as methods take it to be.
GIVEN = {"float64": 1e-12, "float32": 1e-6}
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
PCD_EPSILON = 1e-8


class Case(NamedTuple):
    """A problem and its solution.

    `rows` are the gradients that are not zero in units of the largest,
    `unit`, and `parts` what became of them; `primary` tells whether the first
    of all `count` gradients is one of them.
    """

    rows: np.ndarray
    parts: np.ndarray
    primary: bool
    count: int
    unit: float
    dtype: str
    tolerance: float
    rounding: float

    @property
    def norms(self):
        return np.linalg.norm(self.rows, axis=1)

    @property
    def units(self):
        return self.rows / self.norms[:, None]

    def factors(self):
        """Returns w in `parts_i = w_i g_i`."""
        w = (self.parts * self.units).sum(1) / self.norms
        sizes = np.linalg.norm(self.parts, axis=1)
        error = np.linalg.norm(self.parts - w[:, None] * self.rows, axis=1)
        assert (error <= 10 * self.rounding * sizes).all()
        return w

    def condition(self):
        """Returns singular values of the unit rows, and the rank.

        None for a rank that rounding decides.
        """
        values = np.linalg.svd(self.units, compute_uv=False)
        limit = np.sqrt(self.count * GIVEN[self.dtype])
        if ((values > limit / 3) & (values < 3 * limit)).any():
            return values, None
        return values, int((values > limit).sum())


@cache
def function(text):
    """Returns the parts of the result as a function of the rows."""
    return tf.function(
        lambda rows: tf.stack(gd.combine(text, rows)), autograph=False
    )


def solve(text, rows, dtype="float64"):
    """Returns the `Case` of a method."""
    rows = np.asarray(rows, dtype)
    parts = function(text)(tf.constant(rows)).numpy().astype(np.float64)
    rows = rows.astype(np.float64)
    assert parts.shape == rows.shape
    assert np.isfinite(parts).all()
    norms = np.linalg.norm(rows, axis=1)
    live = norms > 0
    unit = norms.max() or 1.0
    assert np.abs(parts[~live]).max(initial=0.0) <= 1e-15 * unit
    rows, parts = rows[live] / unit, parts[live] / unit
    errors = TOLERANCE[dtype], ROUNDING[dtype]
    return Case(rows, parts, bool(live[0]), len(live), unit, dtype, *errors)


def distance_to_cone(rows, point):
    """Returns how far a point is from the nonnegative combinations."""
    return nnls(rows.T, point, maxiter=100 * len(rows))[1]


def has_zero_in_hull(units):
    """Tells whether a convex combination of the rows is 0."""
    # Of length 1 in a coordinate of its own, so that weights sum to 1.
    lifted = np.column_stack([units, np.ones(len(units))])
    last = np.eye(lifted.shape[1])[-1]
    return len(units) > 0 and distance_to_cone(lifted, last) <= 1e-9


def assert_complementary(x, z, tolerance):
    """Both at least 0, and one of each pair 0."""
    assert x.min(initial=0.0) >= -tolerance
    assert z.min(initial=0.0) >= -tolerance
    assert np.minimum(x, z).max(initial=0.0) <= tolerance


def judge_upgrad(case):
    """Moreau: `h - g` is in the cone of the rows, h in its dual; orthogonal."""
    for part, norm, unit in zip(case.parts, case.norms, case.units):
        part = part / norm
        assert (case.units @ part).min() >= -case.tolerance
        assert abs((part - unit) @ part) <= case.tolerance
        assert distance_to_cone(case.units, part - unit) <= case.tolerance


def judge_dualproj(case):
    """The same for the sum; the weights beyond 1 are the multipliers."""
    total, plain = case.parts.sum(0), case.rows.sum(0)
    tolerance = (
        case.tolerance * np.linalg.norm(plain)
        + 10 * case.rounding * case.norms.sum()
    )
    more = (case.factors() - 1) * case.norms
    assert_complementary(more, case.units @ total, tolerance)
    moved = total - plain
    assert abs(moved @ total) <= tolerance * np.linalg.norm(plain) + 1e-28
    assert distance_to_cone(case.units, moved) <= tolerance


def judge_cagrad(case, c):
    """The move has its length, and is made of the worst losses alone."""
    total, plain = case.parts.sum(0), case.rows.sum(0)
    size = np.linalg.norm(plain)
    rounding = 10 * case.rounding * case.norms.sum()
    if size <= rounding:
        assert np.linalg.norm(total) <= 2 * rounding
        return
    tolerance = case.tolerance * size + rounding
    # Parts that cancel leave nothing but their rounding.
    assert np.linalg.norm(case.parts, axis=1).max() <= 1e6 * size
    moved = total - plain
    if np.linalg.norm(moved) <= tolerance and has_zero_in_hull(case.units):
        return
    assert abs(np.linalg.norm(moved) - c * size) <= tolerance
    gains = case.rows @ total
    lead = (gains - gains.min()) / case.norms
    worst = lead <= 10 * tolerance
    assert distance_to_cone(case.units[worst], moved) <= 10 * tolerance


def judge_fair(case, alpha):
    """`w_i^(1/alpha) (G w)_i` is |G| for all, of cosines with or without 1e-6.

    The ridge is in the cosines where there is no solution without.
    """
    w = case.factors()
    assert (w > 0).all()
    total = case.parts.sum(0)
    ridge = 1e-6 if has_zero_in_hull(case.units) else 0.0
    sides = w ** (1 / alpha) * (case.rows @ total + ridge * w * case.norms**2)
    size = np.linalg.norm(case.rows @ case.rows.T)
    lengths = np.linalg.norm(case.parts, axis=1).sum()
    error = case.rounding * w ** (1 / alpha) * case.norms * lengths / size
    assert (np.abs(sides / size - 1) <= case.tolerance + 10 * error).all()
    if ridge:
        assert np.linalg.norm(total) <= 4 * case.count


def judge_aligned(case, mode):
    """The sum of the rows of the polar factor, times sigma."""
    values, rank = case.condition()
    if rank is None:
        return
    case.factors()
    left, sizes, right = np.linalg.svd(case.rows, full_matrices=False)
    kept = sizes[:rank]
    squares = np.sort(kept**2)
    sigma = {
        "min": squares[0],
        "median": squares[(rank - 1) // 2],
        "rmse": squares.mean(),
    }[mode] ** 0.5
    aligned = sigma * left[:, :rank] @ right[:rank]
    ours = case.rounding * (values[0] / values[rank - 1]) ** 2
    judges = 1e-15 * kept[0] / kept[-1]
    tolerance = case.tolerance + 10 * case.count * (ours + judges)
    total, expected = case.parts.sum(0), aligned.sum(0)
    size = sigma * np.sqrt(rank)
    assert np.linalg.norm(total - expected) <= tolerance * size


def judge_projections(case):
    """Equal projections, or nearest to equal where rows are dependent.

    Returns the direction and the tolerance; None for a result of 0, or where
    rounding decides the rank.
    """
    values, rank = case.condition()
    total = case.parts.sum(0)
    length = np.linalg.norm(total)
    lengths = np.linalg.norm(case.parts, axis=1).sum()
    if rank is None or length <= case.tolerance * lengths or not length:
        return None, 0.0
    tolerance = case.tolerance + 10 * case.count * case.rounding * (
        (values[0] / values[rank - 1]) ** 2
    )
    tolerance *= max(lengths / length, 1.0)
    cosines = case.units @ total / length
    level = cosines @ cosines / cosines.sum()
    assert np.abs(case.units.T @ (cosines - level)).max() <= tolerance
    if rank == len(case.rows):
        assert np.abs(cosines - level).max() <= tolerance
    return total / length, tolerance


def judge_imtl_g(case):
    """Equal projections, weights of sum 1."""
    w = case.factors()
    direction, _ = judge_projections(case)
    if direction is None:
        assert case.condition()[1] != len(case.rows)
    else:
        tolerance = case.tolerance * max(np.abs(w).sum(), 1.0)
        assert abs(w.sum() - 1) <= tolerance


def judge_config(case):
    """Equal cosines; as long as the sum of the projections."""
    if case.condition()[1] is None:
        return
    direction, tolerance = judge_projections(case)
    if direction is None:
        # No direction, or one on which the projections cancel.
        inverse = np.linalg.pinv(case.units, rcond=1e-5)
        projections = case.rows.sum(0) @ inverse.sum(1)
        assert abs(projections) <= 1e-9 * case.norms.sum()
        return
    cosines = case.units @ direction
    length = np.linalg.norm(case.parts.sum(0))
    tolerance *= case.norms.sum()
    assert abs(case.norms @ cosines - length) <= tolerance


def judge_equal_norm(case):
    """All as long as the longest."""
    assert (case.factors() > 0).all()
    lengths = np.linalg.norm(case.parts, axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=10 * case.rounding)


def judge_pcd(case, tau):
    """The nearest to the first that satisfies the others, and as long."""
    total = case.parts.sum(0)
    if not case.primary:
        assert np.abs(case.parts).max() <= case.tolerance
        return
    first = case.rows[0]
    others = case.units[1:]
    size = case.norms[0]
    if has_zero_in_hull(others):
        assert np.abs(total - first).max() <= case.tolerance * size
        return
    assert abs(np.linalg.norm(total) - size) <= case.tolerance * size
    norms = case.unit * case.norms
    lengths = norms / np.sqrt(norms**2 + PCD_EPSILON)
    parts = case.factors() * case.norms
    assert parts[0] > 0
    # In the unit of the normalised problem the first is itself.
    scale = lengths[0] / parts[0]
    multipliers, bent = scale * parts[1:], scale * total
    slack = others @ bent - tau * lengths[1:]
    tolerance = case.tolerance * np.linalg.norm(bent)
    assert_complementary(multipliers, slack, tolerance)


JUDGES = {
    "upgrad": judge_upgrad,
    "dualproj": judge_dualproj,
    "cagrad(c=0.4)": partial(judge_cagrad, c=0.4),
    "cagrad(c=0.9)": partial(judge_cagrad, c=0.9),
    "nash_mtl": partial(judge_fair, alpha=1.0),
    "fairgrad(alpha=0.5)": partial(judge_fair, alpha=0.5),
    "fairgrad(alpha=2.0)": partial(judge_fair, alpha=2.0),
    "aligned_mtl": partial(judge_aligned, mode="min"),
    "aligned_mtl(mode='median')": partial(judge_aligned, mode="median"),
    "aligned_mtl(mode='rmse')": partial(judge_aligned, mode="rmse"),
    "imtl_g": judge_imtl_g,
    "config": judge_config,
    "equal_norm": judge_equal_norm,
    "pcd": partial(judge_pcd, tau=0.02),
    "pcd(tau=0.5)": partial(judge_pcd, tau=0.5),
}


def judge(text, rows, dtype="float64"):
    """Raises an AssertionError if a method's result is not what defines it."""
    case = solve(text, rows, dtype)
    if len(case.rows):
        JUDGES[text](case)
