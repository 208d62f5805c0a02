r"""Waymo vehicles: a PointPillars detector with nine losses.

Section 4.4 and appendix A.6 of Chen et al., NeurIPS 2020: six losses of a
box's place and size, one of its rotation, one of its class and one of its
direction share a map of 384 channels, where methods act. Adam with a ramp of
1,000 steps to 0.0015 and cosine annealing, 16 frames in a step over 8 GPUs,
1.28 million steps; every run clips the gradient's norm at 1.

    python -m launch.prepare_waymo --train=TRAINING --validation=VALIDATION \
        --data_dir=DATA
    python -m launch.compare --experiment=waymo --data_dir=DATA --run_dir=DIR \
        --strategy=mirrored --seeds=0,1,2 --config.ap_rule=2020 \
        --methods="baseline,mgda,gradnorm,pcgrad,random_graddrop,\
    graddrop(sync_replicas=False),mgda+graddrop(sync_replicas=False),\
    gradnorm+graddrop(sync_replicas=False)"

reproduces Tables 3, 4 and 6 of the paper; `_PAPER` has its numbers, by the AP
rule of that time.

The authors' own detector is not public; ours has the values of Lang et al.,
CVPR 2019 (`pointpillars/presets.py`). GradDrop would have to sum 906 million
floats over the replicas in each step; here each device draws its own masks.

A frame's forward pass is 162 billion multiply-adds, counted from the shapes,
and a step of 16 frames 15.6 TFLOP: 0.2 s on 8 GPUs at 10 TFLOP/s each. A run of
the baseline takes 2.9 days there, 23 days of one GPU, and the 24 runs above
560; what methods add is not counted. Combiners hold nine gradients of the map,
7.2 GB for the two frames of a GPU, or fewer with `--config.loss_chunk_size`. No
GPU was there to measure on.

Simulated drives (`launch.simulate_waymo`) work too, with
`--config.preset=small`, and so do KITTI's frames (`launch.prepare_kitti`), with
`--config.preset=kitti --config.dataset=kitti_lidar`. `launch.evaluate
--run_dir=RUN` measures and draws what a run has learned.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from data import streams
from trainers import files
from trainers.detection import pictures
from trainers.experiments.waymo import (
    detector,
    evaluation,
    frames,
    points_to_boxes,
)
from trainers.experiments.waymo.config import WaymoConfig
from trainers.models.pointpillars import losses, network
from trainers.reporting import curves
from trainers.runs import columns, experiment, fit_experiment, serving

_PICTURE = "frame.npz"
_OWN_MASKS = "graddrop(sync_replicas=False)"
_PAPER = {
    "baseline": (76.2, 69.9, 57.1, 53.0),
    "mgda": (76.8, 69.5, 20.0, 18.3),
    "gradnorm": (76.9, 71.7, 51.0, 48.2),
    "pcgrad": (76.2, 70.2, 58.4, 54.4),
    "random_graddrop": (76.4, 66.6, 57.6, 50.5),
    _OWN_MASKS: (76.8, 72.4, 58.8, 56.0),
    f"mgda+{_OWN_MASKS}": (73.7, 65.0, 32.3, 28.6),
    f"gradnorm+{_OWN_MASKS}": (77.3, 71.6, 55.1, 51.5),
}
_MEASURES = {
    "ap_bev": "2D AP",
    "aph_bev": "2D APH",
    "ap_3d": "3D AP",
    "aph_3d": "3D APH",
}

# A training of a few minutes on simulated or few frames.
_SHORT = {
    "batch_size": 1,
    "steps": 400,
    "steps_per_epoch": 100,
    "ramp_steps": 40,
    "learning_rate": 0.003,
    "batch_norm_momentum": 0.9,
    "augmented": False,
}


_AP = curves.Quantity(
    "ap_3d", "3D AP %", "3D AP of vehicles (LEVEL_1) in held-out frames"
)
_AP_IOU_50 = curves.Quantity(
    "ap_3d_iou_50",
    "3D AP % at IoU 0.5",
    "3D AP of vehicles (LEVEL_1) in held-out frames at IoU 0.5",
)


def _draw_first_frames(
    _: experiment.Experiment, records: experiment.Records
) -> list[columns.Figure]:
    figures = []
    for index, (method, runs) in enumerate(records.items()):
        with np.load(runs[0].directory / _PICTURE) as saved:
            picture = pictures.Picture(**saved)
        caption = (
            f"The first evaluation frame, {method}, seed {runs[0].seed}: "
            "ground-truth boxes green, predicted ones red, the fainter the "
            "lower their score."
        )
        drawing = pictures.birds_eye_view(picture)
        figures.append(columns.Figure(f"waymo_frame_{index}", caption, drawing))
    return figures


class Waymo(fit_experiment.FitExperiment):
    """See the module's documentation."""

    name = "waymo"
    title = "vehicles in lidar frames, nine losses"
    defaults = WaymoConfig()
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "drives": {"preset": "small", **_SHORT},
        "kitti_few": {
            "dataset": "kitti_lidar",
            "preset": "kitti_small",
            "evaluation_split": "train",
            "pasted_objects": 11,
            **_SHORT,
            "steps": 600,
        },
    }
    loss_names = losses.LOSS_NAMES
    reads_data_dir = True
    table = (
        *(
            columns.Column(
                name,
                label,
                columns.percent,
                paper={
                    method: values[index] for method, values in _PAPER.items()
                },
            )
            for index, (name, label) in enumerate(_MEASURES.items())
        ),
        columns.Column("ap_3d_iou_50", "3D AP, IoU 0.5", columns.percent),
    )
    figures = (
        curves.LearningCurve("waymo_ap_3d", _AP, y_scale="linear"),
        curves.LearningCurve(
            "waymo_ap_3d_iou_50", _AP_IOU_50, y_scale="linear"
        ),
        curves.FinalDots("waymo_final", _AP),
        _draw_first_frames,
    )
    compared = "ap_3d"
    compared_label = "3D AP in percentage points"
    compared_digits = 2
    lower_is_better = False
    search_space: ClassVar[Mapping[str, str]] = {
        "learning_rate": "log_uniform(1e-4, 1e-2)"
    }

    def check(self, run: experiment.Run) -> None:
        """See the base class."""
        super().check(run)
        for split in self._splits(run):
            frames.open_set(run).num_frames(split)

    def check_data(self, run: experiment.Run) -> None:
        """See the base class."""
        for split in self._splits(run):
            frames.open_set(run).check(split)

    def build(self, run: experiment.Run) -> keras.Model:
        """See the base class."""
        config = run.config
        trunk = network.make_trunk(config.detector_preset)
        recipe = run.recipe
        if recipe.global_clipnorm is None:
            recipe = dataclasses.replace(
                recipe, global_clipnorm=config.clip_norm
            )
        model = fit_experiment.make_multi_loss_model(
            dataclasses.replace(run, recipe=recipe),
            trunk,
            network.make_heads(trunk.output),
        )
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            config.steps - config.ramp_steps,
            warmup_target=config.learning_rate,
            warmup_steps=config.ramp_steps,
        )
        model.compile(
            keras.optimizers.Adam(rate, beta_1=0.9, beta_2=0.999),
            loss=losses.make_losses(),
            loss_weights=losses.LOSS_WEIGHTS,
        )
        return model

    def serving_model(
        self, run: experiment.Run, model: keras.Model
    ) -> serving.Endpoint:
        """See the base class; from the points of a frame to its boxes."""
        return points_to_boxes.make(model, run.config.detector_preset)

    def training_data(
        self, run: experiment.Run, reading: streams.Reading
    ) -> tf.data.Dataset:
        """See the base class."""
        return frames.training_batches(run, reading)

    def test_data(self, run: experiment.Run) -> None:
        """See the base class; `evaluator` measures the losses with AP."""
        return None

    def evaluator(
        self, run: experiment.Run, model: keras.Model
    ) -> evaluation.Evaluation:
        """See the base class."""
        config, data = run.config, frames.open_set(run)
        batches = frames.evaluation_batches(
            data.frames(config.evaluation_split),
            config.detector_preset,
            config.batch_size // run.devices.num_replicas,
        )
        return evaluation.Evaluation(
            model, config.detector_preset, batches, config.ap_rule, run.worker
        )

    def conclude(
        self, run: experiment.Run, model: keras.Model
    ) -> dict[str, float]:
        """Saves the detections in the first frame, for the report."""
        if run.worker.is_chief:
            config, data = run.config, frames.open_set(run)
            (picture,) = detector.draw_frames(
                model,
                config.detector_preset,
                data.frames(config.evaluation_split).take(1),
            )
            with files.replacing(run.directory / _PICTURE) as file:
                np.savez_compressed(file, **dataclasses.asdict(picture))
        return {}

    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        """See the base class."""
        names = [*_MEASURES, "ap_3d_iou_50", "ap_3d_level_2", "aph_3d_level_2"]
        return {
            **{name: 100.0 * row[f"val_{name}"] for name in names},
            "test_loss": row["val_loss"],
        }

    def is_published(self, config: Mapping[str, Any]) -> bool:
        """See the base class."""
        return (
            config["dataset"] == self.defaults.dataset
            and config["preset"] == self.defaults.preset
            and config["ap_rule"] == "2020"
        )

    def _splits(self, run: experiment.Run) -> tuple[str, str]:
        return run.config.training_split, run.config.evaluation_split
