"""Random per-loss gradients on which every decision is clear of a tie.

Two decisions of Algorithm 1 are discontinuous, f(P) > U and G_i > 0, so a
last-bit difference next to one would flip a mask and say nothing about
either side. The helpers keep away from both: U is moved where it is within
`MARGIN` of f(P), and a loss whose G_i all but cancels at a feature is given
a gradient of exact zeros there. The margin is some hundred times the
rounding error of float32 sums of this size, also after the steepest f.
"""

import ml_dtypes
import numpy as np
from hypothesis import HealthCheck, settings

MARGIN = 1e-3
DTYPES = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
# The range that leaves room for sums and for subnormal numbers.
SCALES = {
    "float16": [1.0, 2.0**-4, 2.0**6],
    "bfloat16": [1.0, 1e-30, 1e30],
    "float32": [1.0, 1e-30, 1e30],
    "float64": [1.0, 1e-100, 1e100],
}
# Each reads the same for numbers and for tensors, is monotone and odd.
TRANSFORMS = {
    "smoothstep": lambda p: p * p * (3.0 - 2.0 * p),
    "cubic": lambda p: 0.5 + 4.0 * (p - 0.5) ** 3,
}
bounded = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def eps(dtype):
    return float(ml_dtypes.finfo(DTYPES[dtype]).eps)


def random_gradients(rng, shapes, dtype, scale, spread):
    """Normal numbers over some binades, one in eight of them zero."""
    gradients = []
    for shape in shapes:
        g = rng.normal(size=shape)
        g *= np.exp2(rng.integers(-spread, 1, shape)) * scale
        g[rng.random(shape) < 0.125] = 0.0
        gradients.append(g.astype(DTYPES[dtype]))
    return gradients


def random_activations(rng, shape, dtype):
    """Of both signs; a dead unit, and zeros as behind a ReLU."""
    A = rng.normal(size=shape)
    A[rng.random(shape) < 0.15] = 0.0
    A[..., 0] *= rng.random() < 0.5
    return A.astype(DTYPES[dtype])


def settle_signs(dL, A, marginalize_batch):
    """Zeroes each loss where its G_i is a small remainder of large terms."""
    if not (marginalize_batch or isinstance(A, list)):
        return
    for i, dL_i in enumerate(dL):
        A_i = np.asarray(A[i] if isinstance(A, list) else A, np.float64)
        terms = np.sign(A_i) * dL_i.astype(np.float64)
        small = np.abs(terms.sum(0)) < MARGIN * np.abs(terms).sum(0)
        dL_i[:, small] = 0


def settle_uniform(rng, P, f):
    """Draws U of P's shape, nowhere within `MARGIN` of f(P)."""
    f_P = np.vectorize(f, otypes=[np.float64])(P)
    U = rng.uniform(0.001, 0.999, P.shape)
    aside = np.where(f_P < 0.5, f_P + 2 * MARGIN, f_P - 2 * MARGIN)
    return np.where(np.abs(U - f_P) < MARGIN, aside, U)
