"""Plots of the report: arrays in, a figure out."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure as matplotlib_figure

from trainers import drawing

_WIDTH = 7.2
# In letters: the length of a line in a legend, and of the key in it.
_LEGEND_LINE = 118
_LEGEND_KEY = 8


def landscape(
    grid: np.ndarray, values: np.ndarray, minimum: float
) -> matplotlib_figure.Figure:
    """Draws losses `[n, T]` over a grid `[n]`, and their sum."""
    figure, axes = _axes(3.6)
    for column, loss in enumerate(values.T):
        axes.plot(
            grid, loss, color=drawing.colour(column + 1),
            alpha=0.45, linewidth=0.9,
        )  # fmt: skip
    axes.plot(
        grid, values.sum(axis=1), color="black", linewidth=1.8, label="sum"
    )
    axes.axhline(
        minimum, color="black", linestyle=":", linewidth=1.0,
        label="global minimum",
    )  # fmt: skip
    axes.set(xlabel="w", ylabel="loss", xlim=(grid[0], grid[-1]))
    _legend(figure, axes)
    return figure


def panels(
    series: Mapping[str, np.ndarray], x_label: str, y_label: str, floor: float
) -> matplotlib_figure.Figure:
    """Draws a noisy curve `[n]` for each name in a separate panel, log x."""
    names = list(series)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = matplotlib_figure.Figure(
        (_WIDTH, 0.5 + 1.75 * rows), layout="constrained"
    )
    grid = figure.subplots(
        rows, columns, sharex=True, sharey=True, squeeze=False
    )
    for index, axes in enumerate(grid.flat):
        if index >= len(names):
            axes.set_axis_off()
            continue
        values = series[names[index]]
        axes.plot(
            np.arange(1, values.size + 1), values,
            color=drawing.colour(index), linewidth=0.8,
        )  # fmt: skip
        axes.axhline(floor, color="black", linestyle=":", linewidth=0.9)
        axes.set_xscale("log")
        axes.set_title(names[index], fontsize=9)
        drawing.simplify(axes)
    figure.supxlabel(x_label, fontsize=9)
    figure.supylabel(y_label, fontsize=9)
    return figure


def boxes(
    samples: Mapping[str, np.ndarray], y_label: str, floor: float
) -> matplotlib_figure.Figure:
    """Draws a box for each name; the dotted line is `floor`."""
    figure, axes = _axes(3.8)
    parts = axes.boxplot(
        list(samples.values()),
        tick_labels=list(samples),
        patch_artist=True,
        showmeans=True,
        widths=0.55,
        medianprops={"color": "black"},
        meanprops={
            "marker": "D", "markersize": 4,
            "markerfacecolor": "white", "markeredgecolor": "black",
        },
        flierprops={"marker": ".", "markersize": 3, "alpha": 0.5},
    )  # fmt: skip
    for index, box in enumerate(parts["boxes"]):
        box.set(facecolor=drawing.colour(index), alpha=0.55)
    axes.axhline(
        floor, color="black", linestyle=":", linewidth=1.0,
        label="global minimum",
    )  # fmt: skip
    axes.set_ylabel(y_label)
    _slant(axes)
    _legend(figure, axes)
    return figure


def bands(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str,
    y_scale: str = "log",
) -> matplotlib_figure.Figure:
    """Draws the mean and a band of one deviation: x `[n]`, y `[seeds, n]`."""
    figure, axes = _axes(3.8)
    for index, (name, (x, y)) in enumerate(series.items()):
        mean = y.mean(axis=0)
        axes.plot(
            x, mean, color=drawing.colour(index), marker=".", linewidth=1.4,
            label=name,
        )  # fmt: skip
        if len(y) > 1:
            deviation = y.std(axis=0, ddof=1)
            axes.fill_between(
                x, mean - deviation, mean + deviation,
                color=drawing.colour(index), alpha=0.12, linewidth=0.0,
            )  # fmt: skip
    axes.set(xlabel=x_label, ylabel=y_label, yscale=y_scale)
    axes.yaxis.set_major_formatter("{x:g}")
    if y_scale == "log":
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="y", which="minor", labelsize=7)
    _legend(figure, axes)
    return figure


def dots(
    samples: Mapping[str, np.ndarray], y_label: str
) -> matplotlib_figure.Figure:
    """Draws every sample, mean and deviation, and a band for the first name."""
    figure, axes = _axes(3.6)
    for index, values in enumerate(samples.values()):
        deviation = values.std(ddof=1) if values.size > 1 else 0.0
        if index == 0:
            axes.axhspan(
                values.mean() - deviation, values.mean() + deviation,
                color=drawing.GREY, alpha=0.12, linewidth=0.0,
            )  # fmt: skip
        axes.errorbar(
            index, values.mean(), deviation,
            fmt="_", markersize=18, capsize=5, color=drawing.colour(index),
        )  # fmt: skip
        spread = np.linspace(-0.12, 0.12, values.size + 2)[1:-1]
        axes.plot(
            index + spread, values, "o", color=drawing.colour(index),
            markersize=5, alpha=0.7, markeredgewidth=0.0,
        )  # fmt: skip
    axes.set_xticks(range(len(samples)), list(samples))
    axes.set_ylabel(y_label)
    _slant(axes)
    return figure


def gallery(
    images: np.ndarray, titles: Sequence[str]
) -> matplotlib_figure.Figure:
    """Draws small grey images `[n, height, width]` with their titles."""
    columns = min(6, len(images))
    rows = -(-len(images) // columns)
    figure = matplotlib_figure.Figure(
        (_WIDTH, 1.35 * rows), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image, cmap="gray_r", vmin=0.0, vmax=1.0)
        axes.set_title(title, fontsize=9)
    return figure


def _axes(height: float):
    figure = matplotlib_figure.Figure((_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    drawing.simplify(axes)
    return figure, axes


def _slant(axes) -> None:
    for label in axes.get_xticklabels():
        label.set(rotation=20, horizontalalignment="right", fontsize=8)


def _legend(figure, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    widest = max(map(len, labels), default=0) + _LEGEND_KEY
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(4, max(1, _LEGEND_LINE // widest)),
        frameon=False,
        fontsize=8,
    )
