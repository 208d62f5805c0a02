import math

import numpy as np
import pytest
from scipy import stats

from trainers.reporting import statistics


def test_difference_agrees_with_a_computation_by_hand():
    method = {0: 11.0, 1: 13.0, 2: 15.0, 9: 1000.0}
    baseline = {0: 10.0, 1: 11.0, 2: 12.0, 7: -1000.0}
    found = statistics.compare(method, baseline)
    # Deltas 1, 2, 3: deviation 1, t(2) = 4.302653, margin 4.302653 / sqrt 3.
    assert found.num_pairs == 3
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 - 2.484138, abs=1e-5)
    assert found.high == pytest.approx(2.0 + 2.484138, abs=1e-5)
    assert found.verdict(lower_is_better=True) == "within the noise"


def test_difference_agrees_with_scipy():
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(2, 12))
    expected = stats.ttest_rel(left, right).confidence_interval(0.95)
    found = statistics.compare(dict(enumerate(left)), dict(enumerate(right)))
    assert found.low == pytest.approx(expected.low)
    assert found.high == pytest.approx(expected.high)


def test_verdicts():
    def verdict(deltas, lower_is_better=True):
        method = dict(enumerate(deltas))
        baseline = dict.fromkeys(method, 0.0)
        return statistics.compare(method, baseline).verdict(lower_is_better)

    assert verdict([-1.0, -1.1, -0.9]) == "better than the noise"
    assert verdict([1.0, 1.1, 0.9]) == "worse than the noise"
    assert verdict([1.0, 1.1, 0.9], False) == "better than the noise"
    assert verdict([-1.0, 1.0, 0.5]) == "within the noise"
    assert verdict([0.0, 0.0]) == "identical to the baseline"
    assert "cannot be told" in verdict([3.0])


def test_one_pair_has_no_interval_and_none_no_difference():
    assert math.isnan(statistics.compare({0: 1.0}, {0: 0.0}).low)
    assert statistics.compare({0: 1.0}, {1: 0.0}) is None
