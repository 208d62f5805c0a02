import math

import numpy as np

from trainers import drawing
from trainers.detection import pictures


def test_outlines_by_hand():
    # Two metres long, one wide, turned to the left: its front is at y = 4.
    outline, ahead = pictures.outlines(
        np.array([[2.0, 3.0, 9.0, 2.0, 1.0, 9.0, math.pi / 2]])
    )
    corners = {tuple(corner) for corner in np.round(outline, 6).tolist()}
    assert corners == {(1.5, 4.0), (2.5, 4.0), (1.5, 2.0), (2.5, 2.0)}
    np.testing.assert_allclose(outline[0], outline[-1])
    # Neighbours share a side, and no diagonal is drawn.
    lengths = np.linalg.norm(np.diff(outline, axis=0), axis=1)
    np.testing.assert_allclose(sorted(lengths), [1.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(ahead, [(2.0, 3.0), (2.0, 4.0)], atol=1e-9)


def _picture(num_true, num_predicted):
    return pictures.Picture(
        title="segment, frame",
        points=np.zeros((3, 3)),
        true_boxes=np.ones((num_true, 7)),
        predicted_boxes=np.ones((num_predicted, 7)),
        scores=np.linspace(0.0, 1.0, num_predicted),
        x_range=(0.0, 10.0),
        y_range=(-5.0, 5.0),
    )


def test_better_boxes_are_drawn_more_boldly():
    figure = pictures.birds_eye_view(_picture(1, 3))
    (axes,) = figure.axes
    _, true, predicted = axes.collections
    assert true.get_label() == "true (1)"
    assert predicted.get_label() == "predicted (3), fainter: lower score"
    assert len(predicted.get_segments()) == 6
    np.testing.assert_allclose(
        predicted.get_alpha(), [0.1, 0.1, 0.55, 0.55, 1.0, 1.0]
    )
    for handle in axes.get_legend().legend_handles:
        assert handle.get_alpha() == 1.0
    assert axes.get_xlim() == (0.0, 10.0)
    assert axes.get_ylim() == (-5.0, 5.0)
    assert axes.get_title() == "segment, frame"


def test_a_frame_without_boxes_is_drawn():
    figure = pictures.birds_eye_view(_picture(0, 0))
    assert drawing.png(figure).startswith(b"\x89PNG")
