"""Arguments with a value for each loss, by hand."""

import pytest

from graddrop_tf.checks import is_share
from graddrop_tf.per_loss import PerLoss


def share(given, default=None):
    return PerLoss("part", given, is_share, "in [0, 1]", default)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.5, [0.5, 0.5, 0.5]),
        ([0, 0.5, 1], [0, 0.5, 1]),
        ({"c": 0.25, "a": 1.0}, [1.0, 0.5, 0.25]),
    ],
)
def test_values_of_three_losses(given, expected):
    assert share(given, default=0.5).of(3, ["a", "b", "c"]) == expected


@pytest.mark.parametrize("given", [1.5, [0.1, -1], {"a": 2}, "a", None])
def test_values_out_of_range(given):
    with pytest.raises(ValueError, match=r"`part` must be in \[0, 1\]"):
        share(given)


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ([0, 1, 1], ["a", "b"], "3 values for 2 losses"),
        ([], ["a", "b"], "0 values for 2 losses"),
        ({}, ["a", "b"], r"every loss. Received: none for \['a', 'b'\]"),
        ({"a": 1}, None, "by name needs"),
        ({"a": 1, "c": 1}, ["a", "b"], r"no such loss: \['c'\].*'a', 'b'"),
        ({"a": 1}, ["a", "b"], r"every loss. Received: none for \['b'\]"),
    ],
)
def test_values_of_other_losses(given, names, message):
    with pytest.raises(ValueError, match=message):
        share(given).of(2, names)
