"""Pictures of frames in bird's eye view."""

import dataclasses

import numpy as np
from matplotlib import axes as axes_module
from matplotlib import collections as line_collections
from matplotlib import figure as matplotlib_figure

from trainers import drawing

_TRUE, _PREDICTED = drawing.GREEN, drawing.RED
_HALF_SIDES = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1)]) / 2


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A frame to draw.

    Attributes:
        title: Which frame it is.
        points: `[N, 3]` or more columns.
        true_boxes: `[M, 7]`.
        predicted_boxes: `[K, 7]`.
        scores: Of the predicted boxes, `[K]`.
        x_range: First and last x in metres.
        y_range: First and last y in metres.
    """

    title: str
    points: np.ndarray
    true_boxes: np.ndarray
    predicted_boxes: np.ndarray
    scores: np.ndarray
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def birds_eye_view(picture: Picture) -> matplotlib_figure.Figure:
    """Draws a frame from above: x to the right, y up.

    Points are grey, ground-truth boxes green and predicted ones red, the
    fainter the lower their score. A line goes from a box's middle to its front.

    Args:
        picture: What to draw.

    Returns:
        The figure.
    """
    extents = [np.ptp(picture.x_range), np.ptp(picture.y_range)]
    width, height = 7.2 * np.array(extents) / max(extents)
    figure = matplotlib_figure.Figure(
        (width, height + 0.6), layout="constrained"
    )
    axes = figure.subplots()
    axes.scatter(
        picture.points[:, 0], picture.points[:, 1],
        s=0.3, color="#999999", linewidths=0.0, rasterized=True,
    )  # fmt: skip
    true, predicted = picture.true_boxes, picture.predicted_boxes
    # Wide enough to be seen behind a prediction in the same place.
    _add_boxes(
        axes, true, f"true ({len(true)})", _TRUE, 2.2, np.ones(len(true))
    )
    _add_boxes(
        axes,
        predicted,
        f"predicted ({len(predicted)}), fainter: lower score",
        _PREDICTED,
        1.1,
        0.1 + 0.9 * picture.scores,
    )
    axes.set(
        title=picture.title, xlabel="x in m", ylabel="y in m",
        xlim=picture.x_range, ylim=picture.y_range, aspect="equal",
    )  # fmt: skip
    axes.title.set_fontsize(9)
    axes.tick_params(labelsize=8)
    legend = axes.legend(loc="upper right", fontsize=8, framealpha=0.9)
    for handle in legend.legend_handles:
        handle.set_alpha(1.0)
    return figure


def _add_boxes(
    axes: axes_module.Axes,
    boxes: np.ndarray,
    label: str,
    colour: str,
    linewidth: float,
    opacities: np.ndarray,
) -> None:
    axes.add_collection(
        line_collections.LineCollection(
            outlines(boxes),
            colors=colour,
            linewidths=linewidth,
            alpha=np.repeat(opacities, 2) if len(boxes) else None,
            label=label,
        )
    )


def outlines(boxes: np.ndarray) -> list[np.ndarray]:
    """Makes the lines of boxes from above.

    Args:
        boxes: `[M, 7]`.

    Returns:
        For each box its outline `[5, 2]`, and the line to its front `[2, 2]`.
    """
    lines = []
    for x, y, _, length, width, _, heading in np.reshape(boxes, (-1, 7)):
        cosine, sine = np.cos(heading), np.sin(heading)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        ends = np.array([(0.0, 0.0), (length / 2, 0.0)])
        for shape in (_HALF_SIDES * (length, width), ends):
            lines.append(shape @ turn + (x, y))
    return lines
