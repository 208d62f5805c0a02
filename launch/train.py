"""Trains one method in one experiment, or resumes its training.

python -m launch.train --experiment=NAME --method=RECIPE --run_dir=DIR

A recipe is a method, or several joined by +, for example baseline,
graddrop(k=0.25), gradnorm(alpha=1.5)+graddrop or clip(1.0)+pcgrad.

After SIGTERM it saves at the next step and exits with code 75 (EX_TEMPFAIL), as
it does when another worker is lost. The same command resumes the run.
"""

import sys

from absl import flags

from launch import command, run_flags
from trainers.runs import directory, execution
from trainers.training.progress import Progress

FLAGS = flags.FlagValues()
run_flags.define(FLAGS)
flags.DEFINE_string(
    "method", None, "Required. A recipe, see above.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0,
    "Seed of the weights, the order of the data and the methods' draws.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip


@command.with_config(FLAGS, __doc__, "experiment", "method", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    devices = run_flags.read_devices(FLAGS)
    command.speak_as(devices.worker)
    devices.start()
    run = run_flags.make_run(FLAGS, texts, FLAGS.method)
    run_flags.download(FLAGS, run.experiment, [run.config])
    known = directory.read(run.directory, run)
    record = execution.execute(run, Progress(bar=True))
    ended = known is not None and known.results is not None
    text = ("already ended: " if ended else "") + directory.describe(record)
    if record.status == "failed":
        print(f"error: {text}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    command.run(main)
