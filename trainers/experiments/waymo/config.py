"""Values of the Waymo experiment."""

import dataclasses

from trainers import config
from trainers.detection import average_precision
from trainers.models.pointpillars import augmentation, presets


@dataclasses.dataclass(frozen=True)
class WaymoConfig(config.FitConfig):
    """Values of the Waymo experiment.

    Attributes:
        batch_size: Frames in a step, over all replicas.
        learning_rate: The highest learning rate of Adam.
        ramp_steps: Steps of the linear rise to it, before the cosine.
        clip_norm: Norm to clip gradients at, if the method gives none.
        preset: The detector; one of `pointpillars.presets.PRESETS`.
        dataset: Name of a prepared data set.
        training_split: The split to train on.
        evaluation_split: The split to report.
        augmented: Whether to flip, turn and scale training frames.
        pasted_objects: Vehicles of other frames to try to paste into each
            training frame.
        stored_objects: The number of vehicles to choose from, read at the
            start and kept in memory.
        batch_norm_momentum: Momentum of the moving statistics; lower for
            trainings of a few hundred steps.
        ap_rule: See `detection.average_precision`.
    """

    steps: int = 1_280_000
    steps_per_epoch: int = 40_000
    batch_size: int = 16
    learning_rate: float = config.positive(0.0015)
    ramp_steps: int = config.non_negative(1_000)
    clip_norm: float = config.positive(1.0)
    preset: str = config.one_of("graddrop2020", presets.PRESETS)
    dataset: str = "waymo_lidar"
    training_split: str = "train"
    evaluation_split: str = "validation"
    augmented: bool = True
    pasted_objects: int = config.non_negative(15)
    stored_objects: int = config.positive(2_000)
    batch_norm_momentum: float = config.fraction(0.99)
    ap_rule: str = config.one_of("2022", average_precision.AP_RULES)

    def __post_init__(self):
        """Validates the fields."""
        super().__post_init__()
        if self.ramp_steps >= self.steps:
            raise ValueError(
                f"ramp_steps: got {self.ramp_steps}, expected less than steps "
                f"({self.steps})."
            )

    @property
    def detector_preset(self) -> presets.Preset:
        """The values of the detector."""
        preset = presets.PRESETS[self.preset]
        unchanged = augmentation.Augmentation((), 0.0, (1.0, 1.0))
        changes = preset.augmentation if self.augmented else unchanged
        return dataclasses.replace(
            preset,
            batch_norm_momentum=self.batch_norm_momentum,
            augmentation=dataclasses.replace(
                changes, num_pasted=self.pasted_objects
            ),
        )
