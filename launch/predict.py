"""Predicts with the model of a run, for all images of a folder.

python -m launch.predict --run_dir=RUN --images=DIR --out=FILE.csv

FILE.csv has a row for each image, and a column for each output of the model:
the probability of an attribute or a class. Files that cannot be read are named
and left out.
"""

import functools
import pathlib

from absl import flags

from launch import command
from trainers.experiments import registry
from trainers.runs import image_predictions, trained

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "run_dir", None, "Required. The run directory.", flag_values=FLAGS
)
flags.DEFINE_string(
    "images", None, "Required. The folder of the images.", flag_values=FLAGS
)
flags.DEFINE_string(
    "out", None, "Required. The CSV file to write.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "step", None, "As in launch.export.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_string("data_dir", None, "As in launch.export.", flag_values=FLAGS)


@command.with_flags(FLAGS, __doc__, "run_dir", "images", "out")
def main() -> int:
    """Runs the command."""
    found = trained.load(
        pathlib.Path(FLAGS.run_dir),
        registry.EXPERIMENTS,
        FLAGS.step,
        FLAGS.data_dir,
    )
    done, bad = image_predictions.predict(
        found.model,
        pathlib.Path(FLAGS.images),
        pathlib.Path(FLAGS.out),
        functools.partial(print, flush=True),
    )
    left_out = f", {bad:,} left out" if bad else ""
    print(f"Written: {FLAGS.out} ({done:,} images{left_out})")
    return 0


if __name__ == "__main__":
    command.run(main)
