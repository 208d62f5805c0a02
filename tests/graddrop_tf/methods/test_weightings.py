"""Weightings that need losses alone, against published values and by hand.

`tests/oracle/aggregators.json` holds the weights of six steps from two
independent float64 computations.
"""

import json
import math
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import graddrop_tf as gd

ORACLE = json.loads(
    (pathlib.Path(__file__).parents[2] / "oracle/aggregators.json").read_text()
)["losses"]
LOSSES = ORACLE["_inputs"]["losses"]
AFTER = ORACLE["_inputs"]["losses_after"]
NADIR = ORACLE["stch_log"]["params"]["nadir"]

# By the name in the oracle: the method, and the length of its epochs.
PUBLISHED = {
    "dwa": (gd.DWA(temperature=2.0), 2),
    "uncertainty": (gd.Uncertainty(initial=0.0, learning_rate=0.1), None),
    "uncertainty_libmtl_start": (
        gd.Uncertainty(initial=-0.5, learning_rate=0.1),
        None,
    ),
    "imtl_l": (gd.IMTLL(learning_rate=0.05), None),
    "famo": (gd.FAMO(learning_rate=0.025, weight_decay=0.001), None),
    "famo_plain": (
        gd.FAMO(learning_rate=0.025, weight_decay=0.001, optimizer="sgd"),
        None,
    ),
    "stch": (gd.STCH(mu=0.5, log=False), None),
    "stch_log": (gd.STCH(mu=1.0, nadir=NADIR), None),
    # The nadir of the first two steps, as one epoch.
    "stch_log measured": (gd.STCH(warmup=1), 2),
    "geometric_mean": (gd.GeometricMean(), None),
    "log_sum": (gd.LogSum(), None),
}


def take_step(method, state, losses, after):
    """Returns the weights of a step, and the state after it."""
    losses, after = tf.constant(losses), tf.constant(after)
    weights = method.weights_of(state, losses)
    state = method.advance(state, losses)
    if method.needs_losses_after:
        changes = method.next_state_after(state, losses, after)
        state = {**state, **changes}
    return weights, state


def run(method, losses, after=None, epoch=None, step=take_step):
    """Returns the weights of each step, and the last state."""
    state, rows = method.start(len(losses[0])), []
    for i, row in enumerate(losses):
        weights, state = step(method, state, row, (after or losses)[i])
        rows.append(weights.numpy())
        if epoch and (i + 1) % epoch == 0:
            state = method.end_epoch(state)
    return np.array(rows), state


