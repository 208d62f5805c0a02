"""Rows of methods where each loss has a head of its own."""

import pytest

from trainers.benchmarks import measuring
from trainers.benchmarks.suites import heads, layer

NETWORK = layer.task_network


def small(num_losses):
    return NETWORK(num_losses, (2, 2, 2, 2))


@pytest.mark.parametrize("method", [None, *heads.METHODS])
def test_a_step_trains_the_trunk(method, eager):
    trunk, parts = small(2)
    before = trunk.get_weights()[0]
    heads.make_step(method, trunk, parts)()
    assert (trunk.get_weights()[0] != before).any()


@pytest.mark.parametrize(
    ("method", "combining"), [("graddrop", 2 * 2), ("mgda", 2 * 2 + 2)]
)
def test_combining_costs_little_by_arithmetic(method, combining):
    """Three passes through convolutions of 32, 16, 8 and 8 positions a side."""
    trunk, parts = small(2)
    features = 4 * 4 * 2
    forward = 9 * (3 * 2 * 1024 + 2 * 2 * (256 + 64 + 64))
    forward += 2 * (features * 64 + 64 * 10)
    expected = 3 * forward / (3 * forward + combining * features)
    assert heads.allowed("baseline", trunk, parts) == 1.0
    assert heads.allowed(method, trunk, parts) == pytest.approx(expected)


def test_rows_for_each_number_of_losses(monkeypatch):
    monkeypatch.setattr(layer, "task_network", small)
    monkeypatch.setattr(heads, "make_step", lambda *_: lambda: None)
    monkeypatch.setattr(
        measuring,
        "take_turns",
        lambda steps, rounds, **_: {name: [1.0] * rounds for name in steps},
    )
    rows = heads.SUITE.measure(2, measuring.Progress("heads"))
    assert len(rows) == len(heads.LOSSES) * (1 + len(heads.METHODS))
    assert (rows[3].case, rows[3].against) == (
        "pcgrad, 2 losses",
        "plain Keras, 2 losses",
    )
    assert rows[3].target == pytest.approx(0.95 * rows[3].allowed)
