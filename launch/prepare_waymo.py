"""Turns Waymo segments into a data set of training examples.

python -m launch.prepare_waymo --train=DIR --validation=DIR --data_dir=OUT

DIR is a folder of *.tfrecord files (v1), a folder with a subfolder for each
Parquet table (v2), or a pattern such as '/data/training/segment-1*.tfrecord'.
Every segment becomes a shard. Started again, it converts the missing ones. Read
the data set by tfds.builder_from_directory('OUT/waymo_lidar/1.0.0').

Where the labels of a frame have no numbers of lidar points in their boxes, as
in release 1.0, the points are counted.

It runs on Apache Beam if that is installed (pip install -e '.[beam]'),
otherwise in processes on this machine.
"""

import functools
import os
import pathlib

import tensorflow_datasets as tfds
from absl import flags

from data.lidar.waymo import builder as builder_lib
from data.lidar.waymo import segments
from launch import command
from trainers import errors

_SPLITS = ("train", "validation")

FLAGS = flags.FlagValues()
for _split in _SPLITS:
    flags.DEFINE_string(
        _split, None, f"The {_split} segments, see above.", flag_values=FLAGS
    )
flags.DEFINE_string(
    "data_dir",
    None,
    "Required. The folder to write the data set to.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "processes", os.cpu_count(), "Number of processes on this machine.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_boolean(
    "skip_bad_segments", False, "Skip segments that cannot be read.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "beam_runner", None,
    "Apache Beam's runner, such as FlinkRunner. Its workers need this checkout "
    "and all files under the same paths.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_list(
    "beam_options", [], "Apache Beam's options, as in --beam_options="
    "--flink_master=HOST:8081,--parallelism=64.", flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__, "data_dir")
def main() -> int:
    """Runs the command."""
    places = {split: FLAGS[split].value for split in _SPLITS}
    if not any(places.values()):
        raise errors.UserError(
            "--train, --validation: got neither, expected a folder of segments "
            "for at least one (see --help)."
        )
    try:
        builder = builder_lib.WaymoLidar(
            segments={
                split: segments.find(place)
                for split, place in places.items()
                if place
            },
            skip_bad_segments=FLAGS.skip_bad_segments,
            num_processes=FLAGS.processes,
            report=functools.partial(print, flush=True),
            data_dir=pathlib.Path(FLAGS.data_dir),
        )
        builder.download_and_prepare(download_config=_download_config())
    except (ValueError, OSError) as error:
        raise errors.UserError(str(error)) from error
    for split, info in builder.info.splits.items():
        print(
            f"{split}: {_count(info.num_examples, 'frame')} with "
            f"{_count(builder.info.metadata['num_boxes'][split], 'box')} in "
            f"{_count(info.num_shards, 'shard')}"
        )
    num_counted = sum(builder.info.metadata.get("num_counted", {}).values())
    if num_counted:
        boxes = _count(num_counted, "box")
        print(f"{boxes} without numbers of lidar points: counted")
    print(f"Prepared: {builder.data_dir}")
    return 0


def _count(number: int, noun: str) -> str:
    ending = "" if number == 1 else "es" if noun.endswith("x") else "s"
    return f"{number:,} {noun}{ending}"


def _download_config() -> tfds.download.DownloadConfig:
    if not FLAGS.beam_runner and not FLAGS.beam_options:
        return tfds.download.DownloadConfig()
    try:
        from apache_beam.options import pipeline_options
    except ImportError as error:
        raise errors.UserError(
            f"--beam_runner, --beam_options: need Apache Beam ({error}); "
            "run pip install -e '.[beam]', or leave them out."
        ) from error
    return tfds.download.DownloadConfig(
        beam_runner=FLAGS.beam_runner,
        beam_options=pipeline_options.PipelineOptions(FLAGS.beam_options),
    )


if __name__ == "__main__":
    command.run(main)
