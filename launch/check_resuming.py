r"""Checks that a run killed at random moments resumes exactly.

python -m launch.check_resuming --experiment=NAME --method=RECIPE --run_dir=DIR

First it completes an undisturbed run of launch.train. Then it starts the same
run in another directory, kills it by SIGKILL at a random moment and restarts it
with the same command, --kills times in total. If the run ends before, the next
one is killed. It exits with 1 unless every checkpoint stays intact, every start
resumes from the newest one, and the log, the checkpoints and the metrics are
those of the undisturbed run, bit for bit.

All runs use one device. On a GPU, bits repeat only if its operations are
deterministic.
"""

import pathlib
import sys

from absl import flags

from launch import command, run_flags
from trainers import errors
from trainers.runs import execution, kill_check

FLAGS = flags.FlagValues()
run_flags.define(FLAGS)
flags.DEFINE_string(
    "method", None, "Required. A recipe as in launch.train.", flag_values=FLAGS
)
flags.DEFINE_integer(
    "seed", 0, "Seed of the run and of the moments of the kills.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "kills", 30, "Number of kills.", lower_bound=1, flag_values=FLAGS
)


@command.with_config(FLAGS, __doc__, "experiment", "method", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    if not run_flags.read_devices(FLAGS).are_one:
        raise errors.UserError(
            f"--strategy: got {FLAGS.strategy} with {FLAGS.logical_cpus} "
            "logical CPUs, expected one device, because bits repeat only "
            "there; leave out --strategy and --logical_cpus."
        )
    run = run_flags.make_run(FLAGS, texts, FLAGS.method)
    run_flags.download(FLAGS, run.experiment, [run.config])
    execution.check(run)
    flags_of_run = [
        f"--experiment={FLAGS.experiment}",
        f"--method={FLAGS.method}",
        f"--seed={FLAGS.seed}",
        "--strategy=one",
        *(
            f"--config.{name}={text}"
            for name, text in run_flags.config_texts(FLAGS, texts).items()
        ),
    ]
    if FLAGS.data_dir is not None:
        flags_of_run.append(
            f"--data_dir={pathlib.Path(FLAGS.data_dir).absolute()}"
        )
    problems = kill_check.Check(
        flags=flags_of_run,
        directory=pathlib.Path(FLAGS.run_dir),
        num_kills=FLAGS.kills,
        seed=FLAGS.seed,
    ).execute()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"{FLAGS.kills} kills: nothing lost, bit for bit the same.")
    return 1 if problems else 0


if __name__ == "__main__":
    command.run(main)
