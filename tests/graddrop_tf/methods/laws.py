"""The laws that methods obey, each a function with a name.

A law takes a method and raises an AssertionError if the method breaks it.
`test_every_method.py` runs them over all methods. Inputs are fixed; a method
that draws is asked at several steps.
"""

import functools

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from graddrop_tf import places
from tests.cases import DTYPES, eps

SCALES = (1e-30, 1.0, 1e30)
SHARED, SEPARATE = False, True
_BFLOAT16 = DTYPES["bfloat16"]


@functools.cache
def fresh(combiner, num_losses):
    """Returns a combiner built for T losses, which has taken no step.

    Inside of a `keras.StatelessScope` it stays so.
    """
    copy = type(combiner).from_config(combiner.get_config())
    copy.set_losses(num_losses)
    copy.build()
    return copy


@functools.cache
def _as_function(combiner, num_losses):
    """Returns `combine` of a step; a graph where a loop is slow without."""
    method = fresh(combiner, num_losses)

    def run(gradients, activations, step):
        with keras.StatelessScope(), gd.random.drawing(step):
            return method.combine(gradients, activations)

    is_gramian = isinstance(combiner, gd.GramianCombiner)
    return tf.function(run) if is_gramian else run


def combine(combiner, gradients, activations, dtype="float32", step=0):
    """Runs `combine` on arrays and returns T float64 arrays."""
    gradients = [tf.constant(g, dtype) for g in gradients]
    if isinstance(activations, list):
        activations = [tf.constant(a, dtype) for a in activations]
    else:
        activations = tf.constant(activations, dtype)
    combined = _as_function(combiner, len(gradients))(
        gradients, activations, tf.constant(step, tf.int64)
    )
    assert len(combined) == len(gradients)
    for after, before in zip(combined, gradients, strict=True):
        assert (after.dtype, after.shape) == (before.dtype, before.shape)
    return [g.numpy().astype(np.float64) for g in combined]


def examples(num_losses, separate=SHARED, steps=4, features=(5,)):
    """Yields steps, normal gradients and activations of both signs.

    The gradients can be stored in half precision, times a power of two.
    """
    for step in range(steps):
        rng = np.random.default_rng([step, num_losses])
        batches = 3 + np.arange(num_losses) if separate else [3] * num_losses
        shapes = [(batch, *features) for batch in batches]
        gradients = [
            rng.normal(size=shape).astype(DTYPES["bfloat16"])
            for shape in shapes
        ]
        signs = [rng.choice([-2.0, 0.5], shape) for shape in shapes]
        yield (
            step,
            [
                g.astype(DTYPES["bfloat16"]).astype(np.float64)
                for g in gradients
            ],
            signs if separate else signs[0],
        )


def assert_close(actual, expected, rtol):
    """Compares lists of arrays, relative to the largest value in them."""
    for x, y in zip(actual, expected, strict=True):
        assert np.isfinite(x).all()
        largest = max(np.abs(e).max() for e in expected)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * largest)


# Combiners.


def shapes_and_dtypes_are_kept(combiner):
    """T tensors in, T tensors out, of the same shapes and dtypes."""
    for separate in (SHARED, SEPARATE):
        for dtype in DTYPES:
            for step, g, A in examples(3, separate, 1):
                combine(combiner, g, A, dtype, step)
    for step, g, A in examples(3, SHARED, 1, features=(2, 1, 3)):
        combine(combiner, g, A, "float32", step)


def dtypes_agree(combiner):
    """A gradient in half precision is combined as in float64, then rounded."""
    for dtype in ("float16", "bfloat16", "float32"):
        for separate in (SHARED, SEPARATE):
            for step, g, A in examples(3, separate):
                want = combine(combiner, g, A, "float64", step)
                rtol = max(3 * eps(dtype), 2e-5)
                assert_close(combine(combiner, g, A, dtype, step), want, rtol)


def zero_in_zero_out(combiner):
    """Gradients that are all zero stay zero."""
    for num_losses, dtypes in ((3, DTYPES), (1, ["float32"])):
        for dtype in dtypes:
            for separate in (SHARED, SEPARATE):
                for step, g, A in examples(num_losses, separate, 1):
                    zeros = [np.zeros_like(g_i) for g_i in g]
                    for h_i in combine(combiner, zeros, A, dtype, step):
                        np.testing.assert_array_equal(h_i, 0.0)


