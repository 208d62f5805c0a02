"""Trains one method in one experiment; started again, it resumes.

python -m launch.train --experiment=NAME --method=RECIPE --run_dir=DIR

A recipe is one or several methods joined by +, for example baseline,
graddrop(k=0.25), gradnorm(alpha=1.5)+graddrop or clip(1.0)+pcgrad.

After SIGTERM it saves at the next step and exits with code 75 (EX_TEMPFAIL),
as it does when another worker is gone: a scheduler may start it again.
"""

import pathlib
import sys

from absl import flags

from launch import command
from trainers import config
from trainers.experiments import registry
from trainers.runs import execution, experiment
from trainers.training import devices, workers

FLAGS = flags.FlagValues()
command.define_run_flags(FLAGS, registry.EXPERIMENTS)
command.define_switches(FLAGS)
flags.DEFINE_string(
    "method", None, "Required; a recipe, see above.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0, "Decides weights, order of the data and draws.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip


@command.with_config(FLAGS, __doc__, "experiment", "method", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    command.speak_as(workers.find(FLAGS.strategy))
    devices.start(FLAGS.strategy, FLAGS.logical_cpus)
    texts |= command.switches(FLAGS)
    run = experiment.Run(
        experiment=FLAGS.experiment,
        method=str(execution.parse_method(FLAGS.method)),
        seed=FLAGS.seed,
        config=config.override(registry.find(FLAGS.experiment).defaults, texts),
        directory=pathlib.Path(FLAGS.run_dir),
        data_dir=FLAGS.data_dir,
        strategy=FLAGS.strategy,
        logical_cpus=FLAGS.logical_cpus,
    )
    known = execution.read(run.directory, run)
    record = execution.execute(run, "bar")
    ended = known is not None and known.results is not None
    text = ("already ended: " if ended else "") + execution.describe(record)
    if record.status == "failed":
        print(f"error: {text}", file=sys.stderr)
        return 1
    print(text)
    return 0


if __name__ == "__main__":
    command.run(main)
