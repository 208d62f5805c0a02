"""The network and the ways to train it."""

import keras
import numpy as np
import pytest

from trainers.benchmarks import methods
from trainers.models import attribute_network


def tiny_network():
    return attribute_network.make_network((8, 8, 3), 5, channels=1)


def test_counts_by_hand():
    trunk, heads = attribute_network.make_network((16, 16, 3), 6, channels=2)
    assert trunk.output.shape == (None, 2, 2, 16)
    trunk_count = 9 * (
        256 * 3 * 2
        + 64 * (2 * 4 + 4 * 4)
        + 16 * (4 * 8 + 8 * 8)
        + 4 * (8 * 16 + 16 * 16)
    )
    heads_count = 64 * 16 + 16 * 16 + 16 * 6
    once = 3 * (trunk_count + heads_count)
    baseline, bare = methods.METHODS[:2]
    count = methods.multiply_adds
    assert count(baseline, trunk, heads) == once
    assert count(bare, trunk, heads) == once + 5 * heads_count + 6 * 64


def test_shapes_are_those_of_the_paper():
    trunk, heads = methods.make()
    assert trunk.output.shape == (None, 8, 8, 512)
    assert heads.output.shape == (None, 40)


@pytest.mark.parametrize("method", methods.METHODS, ids=lambda m: m.name)
def test_every_method_takes_a_step(method, eager):
    trunk, heads = tiny_network()
    before = heads.layers[-1].bias.numpy().copy()
    methods.make_step(method, trunk, heads)()
    assert np.isfinite(heads.layers[-1].bias.numpy()).all()
    assert (heads.layers[-1].bias.numpy() != before).any()


def test_the_bare_jacobian_trains_like_the_baseline(eager):
    weights = []
    for method in methods.METHODS[:2]:
        keras.utils.set_random_seed(0)
        trunk, heads = tiny_network()
        methods.make_step(method, trunk, heads)()
        weights.append(trunk.get_weights()[0])
    np.testing.assert_allclose(*weights, atol=1e-6)
