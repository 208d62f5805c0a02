import numpy as np
import pytest

from data.lidar import examples


def _example(points=((1.0, 2.0, 3.0, 0.5, 0.0),), boxes=()):
    points = np.array(points, np.float32).reshape(-1, 5)
    boxes = np.array(boxes, np.float32).reshape(-1, 7)
    return {"points": points, "boxes": boxes}


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (_example(points=()), "got no lidar points"),
        (_example(points=[[0, 0, 0, 1, 0], [0, np.inf, 0, 1, 0]]), "point 1"),
        (_example(points=[[0, 0, 0, np.nan, 0]]), "intensity nan"),
        (_example(boxes=[[1] * 7, [1, 1, np.nan, 1, 1, 1, 1]]), "box 1.*z nan"),
        (_example(boxes=[[1, 1, 1, 1, -0.5, 1, 1]]), "width -0.5"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(example, message):
    with pytest.raises(examples.LidarDataError, match=message):
        examples.check(example)


def test_a_place_comes_first():
    with (
        pytest.raises(examples.LidarDataError, match=r"^a: b: c\.$"),
        examples.located("a"),
        examples.located("b"),
    ):
        raise examples.LidarDataError("c.")
