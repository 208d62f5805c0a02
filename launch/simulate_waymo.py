"""Writes simulated drives as segments of the Waymo Open Dataset (v1).

python -m launch.simulate_waymo --out=DIR [--segments=4] [--frames=20]

Use them to run everything from raw segments to a trained detector without
access to the data set. Started again, it writes the missing segments.
"""

import functools
import pathlib

from absl import flags

from data.lidar.simulation import drives, sensors
from data.lidar.simulation.settings import Settings
from launch import command
from trainers import errors

_DEFAULTS = Settings()

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "out",
    None,
    "Required. The folder to write the segments to.",
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "segments", 4, "Number of segments.", lower_bound=1, flag_values=FLAGS
)
flags.DEFINE_integer(
    "frames", _DEFAULTS.num_frames, "Frames in a segment, ten per second.",
    lower_bound=1, flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer(
    "seed", 0, "Seed of the drives.", lower_bound=0, flag_values=FLAGS
)
flags.DEFINE_enum(
    "sensors", _DEFAULTS.sensors, sorted(sensors.SENSORS),
    "Lidars with as many beams as Waymo's, or `small` ones with few.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float(
    "extent", _DEFAULTS.extent,
    "Distance in metres up to which the scene has objects.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_float(
    "occupancy", _DEFAULTS.occupancy,
    "Share of the places on the road that hold a vehicle, from 0 to 1.",
    flag_values=FLAGS,
)  # fmt: skip


@command.with_flags(FLAGS, __doc__, "out")
def main() -> int:
    """Runs the command."""
    directory = pathlib.Path(FLAGS.out)
    try:
        drives.write(
            directory,
            Settings(
                num_frames=FLAGS.frames,
                sensors=FLAGS.sensors,
                extent=FLAGS.extent,
                occupancy=FLAGS.occupancy,
            ),
            num_segments=FLAGS.segments,
            seed=FLAGS.seed,
            report=functools.partial(print, flush=True),
        )
    except (ValueError, OSError) as error:
        raise errors.UserError(str(error)) from error
    print(f"Written: {FLAGS.segments} segments in {directory}")
    return 0


if __name__ == "__main__":
    command.run(main)