def finite_and_right_at_any_scale(combiner):
    """In float32 as in float64 at scale 1, times the scale."""
    for scale in SCALES:
        for separate in (SHARED, SEPARATE):
            for step, g, A in examples(3, separate):
                scaled = [scale * g_i for g_i in g]
                got = combine(combiner, scaled, A, step=step)
                want = combine(combiner, g, A, "float64", step)
                assert_close([h / scale for h in got], want, 2e-5)


def positive_scaling(combiner):
    """Gradients c times as large are combined to c times the result."""
    for c in (2.0**-90, 0.25, 3.0, 2.0**90):
        for separate in (SHARED, SEPARATE):
            for step, g, A in examples(3, separate):
                scaled = [c * g_i for g_i in g]
                got = combine(combiner, scaled, A, step=step)
                want = [c * h for h in combine(combiner, g, A, step=step)]
                assert_close(got, want, 1e-6)


def a_nan_stays_visible(combiner):
    """What is not finite in one loss is not finite in the trunk's gradient."""
    for bad in (np.nan, np.inf, -np.inf):
        for loss in range(3):
            for step, g, A in examples(3):
                g[loss][1, 2] = bad
                total = sum(combine(combiner, g, A, step=step))
                assert not np.isfinite(total[1, 2])
            for step, g, A in examples(3, SEPARATE):
                g[loss][1, 2] = bad
                h = combine(combiner, g, A, step=step)
                assert not np.isfinite(h[loss][1, 2])


def permuting_the_losses(combiner):
    """The order of the losses does not matter."""
    for order in ([1, 0, 2], [2, 0, 1]):
        for separate in (SHARED, SEPARATE):
            for step, g, A in examples(3, separate):
                want = combine(combiner, g, A, step=step)
                got = combine(
                    combiner,
                    [g[i] for i in order],
                    [A[i] for i in order] if separate else A,
                    step=step,
                )
                assert_close(got, [want[i] for i in order], 1e-6)


def one_loss_is_the_identity(combiner):
    """The gradient of a single loss passes, at any scale."""
    for scale in SCALES:
        for separate in (SHARED, SEPARATE):
            for step, g, A in examples(1, separate):
                g = [scale * g_i for g_i in g]
                assert_close(combine(combiner, g, A, step=step), g, 1e-6)


def one_loss_is_the_identity_at_zeros(combiner):
    """Also at a dead unit, and where a batch cancels."""
    for step, g, A in examples(1):
        A[:, 0] = 0.0
        A[:, 1] = 0.5
        g[0][:, 1] = [1.0, 2.0, -3.0]
        assert_close(combine(combiner, g, A, step=step), g, 1e-6)


def the_sum_is_that_of_the_parts(combiner):
    """`combine_to_sum` adds up what `combine` returns."""
    for num_losses in (1, 3):
        for step, g, A in examples(num_losses):
            with (
                keras.StatelessScope(),
                gd.random.drawing(tf.constant(step, tf.int64)),
            ):
                total = fresh(combiner, num_losses).combine_to_sum(
                    [tf.constant(g_i, "float32") for g_i in g],
                    places.of(tf.constant(A, "float32")),
                )
            want = sum(combine(combiner, g, A, step=step))
            assert_close([total.numpy()], [want], 1e-6)


def streaming_gives_the_same_sum(combiner):
    """Losses that come in chunks are combined as all at once."""
    if combiner.streaming() is None:
        return
    for step, g, A in examples(3):
        streaming = fresh(combiner, 3).streaming()
        tensors = [tf.constant(g_i, "float32") for g_i in g]
        with (
            keras.StatelessScope(),
            gd.random.drawing(tf.constant(step, tf.int64)),
        ):
            streaming.start(3, places.of(tf.constant(A, "float32")))
            streaming.add([0, 1], tensors[:2])
            streaming.add([2], tensors[2:])
            total = streaming.finish()
        want = sum(combine(combiner, g, A, step=step))
        assert_close([total.numpy()], [want], 1e-6)


