"""The methods once more, slowly: NumPy, float64, loops, the papers' letters.

Nothing here is shared with the library. Every function takes arrays (or
lists of arrays) of any dtype and computes in float64, one position at a time,
so that each line can be held against the line of the paper it comes from.

GradDrop: Chen et al., "Just Pick a Sign", NeurIPS 2020, Algorithm 1.
PCGrad: Yu et al., NeurIPS 2020, Algorithm 1. MGDA: Desideri, 2012.
GradNorm: Chen et al., ICML 2018, Algorithm 1.
"""

import itertools
import math

import numpy as np


def sign(x):
    """sgn(x); a NaN stays a NaN."""
    if math.isnan(x):
        return x
    return (x > 0) - (x < 0)


def clip_transform(k):
    """The paper's family, f(p) = clip(k (p - 0.5) + 0.5, 0, 1)."""
    return lambda p: min(max(k * (p - 0.5) + 0.5, 0.0), 1.0)


def purity(g):
    """Eq. 1 for the T numbers `g` at one position; 0.5 where all are 0."""
    if not all(math.isfinite(g_i) for g_i in g):
        return math.nan
    # The largest is divided away so that sums of 1e300 do not overflow.
    largest = max(abs(g_i) for g_i in g)
    if largest == 0.0:
        return 0.5
    total = math.fsum(g_i / largest for g_i in g)
    absolute = math.fsum(abs(g_i) / largest for g_i in g)
    return 0.5 * (1.0 + total / absolute)


def sign_purity(G):
    """Eq. 1 at every position of the T arrays `G`."""
    G = [np.asarray(G_i, np.float64) for G_i in G]
    P = np.empty(G[0].shape)
    for j in np.ndindex(P.shape):
        P[j] = purity([float(G_i[j]) for G_i in G])
    return P


def _premultiply(dL, A):
    """Line 1: G_i = sgn(A) * dL_i/dA, for shared (one) or separate A."""
    dL = [np.asarray(dL_i, np.float64) for dL_i in dL]
    A = list(A) if isinstance(A, (list, tuple)) else [A] * len(dL)
    G = []
    for dL_i, A_i in zip(dL, A, strict=True):
        A_i = np.asarray(A_i, np.float64)
        G_i = np.empty(dL_i.shape)
        for j in np.ndindex(G_i.shape):
            G_i[j] = sign(float(A_i[j])) * dL_i[j]
        G.append(G_i)
    return G


def _sum_batch(G_i):
    """Line 2: the sum over the batch, kept as a leading dimension of one."""
    summed = np.empty((1, *G_i.shape[1:]))
    for j in np.ndindex(G_i.shape[1:]):
        column = [float(G_i[(b, *j)]) for b in range(G_i.shape[0])]
        finite = all(math.isfinite(x) for x in column)
        summed[(0, *j)] = math.fsum(column) if finite else math.nan
    return summed


def marginalized(dL, A, marginalize_batch=True):
    """Lines 1 and 2: the G_i from which purity is computed."""
    G = _premultiply(dL, A)
    if marginalize_batch or isinstance(A, (list, tuple)):
        G = [_sum_batch(G_i) for G_i in G]
    return G


def graddrop(
    dL,
    A,
    U,
    l,  # noqa: E741
    f=None,
    marginalize_batch=True,
    renormalize=False,
):
    """Algorithm 1; returns the T masked gradients, unsummed.

    Args:
      dL: T arrays, dL_i/dA, the batch first.
      A: one array, or T arrays where the gradients are batch separated.
      U: the uniform draw, of P's shape.
      l: T leaks.
      f: number to number, the identity if `None`.
      marginalize_batch: whether purity is that of the sum over the batch.
      renormalize: whether the norm of the plain sum is restored.
    """
    f = f or (lambda p: p)
    separate = isinstance(A, (list, tuple))
    dL = [np.asarray(dL_i, np.float64) for dL_i in dL]
    G = marginalized(dL, A, marginalize_batch)
    P = sign_purity(G)
    U = np.asarray(U, np.float64).reshape(P.shape)
    newgrad = [np.empty(dL_i.shape) for dL_i in dL]
    for i in range(len(dL)):
        for j in np.ndindex(dL[i].shape):
            # One row of P for the whole batch where it was summed away.
            m = j if P.shape == dL[i].shape else (0, *j[1:])
            if math.isnan(P[m]):
                newgrad[i][j] = math.nan
                continue
            M = (f(float(P[m])) > U[m]) * (G[i][m] > 0) + (
                f(float(P[m])) < U[m]
            ) * (G[i][m] < 0)
            if all(G_i[m] == 0.0 for G_i in G):
                M = 1.0
            newgrad[i][j] = (l[i] + (1.0 - l[i]) * M) * dL[i][j]
    if renormalize:
        before, after = (
            norm_of_sum(dL, separate),
            norm_of_sum(newgrad, separate),
        )
        factor = before / after if after > 0.0 else 0.0
        newgrad = [factor * h_i for h_i in newgrad]
    return newgrad


