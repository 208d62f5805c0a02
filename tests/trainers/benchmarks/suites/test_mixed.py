"""The network of mixed batches."""

import numpy as np
import pytest

from trainers.benchmarks.suites import mixed


@pytest.fixture
def network():
    return mixed.make_network(
        (8, 8, 3), {"source": 5, "target": 3}, depth=10, growth_rate=2
    )


@pytest.mark.parametrize("recipe", [mixed.BASELINE, mixed.GRADDROP])
def test_a_step_trains_both_heads(recipe, network, eager):
    trunk, heads = network
    before = heads.get_weights()
    mixed.make_step(recipe, trunk, heads)()
    for old, new in zip(before, heads.get_weights()):
        assert np.isfinite(new).all() and (old != new).any()


def test_share_of_combining_by_hand(network):
    trunk, heads = network
    # Of 4 channels a layer makes 8 by 1 x 1 and of them 2 by 3 x 3, which are
    # added; a transition keeps half of the 6, and so on.
    first = 64 * (9 * 3 * 4 + 4 * 8 + 9 * 8 * 2) + 64 * 6 * 3
    second = 16 * (3 * 8 + 9 * 8 * 2) + 16 * 5 * 2
    third = 4 * (2 * 8 + 9 * 8 * 2)
    pair = 2 * (first + second + third) + 4 * 5 + 4 * 3
    # Of 2 losses and 4 features.
    combining = 2 * 2 * 4
    np.testing.assert_allclose(
        mixed.share_of_combining(trunk, heads),
        1.0 + combining / (3 * pair),
        rtol=1e-12,
    )
