import subprocess
import sys

import numpy as np

from tests.trainers.detection import waymo
from trainers.detection import metric, precision_recall


def test_each_panel_shows_a_level_and_each_line_a_range():
    predictions, ground_truths, arrays = waymo.load("all_types")
    measured = metric.DetectionMetric()
    measured.update(predictions, ground_truths)
    drawing = precision_recall.precision_over_recall(
        measured.result(), "PEDESTRIAN"
    )
    # The rows of pedestrians: all ranges, then each of the three.
    rows = np.array([2, 14, 16, 18])
    pr, prh = arrays["TYPE_3D/pr"], arrays["TYPE_3D/prh"]
    for level, axes in enumerate(drawing.axes):
        assert axes.get_title() == f"LEVEL_{level + 1}"
        assert axes.get_xlabel() == "recall"
        lines = iter(axes.get_lines())
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        for row, label in zip(rows + level, labels, strict=True):
            for line, precision in (
                (next(lines), pr[row, :, 0]),
                (next(lines), prh[row, :, 0]),
            ):
                recall, shown = line.get_data()
                np.testing.assert_allclose(recall, pr[row, :, 1], atol=1e-6)
                np.testing.assert_allclose(shown, precision, atol=1e-6)
            assert f"AP {arrays['TYPE_3D/ap'][row]:.3f}, " in label
            assert f"APH {arrays['TYPE_3D/aph'][row]:.3f}" in label
    assert drawing.axes[0].get_ylabel() == "precision"


def test_the_metric_needs_no_tensorflow():
    code = (
        "import sys; import trainers.detection.evaluation; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
