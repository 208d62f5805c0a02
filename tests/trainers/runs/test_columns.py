import numpy as np

from trainers.runs import columns


def test_numbers_by_hand():
    samples = np.array([1.0, 2.0, 4.0])
    # Deviation with n - 1: sqrt(14 / 3 / 2) = 1.5275.
    assert columns.mean_and_deviation(samples) == "2.333 ± 1.528"
    assert columns.percent(samples) == "2.33 ± 1.53"
    assert columns.mean_and_deviation(samples[:1]) == "1.000 (one sample)"
    assert columns.median(samples) == "2.000"
    assert columns.extremes(samples) == "1.000 to 4.000"
    assert columns.hits(np.array([1.0, 0.0, 0.0, 1.0])) == "50.0 % (2)"
    assert columns.whole(samples) == "2 ± 2"
