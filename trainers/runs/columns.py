"""Columns and figures that an experiment adds to the report."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib import figure as matplotlib_figure


def mean_and_deviation(samples: np.ndarray, digits: int = 3) -> str:
    """Formats the mean and the sample standard deviation (n - 1)."""
    mean = f"{samples.mean():.{digits}f}"
    if samples.size == 1:
        return f"{mean} (one sample)"
    return f"{mean} ± {samples.std(ddof=1):.{digits}f}"


def percent(samples: np.ndarray) -> str:
    """Formats the mean and the standard deviation of percentages."""
    return mean_and_deviation(samples, 2)


def whole(samples: np.ndarray) -> str:
    """Formats the mean and the standard deviation of whole numbers."""
    return mean_and_deviation(samples, 0)


def median(samples: np.ndarray) -> str:
    """Formats the median."""
    return f"{np.median(samples):.3f}"


def extremes(samples: np.ndarray) -> str:
    """Formats the smallest and the largest sample."""
    return f"{samples.min():.3f} to {samples.max():.3f}"


def hits(samples: np.ndarray) -> str:
    """Formats the share and the number of ones among ones and zeros."""
    return f"{100.0 * samples.mean():.1f} % ({samples.sum():.0f})"


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of an experiment's table.

    Attributes:
        metric: The metric whose samples the column shows.
        label: Heading of the column, with the unit.
        show: Formats the samples `[n]`.
        paper: The published number, by method.
    """

    metric: str
    label: str
    show: Callable[[np.ndarray], str] = mean_and_deviation
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Figure:
    """A plot of the report.

    Attributes:
        name: Name of its file, without the suffix.
        caption: One or two sentences about the plot.
        drawing: The plot.
    """

    name: str
    caption: str
    drawing: matplotlib_figure.Figure
