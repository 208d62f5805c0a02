r"""Searches for the best values of a config and of a method's arguments.

python -m launch.tune --experiment=NAME --method=RECIPE --run_dir=DIR \
    --config.FIELD=RANGE

A range stands where launch.train takes a value: uniform(LOW, HIGH),
log_uniform(LOW, HIGH), integer(LOW, HIGH) or choice(VALUE, VALUE, ...), as in
--method="graddrop(k=uniform(0, 2))". What has neither value nor range is
searched in the range declared for it, if there is one, see below.

Every trial is a run of launch.train below DIR. Started again, the search goes
on; at its end it prints all trials and the command that repeats the best.
Several processes share it through keras-tuner's KERASTUNER_TUNER_ID,
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT; launch/cluster/tune.sh starts
some on one machine.
"""

import math

from absl import flags

from launch import command, run_flags
from trainers.experiments import registry
from trainers.search import search as tuning
from trainers.search import space
from trainers.training import devices

FLAGS = flags.FlagValues()
run_flags.define(FLAGS)
flags.DEFINE_string(
    "method", None,
    "Required; a recipe, with or without ranges. Declared ranges:\n"
    + space.describe(registry.EXPERIMENTS),
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_enum(
    "tuner", tuning.TUNERS[0], tuning.TUNERS,
    "How trials are chosen. hyperband decides after few steps which are worth "
    "more, up to --config.steps.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "num_trials", None,
    f"How many trials; {tuning.NUM_TRIALS} where nothing is said. More may be "
    "asked for later. Not for hyperband, which counts its own.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", 0, "Decides the trials, and is the seed of each of them.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip


@command.with_config(FLAGS, __doc__, "experiment", "method", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    devices.split_cpu(FLAGS.logical_cpus)
    run = run_flags.make_run(FLAGS, {})
    search = tuning.Search(
        space=space.make(
            run.experiment, FLAGS.method, run_flags.config_texts(FLAGS, texts)
        ),
        run=run,
        tuner=FLAGS.tuner,
        num_trials=FLAGS.num_trials,
    )
    outcomes = search.execute()
    if outcomes is None:
        print("no trial is left; the chief prints the table.")
        return 0
    print()
    print(search.write(outcomes))
    finished = any(math.isfinite(outcome.result) for outcome in outcomes)
    return 0 if finished else 1


if __name__ == "__main__":
    command.run(main)
