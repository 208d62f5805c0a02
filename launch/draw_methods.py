"""Draws what each method makes of two conflicting gradients.

python -m launch.draw_methods [--out=FILE.svg]

The picture has a panel for each method of the library, computed by the method
itself. Where a method draws at random, it shows every outcome and its
probability. A weighting is shown after 200 steps of unchanged losses.
"""

import pathlib

from absl import flags

from launch import command
from trainers import drawing, files
from trainers.reporting import conflict

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "out", "docs/conflicting_gradients.svg", "The SVG file to write.",
    flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__)
def main() -> int:
    """Runs the command."""
    path = pathlib.Path(FLAGS.out)
    with files.replacing(path) as file:
        file.write(drawing.svg(conflict.draw()))
    print(f"Written: {path}")
    return 0


if __name__ == "__main__":
    command.run(main)
