r"""Searches for the best config values and method arguments.

python -m launch.tune --experiment=NAME --method=RECIPE --run_dir=DIR \
    --config.FIELD=RANGE

A range replaces a value of launch.train: uniform(LOW, HIGH),
log_uniform(LOW, HIGH), integer(LOW, HIGH) or choice(VALUE, VALUE, ...), as in
--method="graddrop(k=uniform(0, 2))". Where no range is given, all values and
arguments that have a declared range and are not given are searched in it; see
--method.

Every trial is a run of launch.train in a folder of DIR. Started again, the
search continues. At its end it prints all trials and the command that repeats
the best one. Several processes share a search through keras-tuner's variables
KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT;
launch/cluster/tune.sh starts several on one machine.
"""

import math

from absl import flags

from launch import command, run_flags
from trainers.experiments import registry
from trainers.search import oracles, space
from trainers.search import search as tuning
from trainers.training import devices

FLAGS = flags.FlagValues()
run_flags.define(FLAGS)
flags.DEFINE_string(
    "method", None,
    "Required. A recipe, with or without ranges. Declared ranges:\n"
    + space.describe(registry.EXPERIMENTS),
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "tuner", oracles.TUNERS[0], oracles.TUNERS,
    "The search algorithm. hyperband starts many short trials and continues "
    "only the best of them, up to --config.steps.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_trials", None,
    f"Number of trials, {tuning.NUM_TRIALS} by default. A larger number "
    "continues a finished search. Not for hyperband, which sets its own.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", 0, "Seed of the search and of each trial.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip


@command.with_config(FLAGS, __doc__, "experiment", "method", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    devices.split_cpu(FLAGS.logical_cpus)
    run = run_flags.make_run(FLAGS, {})
    searched = space.make(
        run.experiment, FLAGS.method, run_flags.config_texts(FLAGS, texts)
    )
    corners = [sample.config for sample in searched.corners()]
    run_flags.download(FLAGS, run.experiment, corners)
    search = tuning.Search(
        space=searched,
        run=run,
        tuner=FLAGS.tuner,
        num_trials=FLAGS.num_trials,
    )
    outcomes = search.execute()
    if outcomes is None:
        print("no trial is left; the chief prints the table.")
        return 0
    print()
    print(search.report(outcomes))
    finished = any(math.isfinite(outcome.result) for outcome in outcomes)
    return 0 if finished else 1


if __name__ == "__main__":
    command.run(main)
