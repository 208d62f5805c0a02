r"""Turns KITTI's lidar frames into a data set of training examples.

python -m launch.prepare_kitti --kitti_dir=KITTI/training --data_dir=OUT

KITTI/training holds the folders velodyne, label_2 and calib of KITTI's object
detection benchmark. To train on the result:

python -m launch.train --experiment=waymo --config=kitti_few --data_dir=OUT \
    --method=baseline --run_dir=RUN

kitti_few takes 600 steps, about a quarter of an hour on two CPU cores, and
evaluates on the frames it trains on. To train on all of KITTI, replace it by
--config.dataset=kitti_lidar --config.preset=kitti
--config.training_split='train[:80%]' --config.evaluation_split='train[80%:]',
with --config.steps a multiple of --config.steps_per_epoch.
"""

import tensorflow_datasets as tfds
from absl import flags

from data.lidar.kitti import builder
from launch import command

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "kitti_dir",
    None,
    "Required. The folder `training` of KITTI.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Required. The folder to write the data set to.",
    flag_values=FLAGS,
)


@command.with_flags(FLAGS, __doc__, "kitti_dir", "data_dir")
def main() -> int:
    """Runs the command."""
    tfds.disable_progress_bar()
    prepared = builder.prepare(FLAGS.kitti_dir, FLAGS.data_dir)
    # A set that is there already may be older than its counts.
    if "num_boxes" in prepared.info.metadata:
        _print_counts(prepared.info)
    print(f"Prepared: {prepared.data_dir}")
    return 0


def _print_counts(info: tfds.core.DatasetInfo) -> None:
    frames = info.splits["train"].num_examples
    boxes = info.metadata["num_boxes"]
    empty = info.metadata["num_empty_boxes"]
    print(
        f"frames: {frames:,}, boxes: {boxes:,}, without a lidar point: "
        f"{empty:,}"
    )
    if 2 * empty > boxes:
        print(
            "Most boxes hold no lidar point: do calib and velodyne belong to "
            "the same drives?"
        )


if __name__ == "__main__":
    command.run(main)
