"""Peak memory of this process."""

import numpy as np
import pytest

from trainers.benchmarks import peaks


@pytest.mark.skipif(
    not peaks.can_be_read(), reason="peak memory is read from Linux's /proc"
)
def test_a_peak_is_what_a_step_holds_at_once():
    def step():
        for _ in range(3):
            np.ones([2**22], np.float64)

    # What was there before and is gone does not count.
    np.ones([2**25], np.float64)
    without = np.median(peaks.of_step(lambda: None))
    # 32 MiB, three times one after the other.
    found = np.median(peaks.of_step(step)) - without
    np.testing.assert_allclose(found, 32.0, atol=4.0)
