r"""Trains several methods with several seeds and reports on them.

python -m launch.compare --experiment=NAME --run_dir=DIR \
    --methods=A,B --seeds=0,1,2

Methods are recipes as in launch.train, separated by commas. Started again, it
completes the unfinished runs and leaves the finished ones alone.
"""

from absl import flags

from launch import command, run_flags
from trainers.experiments import registry
from trainers.reporting import report
from trainers.runs import comparison, execution
from trainers.training import devices

FLAGS = flags.FlagValues()
run_flags.define(FLAGS)
flags.DEFINE_string(
    "methods", ", ".join(comparison.METHODS),
    "Methods to compare, separated by commas.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "seeds",
    "0,1,2",
    "Seeds of the runs, separated by commas.",
    flag_values=FLAGS,
)


@command.with_config(FLAGS, __doc__, "experiment", "run_dir")
def main(texts: dict[str, str]) -> int:
    """Runs the command."""
    devices.split_cpu(FLAGS.logical_cpus)
    run = run_flags.make_run(FLAGS, texts)
    run_flags.download(FLAGS, run.experiment, [run.config])
    num_failed = comparison.Comparison(
        experiment=run.experiment,
        recipes=[
            execution.parse_method(text)
            for text in comparison.split_methods(FLAGS.methods)
        ],
        seeds=comparison.split_seeds(FLAGS.seeds),
        config=run.config,
        directory=run.directory,
        data_dir=run.data_dir,
        devices=run.devices,
    ).execute()
    print()
    print(report.create(run.directory, registry.EXPERIMENTS))
    print(f"Written: {run.directory / 'report.html'}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    command.run(main)