def close(actual, expected, rtol=1e-5, atol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights(name, graph):
    method, epoch = PUBLISHED[name]
    step = tf.function(take_step) if graph else take_step
    weights, state = run(method, LOSSES, AFTER, epoch, step)
    expected = ORACLE[name.split()[0]]
    first = 2 if "measured" in name else 0
    close(weights[first:], expected["weights"][first : len(LOSSES)])
    for own in ("log_variances", "s", "xi"):
        if own in state:
            # A loss of float32 is known to 6e-8 of itself.
            close(state[own], expected["state_after"], atol=1e-8)
    if name == "dwa":
        close(method.weights_of(state, None), expected["weights"][-1])


def test_all_published_weightings_are_tested():
    published = {*ORACLE} - {"_inputs", "rlw"}
    # A variant of uncertainty weighting that is no method here.
    assert published - {"uw_so"} == {name.split()[0] for name in PUBLISHED}


def test_published_moments_of_random_weights():
    """Within five standard errors."""
    method, steps = gd.RandomWeighting(seed=5), 20000
    moments = {2: ORACLE["rlw"]["two_losses"]}
    moments |= {int(T): m for T, m in ORACLE["rlw"]["more_losses"].items()}

    for T, expected in moments.items():

        @tf.function
        def draw(T=T):
            def at(step):
                with gd.random.drawing(step):
                    return method.weights_of({}, tf.zeros([T]))

            return tf.map_fn(
                at, tf.range(steps), fn_output_signature=tf.float32
            )

        weights = draw().numpy().astype(np.float64)
        close(weights.sum(axis=1), 1.0)
        variance = expected["variance"]
        error = math.sqrt(variance / steps)
        assert np.abs(weights.mean(axis=0) - 1 / T).max() < 5 * error
        # The kurtosis of a bounded value is below that of a normal one.
        error = variance * math.sqrt(2 / steps)
        assert np.abs(weights.var(axis=0) - variance).max() < 5 * error
        if T == 2:
            quantiles = expected["quantiles"]
            measured = np.quantile(weights[:, 0], [float(q) for q in quantiles])
            close(measured, [*quantiles.values()], rtol=0.05)


def test_dwa_over_three_epochs_by_hand():
    """Means (3, 2), (1.5, 3): ratios 0.5 and 1.5, half of them apart."""
    losses = [[2.0, 1.0], [4.0, 3.0], [1.0, 4.0], [2.0, 2.0], [7.0, 7.0]]
    weights, _ = run(gd.DWA(temperature=2.0), losses, epoch=2)
    first = 2 / (1 + math.exp(0.5))
    close(weights[:4], 1.0)
    close(weights[4], [first, 2 - first])
    method = gd.DWA(temperature=1.0, window=2)
    weights, _ = run(method, losses)
    first = 2 / (1 + math.exp(1.0))
    close(weights[4], [first, 2 - first])


def test_dwa_of_losses_without_a_ratio():
    """A mean of 0, or below, in either epoch: as if nothing had changed."""
    losses = [[0.0, 1.0, -1.0, 1.0], [1.0, 0.0, 1.0, 2.0]]
    _, state = run(gd.DWA(temperature=1.0), losses, epoch=1)
    weights = gd.DWA(temperature=1.0).weights_of(state, None)
    shares = np.exp([1.0, 1.0, 1.0, 2.0])
    close(weights, 4 * shares / shares.sum())


@pytest.mark.parametrize(
    ("kind", "c"), [("regression", 1), ("classification", 2)]
)
def test_uncertainty_over_ten_steps_of_gradient_descent(kind, c):
    """By automatic differentiation of the paper's objective."""
    losses = np.random.default_rng(0).uniform(0.1, 5.0, [10, 3])
    weights, state = run(
        gd.Uncertainty(kind, learning_rate=0.2), losses.tolist()
    )
    s = tf.Variable(np.zeros(3))
    for row, ours in zip(losses, weights, strict=True):
        L = tf.Variable(row)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(c * tf.exp(-s) * L / 2 + s / 2)
        slope, theirs = tape.gradient(value, [s, L])
        close(ours, theirs)
        s.assign_sub(0.2 * slope)
    close(state["log_variances"], s)


def test_uncertainty_by_kinds():
    method = gd.Uncertainty(["regression", "classification"], initial=1.0)
    weights, _ = run(method, [[1.0, 1.0]])
    close(weights, [[math.exp(-1) / 2, math.exp(-1)]])
    method = gd.Uncertainty({"b": "classification"})
    method.set_losses(3, ["a", "b", "c"])
    close(method.current_weights(), [0.5, 1.0, 0.5])


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2, 1e6, 1e30])
def test_learned_weights_reach_their_fixed_points(scale):
    """1 / (2 L) and 1 / L, without a weight of 0 on the way."""
    losses = [[scale * 0.7, scale * 3.0]] * 500
    ideal = 1 / np.array(losses[0])
    for method, expected in (
        (gd.Uncertainty(learning_rate=0.4), ideal / 2),
        (gd.Uncertainty("classification", learning_rate=0.4), ideal / 2),
        (gd.IMTLL(learning_rate=0.2), ideal),
    ):
        weights, _ = run(method, losses, step=tf.function(take_step))
        close(weights[-1], expected, rtol=1e-4)
        # Without passing them.
        share = np.log(weights / expected) / np.log(weights[0] / expected)
        assert share.min() > -1e-4


def test_steps_of_learned_weights_end_at_their_fixed_points():
    """Above and below, also where the learning rate is large."""
    losses = [[0.5, 2.0]]
    for method, name, expected in (
        (gd.Uncertainty(learning_rate=10.0), "log_variances", [-1, 1]),
        (gd.IMTLL(learning_rate=5.0), "s", [1, -1]),
    ):
        _, state = run(method, losses)
        close(state[name], np.array(expected) * math.log(2.0))


def test_learned_weights_of_losses_that_are_not_above_0():
    """They stay as they are."""
    for method in (gd.Uncertainty(initial=1.0), gd.IMTLL(initial=-1.0)):
        weights, _ = run(method, [[0.0, -3.0, 5.0]] * 3)
        close(weights[2, :2], weights[0, :2])
        assert abs(weights[2, 2] - weights[0, 2]) > 1e-3


def test_units_of_imtl_l():
    """31 and 0.04 are of order 1, 32 and 0.03 of the next powers of 1000."""
    losses = [31.0, 32.0, 0.04, 0.03, 2e9, 0.0]
    weights, state = run(gd.IMTLL(), [losses])
    close(weights[0], [1.0, 1e-3, 1.0, 1e3, 1e-9, 1.0])
    close(state["units"], [1.0, 1e3, 1.0, 1e-3, 1e9, 0.0])
    # The first value above 0 tells; later ones do not.
    _, state = run(gd.IMTLL(), [losses, [1e6] * 6])
    close(state["units"], [1.0, 1e3, 1.0, 1e-3, 1e9, 1e6])