COMBINER_LAWS = (
    shapes_and_dtypes_are_kept,
    dtypes_agree,
    zero_in_zero_out,
    finite_and_right_at_any_scale,
    positive_scaling,
    a_nan_stays_visible,
    permuting_the_losses,
    one_loss_is_the_identity,
    one_loss_is_the_identity_at_zeros,
    the_sum_is_that_of_the_parts,
    streaming_gives_the_same_sum,
)


# Combiners that see the Gram matrix alone.


def unequal_examples(separate=SHARED):
    """Yields steps, three gradients of unequal norms, and activations."""
    for ratio in (1.0, 1e2, 1e4, 1e6):
        middle = ratio**0.5
        for norms in ([1, 1, ratio], [ratio, 1, ratio], [ratio, middle, 1]):
            for step, g, A in examples(3, separate):
                # As float32 holds them.
                scaled = [
                    np.float64(np.float32(norm * g_i / np.linalg.norm(g_i)))
                    for norm, g_i in zip(norms, g, strict=True)
                ]
                yield step, scaled, A


def unequal_norms(combiner):
    """In float32 as in float64, though norms differ up to a million times.

    Judged loss by loss, relative to the larger of its own result and the
    smallest gradient, and by the sum that the trunk receives.
    """
    for separate in (SHARED, SEPARATE):
        for step, g, A in unequal_examples(separate=separate):
            got = combine(combiner, g, A, step=step)
            want = combine(combiner, g, A, "float64", step)
            smallest = min(np.abs(g_i).max() for g_i in g)
            for h, e in zip(got, want, strict=True):
                assert np.abs(h - e).max() <= 1e-5 * max(
                    np.abs(e).max(), smallest
                )
            if not separate:
                assert_close([sum(got)], [sum(want)], 1e-5)


def a_zero_gradient_changes_nothing(combiner):
    """The other losses are combined as if that one were not there.

    Orders that are drawn for another number of losses are others.
    """
    if isinstance(combiner, gd.RandomDraws):
        return
    for separate in (SHARED, SEPARATE):
        for step, g, A in examples(4, separate):
            g[3] = np.zeros_like(g[3])
            want = combine(combiner, g[:3], A[:3] if separate else A, step=step)
            got = combine(combiner, g, A, step=step)
            assert_close(got, [*want, g[3]], 1e-6)


def dependent_gradients_are_finite(combiner):
    """Duplicates, opposed gradients and more losses than dimensions."""
    for step, g, A in examples(4):
        cases = [
            [g[0], g[0], g[0], g[0]],
            [g[0], g[1], g[0], -g[1]],
            [g[0], -g[0], g[1], -2.0 * g[0]],
            [g[0], -g[0], np.zeros_like(A), np.zeros_like(A)],
            [np.full_like(A, x) for x in (1.0, -2.0, 3.0, -1e-3)],
        ]
        for dtype in ("float32", "float64"):
            for case in cases:
                total = sum(combine(combiner, case, A, dtype, step))
                assert np.isfinite(total).all()
                assert np.linalg.norm(total) <= 20 * max(
                    np.linalg.norm(g_i) for g_i in case
                )


GRAMIAN_LAWS = (
    unequal_norms,
    a_zero_gradient_changes_nothing,
    dependent_gradients_are_finite,
)


# What some combiners claim.


def no_loss_conflicts(combiner, num_losses=(2, 3, 4)):
    """The trunk's gradient has no negative product with that of any loss."""
    for T in num_losses:
        for step, g, A in examples(T, steps=12):
            # The plain sum of these conflicts with the last loss.
            g[0] = 4.0 * g[0] - 2.0 * g[-1]
            total = sum(combine(combiner, g, A, "float64", step))
            size = max(np.vdot(g_i, g_i) for g_i in g)
            for g_i in g:
                assert np.vdot(total, g_i) >= -1e-9 * size


