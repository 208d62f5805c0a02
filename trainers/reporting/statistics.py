"""Means, spreads, and whether two methods differ."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a method lies from the baseline, sample by paired sample.

    Attributes:
        mean: Mean of (method - baseline).
        low: Lower end of its 95 % interval (paired t); NaN for one pair.
        high: Upper end.
        num_pairs: How many samples both have.
    """

    mean: float
    low: float
    high: float
    num_pairs: int

    def verdict(self, lower_is_better: bool) -> str:
        """Says in a few words what can be concluded."""
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
    """Sets a method against the baseline.

    Samples of the same key started alike (same seed, same initial weights),
    so their difference is free of what both share.

    Args:
        method: Samples of the method.
        baseline: Samples of the baseline.

    Returns:
        The difference over the keys that both have; None if there are none.
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


def mean_and_deviation(samples: np.ndarray, digits: int = 3) -> str:
    """Writes mean and standard deviation (of a sample, n - 1)."""
    mean = f"{samples.mean():.{digits}f}"
    if samples.size == 1:
        return f"{mean} (one sample)"
    return f"{mean} ± {samples.std(ddof=1):.{digits}f}"


def percent(samples: np.ndarray) -> str:
    """Writes mean and standard deviation of percentages."""
    return mean_and_deviation(samples, 2)


def whole(samples: np.ndarray) -> str:
    """Writes mean and standard deviation of whole numbers."""
    return mean_and_deviation(samples, 0)


def median(samples: np.ndarray) -> str:
    """Writes the median."""
    return f"{np.median(samples):.3f}"


def extremes(samples: np.ndarray) -> str:
    """Writes the smallest and the largest sample."""
    return f"{samples.min():.3f} to {samples.max():.3f}"


def hits(samples: np.ndarray) -> str:
    """Writes how many of the samples are one, the others being zero."""
    return f"{100.0 * samples.mean():.1f} % ({samples.sum():.0f})"