def famo_by_hand(losses, after, rate, decay):
    """FAMO by plain gradient descent, Algorithm 1, with a numerical slope."""
    xi, rows, h = np.zeros(len(losses[0])), [], 1e-6

    def objective(xi, fell):
        z = np.exp(xi) / np.exp(xi).sum()
        return (z * fell).sum()

    for before, now in zip(losses, after, strict=True):
        z = np.exp(xi) / np.exp(xi).sum()
        w = z / before
        rows.append(w / w.sum())
        fell = np.log(before) - np.log(now)
        slope = [
            (objective(xi + d, fell) - objective(xi - d, fell)) / (2 * h)
            for d in h * np.eye(len(xi))
        ]
        xi = xi - rate * (np.array(slope) + decay * xi)
    return np.array(rows), xi


def test_famo_over_five_steps_in_both_forms():
    losses, after = np.array(LOSSES[:5]), np.array(AFTER[:5])
    method = gd.FAMO(learning_rate=0.5, weight_decay=0.01, optimizer="sgd")
    weights, state = run(method, losses.tolist(), after.tolist())
    rows, xi = famo_by_hand(losses, after, 0.5, 0.01)
    close(weights, rows)
    close(state["xi"], xi)

    # The losses of the next batch stand in for those after the update.
    lagged = gd.FAMO(0.5, 0.01, optimizer="sgd", lagged=True)
    assert not lagged.needs_losses_after
    weights, _ = run(lagged, losses.tolist())
    rows, _ = famo_by_hand(losses[:-1], losses[1:], 0.5, 0.01)
    close(weights[:4], rows)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_famo_in_both_forms_of_the_same_batch(optimizer):
    """What is next is what came after."""
    falling = np.array(LOSSES[0]) * np.linspace(1.0, [0.2, 0.5, 0.9], 9)
    falling = falling.tolist()
    arguments = {"learning_rate": 0.1, "optimizer": optimizer}
    weights, _ = run(gd.FAMO(**arguments), falling[:-1], falling[1:])
    lagged, _ = run(gd.FAMO(**arguments, lagged=True), falling)
    close(lagged[:-1], weights)
    assert np.ptp(weights[:, 2]) > 0.001


@pytest.mark.parametrize("lagged", [False, True])
def test_famo_without_some_losses(lagged):
    """An absent loss has weight 0, keeps its xi, and moves no other."""
    two, two_after = [[1.0, 2.0], [0.8, 1.0]], [[0.8, 1.9], [0.7, 0.9]]
    three, three_after = (
        [[a, 0.0, b] for a, b in rows] for rows in (two, two_after)
    )
    weights, state = run(gd.FAMO(lagged=lagged), two, two_after)
    more, after = run(gd.FAMO(lagged=lagged), three, three_after)
    close(more[:, [0, 2]], weights)
    assert not more[:, 1].any()
    close(after["xi"], [state["xi"][0], 0.0, state["xi"][1]])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_famo_waits_for_an_absent_loss(optimizer):
    """Without decay or momentum meanwhile, though xi is not 0."""
    losses = [[1.0, 2.0, 3.0], [0.8, 1.9, 2.9], [0.7, 1.8, 2.0]]
    absent = [*losses[:2], [0.7, 0.0, 2.0]]
    method = gd.FAMO(weight_decay=0.5, optimizer=optimizer, lagged=True)
    _, before = run(method, absent[:2])
    _, state = run(method, absent)
    assert abs(before["xi"][1]) > 1e-4
    for name in ("xi", "last", "means"):
        if name in state:
            assert state[name][1] == before[name][1]
            assert state[name][0] != before[name][0]


def test_famo_above_the_smallest_losses():
    """Losses of 3 and 5 above 1 and 2 are 2 and 3."""
    method = gd.FAMO(minimum_losses=[1.0, 2.0])
    shifted, state = run(method, [[3.0, 5.0]], [[2.0, 4.0]])
    plain, expected = run(gd.FAMO(), [[2.0, 3.0]], [[1.0, 2.0]])
    close(shifted, plain)
    close(shifted, [[0.6, 0.4]])
    close(state["xi"], expected["xi"])


def test_smooth_maxima_are_the_derivatives_of_their_objectives():
    preference, ideal = [0.2, 0.5, 0.3], [0.1, -1.0, 2.0]
    arguments = {"mu": 0.7, "preference": preference}
    for method, objective in (
        (
            gd.STCH(log=False, ideal=ideal, **arguments),
            lambda L: 0.7 * tf.reduce_logsumexp(preference * (L - ideal) / 0.7),
        ),
        (
            gd.STCH(nadir=NADIR, **arguments),
            lambda L: (
                2.1
                * tf.reduce_logsumexp(
                    3 * np.array(preference) * tf.math.log(L / NADIR) / 0.7
                )
            ),
        ),
    ):
        weights, _ = run(method, LOSSES)
        for row, ours in zip(LOSSES, weights, strict=True):
            L = tf.Variable(row, dtype=tf.float64)
            with tf.GradientTape() as tape:
                value = objective(L)
            close(ours, tape.gradient(value, L))