def the_duality_gap_is_closed(combiner):
    """No convex combination is shorter, whatever the norms.

    For p on the hull of the gradients `|p|^2 - min_i g_i . p` is 0 at the
    shortest one alone. Each term is taken in units of `|p| |g_i|`, as the
    cosines that it is made of.
    """
    for step, g, A in unequal_examples():
        weights = [
            np.vdot(h, g_i) / np.vdot(g_i, g_i)
            for h, g_i in zip(
                combine(combiner, g, A, "float64", step), g, strict=True
            )
        ]
        assert min(weights) >= 0.0
        np.testing.assert_allclose(sum(weights), 1.0, rtol=1e-12)
        p = sum(w * g_i for w, g_i in zip(weights, g, strict=True))
        for g_i in g:
            unit = np.linalg.norm(p) * np.linalg.norm(g_i)
            assert np.vdot(p, p) - np.vdot(g_i, p) <= 1e-9 * unit


def agreeing_gradients_are_summed(combiner):
    """Gradients without a conflict are left alone."""
    for T in (1, 2, 5):
        for step, g, A in examples(T):
            g = [np.abs(g_i) for g_i in g]
            for dtype, rtol in (("float32", 1e-5), ("float64", 1e-9)):
                total = sum(combine(combiner, g, A, dtype, step))
                assert_close([total], [sum(g)], rtol)


def _orthonormal(num_losses):
    for step, _, A in examples(num_losses):
        rng = np.random.default_rng([step, num_losses])
        basis = np.linalg.qr(rng.normal(size=(A.size, num_losses)))[0]
        yield step, list(basis.T.reshape(num_losses, *A.shape)), A


def orthonormal_gradients_are_summed(combiner):
    """The result has the scale of the sum."""
    for T in (1, 2, 5):
        for step, g, A in _orthonormal(T):
            total = sum(combine(combiner, g, A, "float64", step))
            assert_close([total], [sum(g)], 1e-9)


def orthonormal_gradients_keep_their_direction(combiner):
    """The result has the direction of the sum."""
    for T in (1, 2, 5):
        for step, g, A in _orthonormal(T):
            total = sum(combine(combiner, g, A, "float64", step))
            unit = total / np.linalg.norm(total)
            assert_close([unit], [sum(g) / T**0.5], 1e-9)


def neither_of_two_losses_conflicts(combiner):
    """The same for two losses."""
    no_loss_conflicts(combiner, num_losses=(2,))


# Weightings.


def weights_after(weighting, losses, norms):
    """Returns the weights of the same losses after each step, a row a step.

    An epoch has two steps.
    """
    state = weighting.start(len(losses[0]))
    rows = []
    for step, (step_losses, step_norms) in enumerate(
        zip(losses, norms, strict=True)
    ):
        # A loss of a larger gradient falls further.
        falls = 0.9 - 0.4 * step_norms / (step_norms.max() or 1.0)
        step_losses = tf.constant(step_losses, "float32")
        step_norms = tf.constant(step_norms, "float32")
        with gd.random.drawing(step):
            after = weighting.advance(
                state,
                step_losses,
                step_norms if weighting.needs_norms else None,
            )
            if weighting.needs_losses_after:
                after |= weighting.next_state_after(
                    after, step_losses, step_losses * falls
                )
            assert after.keys() == state.keys()
            for new, old in ((after[name], state[name]) for name in state):
                assert (new.dtype, new.shape) == (old.dtype, old.shape)
            state = weighting.end_epoch(after) if step % 2 else after
            weights = weighting.weights_of(state, step_losses)
        assert (weights.dtype, weights.shape) == (tf.float32, [len(losses[0])])
        rows.append(weights.numpy().astype(np.float64))
    return np.stack(rows)


def histories(num_losses, steps=4):
    """Returns positive losses and norms, `[steps, T]` each."""
    rng = np.random.default_rng(num_losses)
    return rng.uniform(0.5, 2.0, (2, steps, num_losses))


def weights_are_finite_at_any_scale(weighting):
    """Finite and not negative, whatever the size of losses and norms."""
    for T in (1, 2, 40):
        losses, norms = histories(T)
        for c in (0.0, *SCALES):
            for d in (0.0, *SCALES):
                weights = weights_after(weighting, c * losses, d * norms)
                assert np.isfinite(weights).all()
                assert (weights >= 0.0).all()


