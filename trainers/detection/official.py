"""The official op, in an interpreter that can load it.

The compiled op of the official package runs on TensorFlow 2.13 to 2.15 only.
Whoever has such an environment can set its results beside ours.
"""

import json
import os
import pathlib
import subprocess
import tempfile

from trainers import errors
from trainers.detection import box_files, boxes, breakdowns

# The op runs on CPUs, and our packages are not for that interpreter.
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONPATH": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_SCRIPT = pathlib.Path(__file__).with_name("official_op.py")


def evaluate(
    python: str,
    predictions: boxes.Predictions,
    ground_truths: boxes.GroundTruths,
) -> dict[str, dict[str, float]]:
    """Runs the official op.

    Args:
        python: An interpreter with the official package.
        predictions: Predicted boxes, all in 3D or all in 2D.
        ground_truths: True boxes of the same kind.

    Returns:
        AP and APH by the official name of the breakdown.

    Raises:
        UserError: Where the interpreter or the op fails.
    """
    box_type = "TYPE_3D" if predictions.bbox.shape[1] == 7 else "TYPE_2D"
    with tempfile.TemporaryDirectory() as folder:
        arguments = pathlib.Path(folder, "arguments.npz")
        results = pathlib.Path(folder, "results.json")
        box_files.write_arguments(arguments, predictions, ground_truths)
        try:
            done = subprocess.run(
                [python, _SCRIPT, arguments, results, box_type],
                capture_output=True,
                text=True,
                errors="replace",
                env={**os.environ, **_ENVIRONMENT},
            )
        except OSError as error:
            raise errors.UserError(
                f"{python}: {error.strerror or error}; expected a Python "
                "interpreter with the official package."
            ) from None
        if done.returncode or not results.exists():
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise errors.UserError(
                f"{python}: the official op failed ({said[-1]}); it needs the "
                "official package and TensorFlow 2.13 to 2.15."
            )
        found = json.loads(results.read_text())
    missing = set(breakdowns.BREAKDOWNS) - found.keys()
    if missing:
        raise errors.UserError(
            f"{python}: the official op gave no {min(missing)}; install "
            "release 1.6.7 of the official package."
        )
    return found