def test_stch_warms_up_for_four_epochs():
    """By the sum of the logarithms; the nadir is the mean of the last."""
    losses = [[2.0, 4.0]] * 3 + [[1.0, 8.0], [2.0, 4.0]]
    weights, state = run(gd.STCH(), losses, epoch=1)
    close(weights[:4], 1 / np.array(losses[:4]))
    # log(L / n) = log 2 and -log 2: shares 0.8 and 0.2, times T / L.
    close(weights[4], [0.8, 0.1])
    close(state["nadir"], [1.0, 8.0])


def test_stch_without_a_nadir_of_a_loss():
    """A loss that was absent counts as at its nadir, where log(L / n) = 0."""
    losses = [[0.0, 2.0], [4.0, 6.0]]
    weights, _ = run(gd.STCH(warmup=1), losses, epoch=1)
    close(weights, [[0.0, 0.5], [2 * 0.25 / 4, 2 * 0.75 / 6]])


def test_small_mu_leaves_the_largest():
    for c in (1e-30, 1.0, 1e30):
        losses = [[c * 1.0, c * 3.0, c * 2.0]]
        weights, _ = run(gd.STCH(mu=1e-6 * c, log=False), losses)
        close(weights, [[0.0, 1 / 3, 0.0]])
        weights, _ = run(gd.STCH(mu=1e-9, nadir=1.0), losses)
        close(weights * c, [[0.0, 1.0, 0.0]])


def test_means_of_logarithms_leave_out_what_has_none():
    losses = [[2.0, 0.0, 8.0, -1.0]]
    weights, _ = run(gd.LogSum(), losses)
    close(weights, [[0.5, 0.0, 0.125, 0.0]])
    # The geometric mean of 2 and 8 is 4, by 2 losses.
    weights, _ = run(gd.GeometricMean(), losses)
    close(weights, [[1.0, 0.0, 0.25, 0.0]])


def test_a_geometric_mean_has_a_common_factor():
    """A loss 1000 times as large: the mean of three is ten times as large."""
    weights, _ = run(gd.GeometricMean(), [[1.0, 2.0, 4.0], [1.0, 2e3, 4.0]])
    close(weights[1], weights[0] * [10.0, 0.01, 10.0])


def test_constants():
    weights, _ = run(gd.Constant(2), [[1.0, -5.0]])
    close(weights, [[2.0, 2.0]])
    weights, _ = run(gd.Constant([0, 3]), [[1.0, 5.0]])
    close(weights, [[0.0, 3.0]])
    method = gd.Constant({"b": 0.5})
    method.set_losses(2, ["a", "b"])
    close(method.current_weights(tf.zeros([2])), [1.0, 0.5])


@pytest.mark.parametrize(
    "text",
    [
        "constant([1, -1])",
        "constant('a')",
        "dwa(temperature=0)",
        "dwa(window=0.5)",
        "famo(learning_rate=0)",
        "famo(minimum_losses=[None])",
        "famo(optimizer='sgd2')",
        "famo(weight_decay=-1)",
        "imtl_l(initial='0')",
        "imtl_l(learning_rate=-1)",
        "stch(ideal=0)",
        "stch(log=False, nadir=1)",
        "stch(log=False, warmup=2)",
        "stch(mu=0)",
        "stch(nadir=0)",
        "stch(nadir=1, warmup=2)",
        "stch(preference=[0, 1])",
        "stch(warmup=0)",
        "uncertainty('poisson')",
        "uncertainty(initial=None)",
        "uncertainty(learning_rate=0)",
    ],
)
def test_bad_arguments(text):
    with pytest.raises(ValueError, match="Received: "):
        gd.Recipe.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("constant([1, 2])", "`values`.*2 values for 3 losses"),
        ("constant({'d': 2})", r"`values` names no such loss: \['d'\]"),
        ("famo(minimum_losses=[1, 2])", "`minimum_losses`.*2 values for 3"),
        ("stch(preference=[1, 2])", "`preference`.*2 values for 3"),
        ("stch(nadir={'a': 2})", "`nadir` must name every loss"),
        ("stch(ideal=[1, 2], log=False)", "`ideal`.*2 values for 3"),
        ("uncertainty(['regression'])", "`kind`.*1 values for 3 losses"),
    ],
)
def test_arguments_for_other_losses(text, message):
    state = gd.Recipe.parse(text).make_state()
    with pytest.raises(ValueError, match=message):
        state.set_losses(3, ["a", "b", "c"])
