r"""Turns a folder of images and their labels into a prepared data set.

python -m launch.prepare_images --images=DIR --labels=FILE.csv --data_dir=DATA \
    --name=NAME

The first column of FILE.csv names the files in DIR. Each other column is an
attribute: 1 or true for yes; 0, -1 or false for no; an empty cell where it is
not known, which no loss counts. A single column of other values names a class.
Without --labels, DIR holds a folder for each class, or folders `train` and
`test` with a folder for each class.

Started again, it goes on where it stopped. To train on the result:

python -m launch.train --experiment=celeba --config=photos \
    --config.dataset=NAME --data_dir=DATA --method=graddrop --run_dir=RUN
"""

import functools
import os
import pathlib

from absl import flags

from data.photos import builder, csv_files, folders, table
from launch import command
from trainers import errors

_OF_TABLES = ("attributes", "class_column", "split")
_DEFAULTS = table.Split()

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "images", None, "Required. The folder of the images.", flag_values=FLAGS
)
flags.DEFINE_string(
    "labels", None, "The table of labels, a CSV file.", flag_values=FLAGS
)
flags.DEFINE_string(
    "data_dir", None, "Required. The folder of the prepared data sets.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "name", None, "Required. The name of the data set, as in my_photos.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_list(
    "attributes", None,
    "The columns to take for attributes; all by default.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "class_column", None, "The column that names a class.", flag_values=FLAGS
)
flags.DEFINE_string(
    "split", None,
    "The column that names the split of each image, such as train or test.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float(
    "test_share", None,
    "The share of the images that is drawn for the split test, where nothing "
    f"names the splits; {_DEFAULTS.test_share} by default.",
    lower_bound=0.0, upper_bound=1.0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", _DEFAULTS.seed, "Seed of that draw.",
    lower_bound=0, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_boolean(
    "skip_bad", False, "Leave out images and rows that cannot be read.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "threads", os.cpu_count(), "Number of images to read at once.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__, "images", "data_dir", "name")
def main() -> int:
    """Runs the command."""
    report = functools.partial(print, flush=True)
    photos = _read()
    if photos.ignored:
        report(
            f"{len(photos.ignored)} files are no images, such as "
            f"{photos.ignored[0]}; they are left out."
        )
    contents = builder.prepare(
        photos,
        FLAGS.data_dir,
        FLAGS.name,
        skip_bad=FLAGS.skip_bad,
        num_threads=FLAGS.threads,
        report=report,
    )
    for split, number in contents.num_examples.items():
        print(f"{split}: {number:,} images")
    if contents.bad:
        print(f"left out: {len(contents.bad):,}")
    print(f"Prepared: {contents.directory}")
    return 0


def _read() -> table.Table:
    images = pathlib.Path(FLAGS.images).expanduser()
    split = table.Split(
        FLAGS.split,
        _DEFAULTS.test_share if FLAGS.test_share is None else FLAGS.test_share,
        FLAGS.seed,
    )
    if FLAGS.split is not None and FLAGS.test_share is not None:
        raise errors.UserError(
            "--test_share: the column of --split names the test images; leave "
            "one of them out."
        )
    if FLAGS.labels is not None:
        return csv_files.read(
            pathlib.Path(FLAGS.labels).expanduser(),
            images,
            split,
            FLAGS.attributes or (),
            FLAGS.class_column,
        )
    for name in _OF_TABLES:
        if FLAGS[name].value is not None:
            raise errors.UserError(
                f"--{name}: names columns of --labels, which is missing."
            )
    return folders.read(images, split)


if __name__ == "__main__":
    command.run(main)
