"""Reports on all runs in a directory.

python -m launch.report DIR

Prints the tables, and writes report.md, report.html and plots into DIR.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from launch import command
from trainers import errors
from trainers.experiments import registry
from trainers.reporting import report

FLAGS = flags.FlagValues()


def main(arguments: Sequence[str]) -> int:
    """Runs the command."""
    parsed = command.parse(FLAGS, arguments, __doc__)
    if parsed is None:
        return 0
    positional, texts = parsed
    if len(positional) != 1 or texts:
        raise errors.UserError(
            f"got {' '.join(arguments)!r}, expected one directory; write "
            "python -m launch.report DIR."
        )
    directory = pathlib.Path(positional[0])
    print(report.create(directory, registry.EXPERIMENTS))
    print(f"Written: {directory / 'report.html'}")
    return 0


if __name__ == "__main__":
    command.run(main)
