"""The settings of simulated drives."""

import dataclasses

from data.lidar.simulation import sensors

FRAMES_PER_SECOND = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of simulated drives.

    Attributes:
        num_frames: Frames of a segment, ten a second.
        sensors: One of `sensors.SENSORS`.
        extent: Metres from us up to which there is something to see.
        occupancy: The share of places that have a vehicle, in [0, 1].
        noise: Standard deviation of a range, in metres; never more than
            three of them.
        dropout: The share of rays that do not return.
        windows: The share of rays to a cabin that also see what is behind.
    """

    num_frames: int = 20
    sensors: str = "waymo"
    extent: float = 75.0
    occupancy: float = 0.5
    noise: float = 0.01
    dropout: float = 0.03
    windows: float = 0.5

    def __post_init__(self):
        """Validates the fields."""
        if self.sensors not in sensors.SENSORS:
            raise ValueError(
                f"sensors: got {self.sensors!r}, expected one of "
                f"{', '.join(sensors.SENSORS)}."
            )
        if self.num_frames < 1:
            raise ValueError(
                f"num_frames: got {self.num_frames}, expected at least 1."
            )
        if not self.extent > 0.0:
            raise ValueError(
                f"extent: got {self.extent}, expected metres above 0."
            )
        for name in "occupancy", "dropout", "windows":
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}, expected a share "
                    "from 0 to 1."
                )
        # Beyond, points would leave the labels, whose margin is 0.08 m.
        if not 0.0 <= self.noise <= 0.02:
            raise ValueError(
                f"noise: got {self.noise}, expected metres from 0 to 0.02."
            )
