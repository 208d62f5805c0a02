"""Draws faces with CelebA's schema: a prepared data set of any size.

python -m launch.draw_faces --data_dir=DIR

They are data for tests and for a first run:

python -m launch.train --experiment=celeba --config.dataset=drawn_faces
--data_dir=DIR --method=graddrop --run_dir=RUN

How each attribute is drawn is told in data/drawn_faces/README.md.
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
    "Required; where prepared data sets lie. The faces go to its folder "
    "drawn_faces.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_train", _DEFAULTS.train, "Faces to train on.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_validation", _DEFAULTS.validation, "Faces to validate on.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_test", _DEFAULTS.test, "Faces to test on.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", _DEFAULTS.seed, "Decides the faces.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "grid", None,
    "Also write a picture of the first fifty training faces to this PNG file.",
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
