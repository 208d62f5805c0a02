r"""Draws faces with CelebA's schema: a prepared data set of any size.

python -m launch.draw_faces --data_dir=DIR

They serve for tests and a first run:

python -m launch.train --experiment=celeba --config=drawn_faces \
    --data_dir=DIR --method=graddrop --run_dir=RUN

data/drawn_faces/README.md explains how each attribute is drawn.
"""

import pathlib

from absl import flags

from data.drawn_faces import builder, grid
from launch import command
from trainers import files

_DEFAULTS = builder.Contents()

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "data_dir", None,
    "Required. The folder of the prepared data sets; the faces go to its "
    "subfolder drawn_faces.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_train", _DEFAULTS.train, "Number of training faces.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_validation", _DEFAULTS.validation, "Number of validation faces.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_test", _DEFAULTS.test, "Number of test faces.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", _DEFAULTS.seed, "Seed of the faces.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "grid", None,
    "Also draw the first fifty training faces into this PNG file.",
    flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__, "data_dir")
def main() -> int:
    """Runs the command."""
    contents = builder.Contents(
        train=FLAGS.num_train,
        validation=FLAGS.num_validation,
        test=FLAGS.num_test,
        seed=FLAGS.seed,
    )
    directory = builder.prepare(FLAGS.data_dir, contents)
    print(f"{directory}: {contents}")
    if FLAGS.grid is not None:
        with files.replacing(pathlib.Path(FLAGS.grid)) as file:
            file.write(grid.draw_grid(FLAGS.seed))
        print(f"Written: {FLAGS.grid}")
    return 0


if __name__ == "__main__":
    command.run(main)