def norm_of_sum(g, separate=False):
    """L2 norm of sum_i g_i, or of all g_i side by side where separate."""
    if separate:
        entries = [float(x) for g_i in g for x in g_i.flat]
    else:
        entries = [
            math.fsum(float(g_i[j]) for g_i in g)
            for j in np.ndindex(g[0].shape)
        ]
    return math.hypot(*entries)


def pcgrad(g, order, row_order=None):
    """Yu et al., Algorithm 1; iterative where `row_order` is given.

    The iterative form (GradDrop paper, A.3) has no static copy: loss i is
    projected onto the others as they are by now, in the order `row_order`.
    """
    g = [np.asarray(g_i, np.float64) for g_i in g]
    h = [g_i.copy() for g_i in g]
    onto = h if row_order is not None else g
    for i in row_order if row_order is not None else range(len(g)):
        for j in order[i]:
            if j == i:
                continue
            dot = float(np.vdot(h[i], onto[j]))
            square = float(np.vdot(onto[j], onto[j]))
            if dot < 0.0 and square > 0.0:
                h[i] = h[i] - dot / square * onto[j]
    return h


def every_order(num_losses, iterative=False):
    """Every (order, row_order) that PCGrad can draw for `num_losses`."""
    rows = []
    for i in range(num_losses):
        others = [j for j in range(num_losses) if j != i]
        rows.append([[*p, i] for p in itertools.permutations(others)])
    firsts = itertools.permutations(range(num_losses)) if iterative else [None]
    for first in firsts:
        for order in itertools.product(*rows):
            yield list(order), None if first is None else list(first)


def min_norm_point(gram):
    """Weights of the minimum-norm point, by trying every active set.

    Some optimal point has affinely independent support, and there the
    equality-constrained solution is unique, so the best feasible one of all
    subsets is the optimum. 2^T solves: for few losses only.
    """
    T = len(gram)
    best, best_value = None, math.inf
    scale = max(float(np.max(np.diag(gram))), 1e-300)
    for size in range(1, T + 1):
        for S in itertools.combinations(range(T), size):
            K = np.ones((size + 1, size + 1))
            K[:size, :size] = gram[np.ix_(S, S)] / scale
            K[size, size] = 0.0
            right = np.zeros(size + 1)
            right[size] = 1.0
            a_S = np.linalg.lstsq(K, right, rcond=None)[0][:size]
            if np.any(a_S < -1e-9) or abs(a_S.sum() - 1.0) > 1e-6:
                continue
            a = np.zeros(T)
            a[list(S)] = np.maximum(a_S, 0.0) / np.maximum(a_S, 0.0).sum()
            value = float(a @ (gram / scale) @ a)
            if value < best_value:
                best, best_value = a, value
    return best


def gradnorm_step(w, L, L0, n, alpha, learning_rate, floor=0.0):
    """One step of GradNorm's Algorithm 1 on plain numbers.

    Args:
      w: T weights.
      L: T losses now.
      L0: T losses of the first step.
      n: T unweighted norms |g_i|.
      alpha: the restoring force.
      learning_rate: that of the weights.
      floor: no weight is below it before the renormalisation.
    """
    T = len(w)
    N = [w[i] * n[i] for i in range(T)]
    mean_N = sum(N) / T
    ratio = [L[i] / L0[i] for i in range(T)]
    mean_ratio = sum(ratio) / T
    r = [x / mean_ratio for x in ratio]
    target = [mean_N * r[i] ** alpha for i in range(T)]
    moved = []
    for i in range(T):
        slope = n[i] * sign(N[i] - target[i])
        moved.append(max(w[i] - learning_rate * slope, floor))
    return [T * x / sum(moved) for x in moved]
