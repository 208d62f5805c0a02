"""Measures detections with the Waymo Open Dataset's metric.

python -m launch.evaluate --predictions=PRED --ground_truths=TRUTH

Reads official `Objects` files (.bin) or files with the official op's arguments
(.npz), and reports AP and APH by the official names of the breakdowns, as the
official command-line tool does. True boxes without lidar points are left out.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from launch import command
from trainers.detection import average_precision, boxes, evaluation

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "predictions", None, "Required; a .bin or .npz file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "ground_truths", None, "Required; a .bin or .npz file.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "box_type", "3d", boxes.BOX_TYPES,
    "Whether boxes are compared in 3D or in bird's eye view.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "ap_rule", "2022", average_precision.AP_RULES,
    "How precision and recall become AP: as in the official op since February "
    "2022, or as before, in the time of the published figures of 2020.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "workers", os.cpu_count(), "How many threads share the frames.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "json", None, "Also write AP and APH to this file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "plots", None, "Also write plots of precision over recall to this folder.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "objects", None,
    "Also write the predictions to this file, as official `Objects`.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "official_python", None,
    "A Python interpreter that can load the official op (TensorFlow 2.13 to "
    "2.15); its numbers are shown beside ours.",
    flag_values=FLAGS,
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    FLAGS.unparse_flags()
    parsed = command.parse(FLAGS, arguments, __doc__)
    if parsed is None:
        return 0
    positional, texts = parsed
    command.refuse_positional([*positional, *texts])
    command.require(FLAGS, "predictions", "ground_truths")
    print(
        evaluation.Evaluation(
            predictions_path=pathlib.Path(FLAGS.predictions),
            ground_truths_path=pathlib.Path(FLAGS.ground_truths),
            box_type=FLAGS.box_type,
            ap_rule=FLAGS.ap_rule,
            num_workers=FLAGS.workers,
            official_python=FLAGS.official_python,
            json_path=_path(FLAGS.json),
            plots_folder=_path(FLAGS.plots),
            objects_path=_path(FLAGS.objects),
        ).execute()
    )
    return 0


def _path(text: str | None) -> pathlib.Path | None:
    return None if text is None else pathlib.Path(text)


if __name__ == "__main__":
    command.run(main)
