"""What each method makes of two conflicting gradients, in a picture."""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib import axes as matplotlib_axes
from matplotlib import figure as matplotlib_figure
from matplotlib import patches

import graddrop_tf as gd

# They disagree in the first coordinate and agree in the second; their sum
# raises the second loss.
GRADIENTS = np.array([[4.0, 1.0], [-2.0, 1.0]])
PICTURED = (
    "baseline",
    "graddrop",
    "random_graddrop",
    "pcgrad",
    "mgda",
    "gradnorm",
)
_NUM_DRAWS = 100_000
_NUM_STEPS = 200
_RAREST = 0.01
# Read on a white page and on a black one.
_INK, _FIRST, _SECOND, _RESULT = "#7d8894", "#2f8fd8", "#d9691e", "#12a37a"
_WIDTH, _ROW_HEIGHT = 7.6, 1.72
_COLUMNS = 3
_LIMITS = (-3.4, 4.9), (-0.72, 4.2)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A gradient that a method may pass on.

    Attributes:
        gradient: `[2]`.
        probability: How often a step ends in it.
    """

    gradient: np.ndarray
    probability: float


def outcomes(recipe: gd.Recipe) -> list[Outcome]:
    """Computes what a recipe makes of `GRADIENTS`, by carrying it out.

    The activation holds many copies of the two coordinates, so that a method
    that draws at every position shows all its outcomes in one step. A
    weighting takes many steps, in which both losses stay as they are.

    Args:
        recipe: The recipe.

    Returns:
        The outcomes, in ascending order of their first coordinate.
    """
    # The norms of the gradients are those of a single copy.
    scale = _NUM_DRAWS**-0.5
    rows = tf.unstack(tf.constant(GRADIENTS * scale, tf.float32))
    activations = keras.Variable(np.ones([1, _NUM_DRAWS, 2], np.float32))
    state = recipe.build(num_losses=len(rows))
    for _ in range(1 if recipe.weighting is None else _NUM_STEPS):
        with tf.GradientTape(persistent=True) as tape:
            shared = tf.identity(activations.value)
            losses = [1.0 + tf.reduce_sum((shared - 1.0) * row) for row in rows]
        (grads,) = gd.compute_gradients(
            tape, losses, shared, [activations], state
        )
    found, counts = np.unique(
        (grads[0] / scale).numpy().round(3), axis=0, return_counts=True
    )
    return [
        Outcome(gradient, share)
        for gradient, share in zip(found, counts / _NUM_DRAWS, strict=True)
        if share > _RAREST
    ]


def draw(
    methods: Sequence[str] = PICTURED,
) -> matplotlib_figure.Figure:
    """Draws the outcomes of methods, a panel each.

    Args:
        methods: Recipes.

    Returns:
        The figure.
    """
    results = {name: outcomes(gd.Recipe.parse(name)) for name in methods}
    num_rows = -(-len(results) // _COLUMNS)
    figure = matplotlib_figure.Figure(
        (_WIDTH, 0.5 + _ROW_HEIGHT * num_rows), layout="constrained"
    )
    figure.get_layout_engine().set(h_pad=0.06)
    figure.patch.set_visible(False)
    grid = figure.subplots(num_rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, found) in zip(grid.flat, results.items(), strict=False):
        _draw_panel(axes, name, found)
    _add_legend(figure)
    return figure


def _draw_panel(
    axes: matplotlib_axes.Axes, name: str, found: Sequence[Outcome]
) -> None:
    axes.set(xlim=_LIMITS[0], ylim=_LIMITS[1], aspect="equal")
    axes.set_title(name, fontsize=10, fontweight="bold", color=_INK)
    axes.add_patch(_both_fall())
    axes.axhline(0.0, color=_INK, linewidth=0.5, alpha=0.6)
    axes.axvline(0.0, color=_INK, linewidth=0.5, alpha=0.6)
    for outcome in found:
        _arrow(axes, outcome.gradient, _RESULT, 2.6, 0.9)
    for gradient, colour in zip(GRADIENTS, (_FIRST, _SECOND), strict=True):
        _arrow(axes, gradient, colour, 1.3, 1.0)
    if len(found) > 1:
        for outcome in found:
            _label(axes, outcome)


def _arrow(axes, tip, colour: str, width: float, alpha: float) -> None:
    axes.annotate(
        "", tip, (0.0, 0.0),
        arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": width,
            "mutation_scale": 6.0 + 3.0 * width, "alpha": alpha,
            "shrinkA": 0.0, "shrinkB": 0.0,
        },
    )  # fmt: skip


def _label(axes, outcome: Outcome) -> None:
    """Writes the probability of an outcome next to its tip."""
    x, y = outcome.gradient
    side = 1 if y > 0 else -1
    axes.text(
        x, y + 0.22 * side, f"{100.0 * outcome.probability:.0f} %",
        color=_RESULT, fontsize=8.5, fontweight="bold",
        ha="center", va="bottom" if side > 0 else "top",
    )  # fmt: skip


def _both_fall() -> patches.Polygon:
    """Shades the gradients whose small step lowers both losses."""
    (a, b), (c, d) = GRADIENTS
    corners = 100.0 * np.array([[0.0, 0.0], [-b, a], [d, -c]])
    return patches.Polygon(corners, color=_RESULT, alpha=0.16, linewidth=0.0)


def _add_legend(figure: matplotlib_figure.Figure) -> None:
    lines = {
        "gradient of loss 1": _FIRST,
        "gradient of loss 2": _SECOND,
        "gradient that the trunk receives": _RESULT,
    }
    handles = [
        patches.Patch(color=colour, label=text)
        for text, colour in lines.items()
    ]
    handles.append(
        patches.Patch(color=_RESULT, alpha=0.2, label="lowers both losses")
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False,
        fontsize=8.5, labelcolor=_INK, handlelength=1.0,
    )  # fmt: skip
