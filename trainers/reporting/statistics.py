"""The paired comparison of two methods."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between a method and the baseline over paired samples.

    Attributes:
        mean: Mean of (method - baseline).
        low: Lower end of its 95 % interval (paired t); NaN for one pair.
        high: Upper end.
        num_pairs: The number of pairs.
    """

    mean: float
    low: float
    high: float
    num_pairs: int

    def verdict(self, lower_is_better: bool) -> str:
        """Returns the conclusion in a few words."""
        if self.num_pairs < 2:
            return "one sample: cannot be told from noise"
        if self.low == self.high == 0.0:
            return "identical to the baseline"
        if self.low <= 0.0 <= self.high:
            return "within the noise"
        better = (self.mean < 0.0) == lower_is_better
        return "better than the noise" if better else "worse than the noise"


def compare(
    method: Mapping[Any, float], baseline: Mapping[Any, float]
) -> Difference | None:
    """Compares a method with the baseline.

    Samples with the same key share their seed and initial weights, and with
    them a part of their noise, which cancels in the difference. Equal to
    `scipy.stats.ttest_rel`, which warns where all differences are equal and
    divides by zero where there is one pair.

    Args:
        method: Samples of the method.
        baseline: Samples of the baseline.

    Returns:
        The difference over the common keys; None if there are none.
    """
    keys = sorted(method.keys() & baseline.keys())
    if not keys:
        return None
    deltas = np.array([method[key] - baseline[key] for key in keys])
    mean = float(deltas.mean())
    if len(keys) == 1:
        return Difference(mean, math.nan, math.nan, 1)
    error = deltas.std(ddof=1) / math.sqrt(len(keys))
    margin = stats.t.ppf((1.0 + _CONFIDENCE) / 2.0, len(keys) - 1) * error
    return Difference(
        mean, float(mean - margin), float(mean + margin), len(keys)
    )
