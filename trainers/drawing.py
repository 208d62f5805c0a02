"""Colours, axes and rendering for all plots."""

import base64
import io

import matplotlib
from matplotlib import axes as matplotlib_axes
from matplotlib import figure as matplotlib_figure

GREY, BLUE, ORANGE, GREEN, PINK, RED = (
    "#4d4d4d", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00",
)  # fmt: skip
COLOURS = (
    GREY, BLUE, ORANGE, GREEN, PINK, RED,
    "#56b4e9", "#8c6d31", "#7b4fa3", "#a50026",
)  # fmt: skip


def colour(index: int) -> str:
    """Returns the colour of the line with this index; they repeat."""
    return COLOURS[index % len(COLOURS)]


def simplify(axes: matplotlib_axes.Axes, grid: str = "y") -> None:
    """Removes the box around axes and adds thin grid lines.

    Args:
        axes: The axes.
        grid: The axis whose ticks get grid lines: "x", "y" or "both".
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def png(drawing: matplotlib_figure.Figure) -> bytes:
    """Renders a figure as PNG."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def data_url(image: bytes) -> str:
    """Encodes a PNG as a URL that an HTML page can embed."""
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"


def svg(drawing: matplotlib_figure.Figure) -> bytes:
    """Renders a figure as SVG, the same bytes every time."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "graddrop_tf"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