def weights_are_finite_whatever_the_signs(weighting):
    """Finite and not negative for losses that are below 0, at first or not."""
    losses, norms = histories(3)
    for signs in ([-1, 1, 1], [1, -1, 0], [0, 0, -1], [-1, -1, -1]):
        for some in (slice(None), slice(2), slice(2, None), slice(1, 2)):
            signed = losses.copy()
            signed[some] *= signs
            weights = weights_after(weighting, signed, norms)
            assert np.isfinite(weights).all()
            assert (weights >= 0.0).all()


def a_nan_does_not_enter_the_variables(weighting):
    """A step that is not finite leaves the saved state unchanged."""
    weighting.build(3)

    def update(losses, norms):
        norms = tf.constant(norms) if weighting.needs_norms else None
        with gd.random.drawing(0):
            weighting.update(tf.constant(losses), norms)
        return [v.numpy() for v in weighting.variables]

    losses, norms = histories(3).astype(np.float32)
    before = update(losses[0], norms[0])
    nan = np.float32([1.0, np.nan, 1.0])
    bad = [(nan, norms[1]), (nan, nan)]
    if weighting.needs_norms:
        bad.append((losses[1], nan))
    for step in bad:
        for after, value in zip(update(*step), before, strict=True):
            np.testing.assert_array_equal(after, value)


def permuting_weighted_losses(weighting):
    """The order of the losses does not matter, except to who draws."""
    if isinstance(weighting, gd.RandomDraws):
        return
    losses, norms = histories(3)
    want = weights_after(weighting, losses, norms)
    for order in ([1, 0, 2], [2, 0, 1]):
        got = weights_after(weighting, losses[:, order], norms[:, order])
        np.testing.assert_allclose(got, want[:, order], rtol=1e-6)


WEIGHTING_LAWS = (
    weights_are_finite_at_any_scale,
    weights_are_finite_whatever_the_signs,
    a_nan_does_not_enter_the_variables,
    permuting_weighted_losses,
)


# What some weightings claim.


def units_of_losses_do_not_matter(weighting):
    """One loss c times as large has 1 / c of its share of the weights."""
    losses, norms = histories(3, steps=6)
    shares = weights_after(weighting, losses, norms)
    shares /= shares.sum(axis=1, keepdims=True)
    for loss in range(3):
        for c in (1e-6, 1e6):
            scaled = losses.copy()
            scaled[:, loss] *= c
            weights = weights_after(weighting, scaled, norms)
            weights[:, loss] *= c
            weights /= weights.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(weights, shares, rtol=1e-5)


def units_of_losses_leave_the_weights(weighting):
    """The weights do not change with the size of a loss over all steps."""
    losses, norms = histories(3, steps=6)
    want = weights_after(weighting, losses, norms)
    for c in (1e-6, 1e6):
        got = weights_after(weighting, losses * [1.0, c, 1.0], norms)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def zeros_leave_the_weights_as_they_began(weighting):
    """Losses and norms that are all zero teach nothing."""
    for T in (1, 2, 40):
        zeros = np.zeros((4, T))
        first = weighting.weights_of(weighting.start(T), tf.zeros([T]))
        for weights in weights_after(weighting, zeros, zeros):
            np.testing.assert_array_equal(weights, first)


def scaling_all_losses_keeps_the_weights(weighting):
    """The unit of the losses does not matter."""
    losses, norms = histories(3)
    want = weights_after(weighting, losses, norms)
    for c in (*SCALES, 3.0):
        got = weights_after(weighting, c * losses, norms)
        np.testing.assert_allclose(got, want, rtol=1e-5)


def a_nan_of_a_loss_is_in_the_next_weights(weighting):
    """What is not finite is not weighed as if it were."""
    for loss in range(3):
        losses, norms = histories(3)
        losses[2, loss] = norms[2, loss] = np.nan
        weights = weights_after(weighting, losses[:3], norms[:3])
        assert np.isfinite(weights[:2]).all()
        assert np.isnan(weights[2]).any()


def one_loss_has_weight_one(weighting):
    """A single loss is left alone."""
    weights = weights_after(weighting, *histories(1))
    np.testing.assert_allclose(weights, 1.0, rtol=1e-6)
