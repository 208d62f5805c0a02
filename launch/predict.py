"""Predicts with the model of a run.

python -m launch.predict --run_dir=RUN --images=DIR --out=FILE.csv
python -m launch.predict --run_dir=RUN --scans=000000.bin --out=FILE.csv

Of images, FILE.csv has a row for each, and a column for each output of the
model: the probability of an attribute or a class. Files that cannot be read are
named and left out.

Of lidar frames it has a row for each box that the detector finds, a run of
--experiment=waymo. As in training, points in no-label zones are left out. In
scans of KITTI these are the points outside of the camera's image, which the
calibration tells: of velodyne/000000.bin that is calib/000000.txt in the folder
beside velodyne. Without that file all points are used, and a line says so.
"""

import functools
import pathlib

from absl import flags

from data.lidar import examples
from launch import command
from trainers import errors
from trainers.experiments import registry
from trainers.experiments.waymo import box_predictions
from trainers.runs import image_predictions, serving, trained

_PLACES = ("images", "scans", "segments")
_IMAGE_RANK = 4

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "run_dir", None, "Required. The run directory.", flag_values=FLAGS
)
flags.DEFINE_string(
    "images", None, "The folder of the images.", flag_values=FLAGS
)
flags.DEFINE_string(
    "scans", None, "A *.bin file of KITTI, or a folder of them.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "segments", None, "Segments of Waymo, as in launch.prepare_waymo.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "out", None, "Required. The CSV file to write.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "draw", 1, "Of lidar frames: how many to draw, beside --out.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "step", None, "As in launch.export.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string("data_dir", None, "As in launch.export.", flag_values=FLAGS)


@command.with_flags(FLAGS, __doc__, "run_dir", "out")
def main() -> int:
    """Runs the command."""
    given = [name for name in _PLACES if FLAGS[name].value is not None]
    if len(given) != 1:
        raise errors.UserError(
            f"{', '.join(f'--{name}' for name in _PLACES)}: got "
            f"{len(given)} of them, expected one."
        )
    directory = pathlib.Path(FLAGS.run_dir)
    found = trained.load(
        directory, registry.EXPERIMENTS, FLAGS.step, FLAGS.data_dir
    )
    takes_points = isinstance(found.model, serving.Endpoint)
    if not takes_points and len(found.model.inputs[0].shape) != _IMAGE_RANK:
        raise errors.UserError(
            f"--run_dir: the model of {directory} takes neither images nor "
            "lidar frames; load it with Keras."
        )
    if takes_points == (given == ["images"]):
        kind = "lidar frames" if takes_points else "images"
        raise errors.UserError(
            f"--{given[0]}: the model of {directory} takes {kind}."
        )
    report = functools.partial(print, flush=True)
    out = pathlib.Path(FLAGS.out)
    if takes_points:
        done = f"{_find_boxes(found.model, out, report):,} boxes"
    else:
        number, bad = image_predictions.predict(
            found.model, pathlib.Path(FLAGS.images), out, report
        )
        done = f"{number:,} images" + (f", {bad:,} left out" if bad else "")
    print(f"Written: {out} ({done})")
    return 0


def _find_boxes(model: serving.Endpoint, out: pathlib.Path, report) -> int:
    run = trained.read_run(pathlib.Path(FLAGS.run_dir), registry.EXPERIMENTS)
    if FLAGS.scans is not None:
        frames = box_predictions.kitti_scans(pathlib.Path(FLAGS.scans), report)
    else:
        frames = box_predictions.waymo_frames(FLAGS.segments)
    preset = run.config.detector_preset
    try:
        return box_predictions.predict(
            model, preset, frames, out, FLAGS.draw, report
        )
    except examples.LidarDataError as error:
        raise errors.UserError(str(error)) from None


if __name__ == "__main__":
    command.run(main)
