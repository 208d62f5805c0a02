"""Measures speed and memory, as ratios within one run.

python -m launch.benchmark [--suites=all] [--pairs=12] [--json=OUT]

Each suite prints its table when it ends. The table shows the measured ratios
next to what counting operations predicts and, where there is one, the target;
the last column says whether it is met. The exit code does not depend on it.
"""

import pathlib

from absl import flags

from launch import command
from trainers.benchmarks import registry

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "suites", ", ".join(registry.SHORT),
    "Suites to run, separated by commas, or all. " + "; ".join(
        f"{name}: {suite.title}" for name, suite in registry.SUITES.items()
    ) + ".",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "pairs", 12, "Number of rounds in which the cases of a suite take turns. "
    "Suites with long rounds run fewer: " + ", ".join(
        f"1 in {suite.pairs_per_round} in {name}"
        for name, suite in registry.SUITES.items()
        if suite.pairs_per_round > 1
    ) + ".",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "json", None, "Also write the numbers to this file.", flag_values=FLAGS
)


@command.with_flags(FLAGS, __doc__)
def main() -> int:
    """Runs the command."""
    path = None if FLAGS.json is None else pathlib.Path(FLAGS.json)
    registry.execute(registry.select(FLAGS.suites), FLAGS.pairs, path)
    return 0


if __name__ == "__main__":
    command.run(main)
