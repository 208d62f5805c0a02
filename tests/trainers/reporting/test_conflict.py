"""Expected values are by hand, for g_1 = (4, 1) and g_2 = (-2, 1)."""

import numpy as np
import pytest

import graddrop_tf as gd
from trainers import drawing
from trainers.reporting import conflict


def _outcomes(method):
    return conflict.outcomes(gd.Recipe.parse(method))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("baseline", [2.0, 2.0]),
        # The weights are 1/3 and 2/3.
        ("mgda", [0.0, 1.0]),
        # g_1 + 7/5 g_2 and g_2 + 7/17 g_1.
        ("pcgrad", [14.4 / 17.0, 64.8 / 17.0]),
    ],
)
def test_a_method_that_draws_nothing_has_one_outcome(method, expected):
    (outcome,) = _outcomes(method)
    np.testing.assert_allclose(outcome.gradient, expected, atol=1e-3)
    assert outcome.probability == 1.0


def test_graddrop_keeps_the_sign_of_the_first_coordinate_it_draws():
    negative, positive = _outcomes("graddrop")
    np.testing.assert_array_equal(negative.gradient, [-2.0, 2.0])
    np.testing.assert_array_equal(positive.gradient, [4.0, 2.0])
    assert positive.probability == pytest.approx(2.0 / 3.0, abs=5e-3)


def test_a_fair_coin_also_drops_what_the_losses_agree_on():
    found = _outcomes("random_graddrop")
    assert [outcome.gradient.tolist() for outcome in found] == [
        [-2.0, 0.0],
        [-2.0, 2.0],
        [4.0, 0.0],
        [4.0, 2.0],
    ]
    for outcome in found:
        assert outcome.probability == pytest.approx(0.25, abs=6e-3)


def test_gradnorm_makes_the_norms_of_unchanged_losses_equal():
    (outcome,) = _outcomes("gradnorm")
    weights = np.linalg.solve(conflict.GRADIENTS.T, outcome.gradient)
    assert weights.sum() == pytest.approx(2.0, abs=1e-3)
    norms = weights * np.linalg.norm(conflict.GRADIENTS, axis=1)
    assert norms[0] == pytest.approx(norms[1], rel=0.1)


def test_the_picture_is_the_same_every_time():
    first, second = (
        drawing.svg(conflict.draw(["pcgrad", "graddrop"])) for _ in range(2)
    )
    assert first == second
