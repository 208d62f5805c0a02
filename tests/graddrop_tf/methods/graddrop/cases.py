"""GradDrop on arrays, and gradients that are small whole numbers."""

import numpy as np
import tensorflow as tf
from hypothesis import settings
from hypothesis import strategies as st

import graddrop_tf as gd
from tests import reference
from tests.cases import bounded, settle_uniform

few = settings(bounded, max_examples=25)
seeds = st.integers(0, 2**32)


def graddrop(gradients, activations, uniform, dtype="float32", **kwargs):
    """The library's function on arrays; returns T float64 arrays."""
    separate = isinstance(activations, list)
    masked = gd.graddrop(
        [tf.constant(g, dtype) for g in gradients],
        [tf.constant(a, dtype) for a in activations]
        if separate
        else tf.constant(activations, dtype),
        uniform=tf.constant(uniform, dtype),
        **kwargs,
    )
    return [m.numpy().astype(np.float64) for m in masked]


def whole_case(seed, separate=False):
    """Whole-number gradients, T of them, and activations without zeros."""
    rng = np.random.default_rng(seed)
    T, F = int(rng.integers(1, 7)), int(rng.integers(1, 5))
    B = rng.integers(1, 4, T) if separate else [int(rng.integers(1, 4))] * T
    g = [rng.integers(-9, 10, (b, F)).astype(float) for b in B]
    A = [rng.choice([-2.0, -0.5, 0.5, 2.0], (b, F)) for b in B]
    return rng, g, A if separate else A[0]


def safe_uniform(rng, g, A, f=lambda p: p, marginalize_batch=True):
    P = reference.sign_purity(reference.marginalized(g, A, marginalize_batch))
    U = settle_uniform(rng, P, f)
    return U[0] if marginalize_batch else U


def magnitudes(rng, shape, low, high, dtype):
    """Positive numbers of every decade between the two exponents."""
    x = 10.0 ** rng.uniform(low, high, shape)
    return x.astype(dtype)
