"""Measures detections with the Waymo Open Dataset's metric.

python -m launch.evaluate --predictions=PRED --ground_truths=TRUTH
python -m launch.evaluate --run_dir=RUN [--data_dir=DATA] [--draw=4]

The first form reads official `Objects` files (.bin) or files with the arguments
of the official op (.npz). The second measures the last checkpoint of a run of
--experiment=waymo. Both report AP and APH under the official names of the
breakdowns: of the types that the detector of the run predicts, or that occur in
the files. Ground-truth boxes without lidar points are left out.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from launch import command
from trainers import drawing, errors, files
from trainers.detection import average_precision, boxes, evaluation, pictures
from trainers.experiments.waymo import trained as waymo_runs

_FILES = ("predictions", "ground_truths")
_OF_RUNS = ("data_dir", "split", "draw", "min_points")

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "predictions",
    None,
    "The predicted boxes, a .bin or .npz file.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "ground_truths",
    None,
    "The ground-truth boxes, a .bin or .npz file.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "run_dir", None, "A run directory, instead of files.", flag_values=FLAGS
)
flags.DEFINE_string(
    "data_dir", None, "For --run_dir: the folder of the prepared data sets.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "split", None,
    "For --run_dir: the split to measure; by default the run's own test split.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "draw", None,
    "For --run_dir: also draw this many frames in bird's eye view, into "
    "--plots or the folder `pictures` of the run directory.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "min_points", None,
    "For --run_dir: boxes with fewer points count as LEVEL_2, all others as "
    "LEVEL_1.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float(
    "vehicle_iou", evaluation.OFFICIAL_VEHICLE_IOU,
    "The smallest IoU at which vehicles match.",
    lower_bound=0.0, upper_bound=1.0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "box_type", "3d", boxes.BOX_TYPES,
    "Compares boxes in 3D, or in bird's eye view.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "ap_rule", "2022", average_precision.AP_RULES,
    "The rule that turns precision and recall into AP: that of the official op "
    "since February 2022, or the older one of the numbers published in 2020.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "workers", os.cpu_count(), "Number of threads.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "json", None, "Also write AP and APH of all breakdowns to this file.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "plots", None, "Also plot precision over recall into this folder.",
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
    "2.15); shows its numbers next to those of this package.",
    flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__)
def main() -> int:
    """Runs the command."""
    measured = evaluation.Evaluation(
        box_type=FLAGS.box_type,
        ap_rule=FLAGS.ap_rule,
        vehicle_iou=FLAGS.vehicle_iou,
        num_workers=FLAGS.workers,
        official_python=FLAGS.official_python,
        json_path=_path(FLAGS.json),
        plots_folder=_path(FLAGS.plots),
        objects_path=_path(FLAGS.objects),
    )
    if FLAGS.run_dir is None:
        command.require(FLAGS, *_FILES)
        _refuse(_OF_RUNS, "belongs to --run_dir")
        print(
            measured.compare_files(
                *(_path(FLAGS[name].value) for name in _FILES)
            )
        )
        return 0
    _refuse(_FILES, "does not go with --run_dir")
    trained = waymo_runs.TrainedDetector(
        _path(FLAGS.run_dir), FLAGS.data_dir, FLAGS.split, FLAGS.min_points or 0
    )
    scenes, drawn = trained.evaluate(FLAGS.draw or 0)
    sources = (FLAGS.run_dir, FLAGS.run_dir)
    print(measured.compare_scenes(scenes, sources, waymo_runs.TYPE_NAMES))
    folder = _path(FLAGS.plots) or trained.directory / "pictures"
    for index, picture in enumerate(drawn):
        path = folder / f"frame_{index}.png"
        with files.replacing(path) as file:
            file.write(drawing.png(pictures.birds_eye_view(picture)))
        print(f"Written: {path}")
    return 0


def _refuse(names: Sequence[str], reason: str) -> None:
    for name in names:
        if FLAGS[name].value is not None:
            raise errors.UserError(f"--{name}: {reason}; leave it out.")


def _path(text: str | None) -> pathlib.Path | None:
    return None if text is None else pathlib.Path(text)


if __name__ == "__main__":
    command.run(main)
