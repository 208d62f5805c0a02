"""Plots of precision over recall."""

from matplotlib import figure as matplotlib_figure

from trainers import drawing
from trainers.detection import breakdowns, metric

_COLOURS = ("black", drawing.BLUE, drawing.ORANGE, drawing.GREEN)


def precision_over_recall(
    results: metric.Results, type_name: str
) -> matplotlib_figure.Figure:
    """Draws the curves of one type of objects, a panel for each level.

    Lines are precision; dashed, each true positive counts as much as its
    heading is right.

    Args:
        results: What to draw.
        type_name: One of `labels.TYPES` but the first.

    Returns:
        The figure.
    """
    figure = matplotlib_figure.Figure((9.6, 4.6), layout="constrained")
    figure.suptitle(
        f"{type_name.lower()} (dashed: weighted by heading)", fontsize=10
    )
    panels = figure.subplots(
        1, len(breakdowns.LEVELS), sharex=True, sharey=True
    )
    for level, axes in zip(breakdowns.LEVELS, panels, strict=True):
        for colour, range_name in zip(
            _COLOURS, (None, *breakdowns.RANGES), strict=True
        ):
            row = breakdowns.row(type_name, level, range_name)
            place = "all" if range_name is None else f"{range_name} m"
            axes.plot(
                results.recall[row], results.precision[row], color=colour,
                label=f"{place}: AP {results.ap[row]:.3f}, "
                f"APH {results.aph[row]:.3f}",
            )  # fmt: skip
            axes.plot(
                results.recall[row], results.heading_precision[row],
                color=colour, linestyle="--", linewidth=0.9,
            )  # fmt: skip
        axes.set(
            title=f"LEVEL_{level}", xlabel="recall",
            xlim=(0.0, 1.0), ylim=(0.0, 1.02),
        )  # fmt: skip
        drawing.simplify(axes, grid="both")
        axes.legend(frameon=False, fontsize=8, loc="lower left")
    panels[0].set_ylabel("precision")
    return figure
