"""The detector of a run directory, applied to frames."""

import dataclasses
import pathlib
from collections.abc import Callable

import keras
import tensorflow as tf

from trainers import errors
from trainers.detection import box_files, pictures
from trainers.experiments.waymo import detector, frames
from trainers.experiments.waymo.experiment import Waymo
from trainers.runs import experiment, trained
from trainers.training import checkpoints

_EXPERIMENT = Waymo()
_FRAMES_AT_ONCE = 4
TYPE_NAMES = ("VEHICLE",)


@dataclasses.dataclass(frozen=True)
class TrainedDetector:
    """The last checkpoint of a run.

    Attributes:
        directory: The run directory.
        data_dir: Where prepared data sets lie.
        split: The frames; by default the run's evaluation split.
        min_points: Vehicles with fewer points are LEVEL_2 and all others
            LEVEL_1; 0 leaves the levels as they are.
    """

    directory: pathlib.Path
    data_dir: str | None = None
    split: str | None = None
    min_points: int = 0

    def evaluate(
        self, num_drawn: int = 0, report: Callable[[str], None] = print
    ) -> tuple[box_files.Scenes, list[pictures.Picture]]:
        """Detects vehicles in all frames of the split.

        Args:
            num_drawn: The number of frames to draw.
            report: Called with a line that names the checkpoint.

        Returns:
            Predictions and ground-truth boxes, and the pictures.

        Raises:
            UserError: If there is no such run or checkpoint.
            prepared.DataError: If its data cannot be used.
        """
        run = trained.read_run(
            self.directory, {_EXPERIMENT.name: _EXPERIMENT}, self.data_dir
        )
        examples = self._examples(run)
        # Checkpoints identify variables by name, and names count the layers.
        keras.backend.clear_session()
        model = _EXPERIMENT.make_model(run)
        saved = checkpoints.Checkpoints(
            self.directory / "checkpoints", model, writes=False
        )
        step = saved.restore()
        if not step:
            raise errors.UserError(
                f"{self.directory}: holds no checkpoint; train it with "
                "launch.train first."
            )
        report(f"{self.directory}: step {step}")
        preset = run.config.detector_preset
        batches = frames.evaluation_batches(examples, preset, _FRAMES_AT_ONCE)
        try:
            found = detector.join(
                list(detector.Detector(model, preset).detect(batches))
            )
            drawn = detector.draw_frames(
                model, preset, examples.take(num_drawn)
            )
        except tf.errors.OpError:
            _EXPERIMENT.check_data(run)
            raise
        return _name_scenes(found), drawn

    def _examples(self, run: experiment.Run) -> tf.data.Dataset:
        split = self.split or run.config.evaluation_split
        examples = frames.open_set(run).frames(split)
        if not self.min_points:
            return examples

        def with_levels(example):
            few = example["num_points"] < self.min_points
            return {**example, "difficulties": tf.where(few, 2, 1)}

        return examples.map(with_levels)


def _name_scenes(found: detector.Found) -> box_files.Scenes:
    names = [
        box_files.Frame(segment, int(frame))
        for _, (segment, frame) in sorted(found.frames.items())
    ]
    return box_files.Scenes(
        found.predictions, found.ground_truths, names, found.num_left_out
    )
