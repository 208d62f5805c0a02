"""Writes the model of a run: from raw inputs to named outputs.

python -m launch.export --run_dir=RUN [--step=N] [--format=onnx]

A finished run leaves RUN/model.keras. This command writes it in another format,
or makes it from a checkpoint of a run in progress, which needs the run's
--data_dir.

Of the lidar detector it is the SavedModel RUN/model, from points to boxes.

Formats: `keras` loads with Keras alone; `saved_model` with TensorFlow; `litert`
is for LiteRT, which may list the outputs in another order, so read them by
their names; `onnx` needs tf2onnx and onnx (pip install -e '.[onnx]').
"""

import pathlib

from absl import flags

from launch import command
from trainers.experiments import registry
from trainers.runs import serving, trained

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "run_dir", None, "Required. The run directory.", flag_values=FLAGS
)
flags.DEFINE_enum(
    "format", None, list(serving.FORMATS),
    "The format; by default that of the model which a run leaves.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "step", None,
    "The step of the checkpoint; by default that of the finished run, or else "
    "the best or the last so far.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "data_dir", None, "The folder of the prepared data sets.", flag_values=FLAGS
)
flags.DEFINE_string(
    "out", None,
    "The file to write, or the folder of a SavedModel; by default in the run "
    "directory.",
    flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__, "run_dir")
def main() -> int:
    """Runs the command."""
    directory = pathlib.Path(FLAGS.run_dir)
    found = trained.load(
        directory, registry.EXPERIMENTS, FLAGS.step, FLAGS.data_dir
    )
    form = FLAGS.format or serving.native_format(found.model)
    if FLAGS.out is not None:
        path = pathlib.Path(FLAGS.out)
    else:
        number = None if found.is_final else found.step
        path = directory / serving.file_name(form, number)
    serving.write(found.model, path, form)
    print(f"Written: {path} (step {found.step})")
    return 0


if __name__ == "__main__":
    command.run(main)
