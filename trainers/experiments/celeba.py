r"""CelebA: forty attributes of a face, one loss each.

Section 4.2 and appendix A.4 of Chen et al., NeurIPS 2020: a convolutional
trunk, two dense layers shared by all losses, 40 sigmoid cross-entropies, batch
8, Adam at 1e-3 (MGDA: 1e-5), times 0.96 every 2,400 steps. Methods act after
the last convolution. The report shows the best step.

    python -m launch.compare --experiment=celeba --data_dir=DATA \
        --run_dir=DIR --seeds=0,1,2 --methods="baseline,clip(1.0),\
    penalty(0.1),mgda,pcgrad,gradnorm,random_graddrop,graddrop,\
    gradnorm+graddrop,graddrop(marginalize_batch=False)"

reproduces Table 1, Table 4 and Figure 3 of the paper. The report shows the
paper's numbers, `_PAPER` below, next to the measured ones.

A step of the baseline is 316 billion operations, counted from the shapes: 32 ms
at 10 TFLOP/s, 1.8 hours for the default 200,000 steps. GradDrop, PCGrad, MGDA
and GradNorm take 1.2 to 1.3 times as long by `launch.benchmark --suites=shared`
(docs/results.md), the gradient penalty, with two backward passes, about twice.
None of this was measured on a GPU.

Max F1 is the mean over the attributes of their best F1 over decision
thresholds. The paper's column looks like half of that; ours is not halved.

Any prepared data set of images and attributes can be used, see
`data/attribute_sets.py`: `--config=cmu_faces` reads small photographs, and
`--config=drawn_faces` what `launch.draw_faces` makes, with CelebA's own schema
and of any size. `--config=photos --config.dataset=NAME` is a start for one's
own images, as `launch.prepare_images` prepares them.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

import graddrop_tf as gd
from data import attribute_sets as attribute_data
from data import streams
from trainers import files
from trainers.config import FitConfig, non_negative, positive
from trainers.models import attribute_metrics, attribute_network, raw_images
from trainers.reporting import curves
from trainers.runs import columns, experiment, fit_experiment
from trainers.training import distribution, schedules

_TABLE = "attributes.csv"
_MONITORED_BATCHES = 16
# Error and max F1, in %; their speeds are in `benchmarks/methods.py`.
_PAPER = {
    "baseline": (8.71, 29.35),
    "clip(1.0)": (8.70, 29.34),
    "penalty(0.1)": (8.63, 29.43),
    "mgda": (10.82, 26.00),
    "pcgrad": (8.72, 29.25),
    "gradnorm": (8.68, 29.32),
    "random_graddrop": (8.60, 29.42),
    "graddrop": (8.52, 29.57),
    "gradnorm+graddrop": (8.57, 29.50),
}
_PAPER_ERROR, _PAPER_MAX_F1 = (
    {method: numbers[index] for method, numbers in _PAPER.items()}
    for index in range(2)
)


@dataclasses.dataclass(frozen=True)
class CelebaConfig(FitConfig):
    """Values of the CelebA experiment.

    Attributes:
        learning_rate: Initial learning rate of Adam.
        learning_rate_factors: Its factors by method, such as `mgda=0.01`.
        decay_rate: Its factor every `decay_steps` steps.
        decay_steps: Steps between two decays.
        dataset: Name of the prepared data set.
        labels: Its features with attributes, separated by commas.
        training_split: Split for training.
        evaluation_split: Split for evaluation.
        height: Height of an image.
        width: Width of an image.
        crop: Side of the centre crop taken before resizing; 0 for none.
        channels: Channels of the first convolution; the others have 2, 4 and
            8 times as many, the dense layers 8 times.
        synchronized_batch_norm: Whether batch norm uses the statistics of all
            replicas. They then train like one, but each per-loss gradient
            of the dense layers costs a backward pass.
        monitor_steps: Steps between samples of the gradients; 0 for none.
    """

    steps: int = 200_000
    steps_per_epoch: int = 5_000
    batch_size: int = 8
    learning_rate: float = positive(1e-3)
    learning_rate_factors: str = "mgda=0.01"
    decay_rate: float = positive(0.96)
    decay_steps: int = positive(2_400)
    dataset: str = "celeb_a"
    labels: str = "attributes"
    training_split: str = "train"
    evaluation_split: str = "test"
    height: int = positive(218)
    width: int = positive(178)
    crop: int = non_negative(0)
    channels: int = positive(64)
    synchronized_batch_norm: bool = False
    monitor_steps: int = non_negative(50)

    def __post_init__(self):
        """Validates the fields."""
        super().__post_init__()
        attribute_network.check_image_size(self.height, self.width)
        self.factors()

    @property
    def shape(self) -> attribute_data.Shape:
        """The shape of the images."""
        return attribute_data.Shape(self.height, self.width, self.crop)

    def factors(self) -> dict[str, float]:
        """Returns the factors on the learning rate, by method."""
        return schedules.parse_factors(
            "learning_rate_factors", self.learning_rate_factors
        )


@functools.cache
def _open(
    dataset: str, labels: str, data_dir: str | None
) -> attribute_data.AttributeSet:
    names = [name.strip() for name in labels.split(",")]
    return attribute_data.AttributeSet(dataset, names, data_dir)


_MAX_F1 = curves.Quantity("max_f1", "max F1 %", "Max F1")
_KEPT = curves.Quantity(
    "kept",
    "values kept %",
    "Share of gradient values that GradDrop keeps, or would keep in a model "
    "trained by another method,",
    read=lambda row: (
        100.0 * row.get("gradients/hypothetical_kept_share", np.nan)
    ),
)


class Celeba(fit_experiment.FitExperiment):
    """See the module's documentation."""

    name = "celeba"
    title = "attributes of faces, one loss for each"
    defaults = CelebaConfig()
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "drawn_faces": {
            "dataset": "drawn_faces", "height": 72, "width": 60,
            "channels": 16, "batch_size": 16, "steps": 1_500,
            "steps_per_epoch": 250, "learning_rate": 3e-3,
            "decay_steps": 100, "decay_rate": 0.8,
        },
        "cmu_faces": {
            "dataset": "cmu_faces", "labels": "pose,expression,eyes",
            "height": 60, "width": 64, "channels": 8, "steps": 600,
            "steps_per_epoch": 100, "learning_rate": 0.03,
            "learning_rate_factors": "", "decay_steps": 100,
            "decay_rate": 0.7,
        },
        "photos": {
            "dataset": "", "height": 64, "width": 64, "channels": 16,
            "batch_size": 16, "steps": 2_000, "steps_per_epoch": 100,
            "decay_steps": 200, "decay_rate": 0.7, "learning_rate_factors": "",
        },
    }  # fmt: skip
    reads_data_dir = True
    data_fields = ("dataset",)
    watched = "val_error_rate"
    table = (
        columns.Column("error", "error %", columns.percent, paper=_PAPER_ERROR),
        columns.Column(
            "max_f1", "max F1 %", columns.percent, paper=_PAPER_MAX_F1
        ),
        columns.Column("best_step", "best step", columns.whole),
        columns.Column("majority_error", "majority guess %", columns.percent),
    )
    figures = (
        curves.LearningCurve("celeba_max_f1", _MAX_F1, "the paper's Figure 3a"),
        curves.LearningCurve(
            "celeba_marginalization",
            _MAX_F1,
            "with and without summing the gradients over the batch before "
            "their signs are compared; Figure 3b",
            methods=("graddrop", "graddrop(marginalize_batch=False)"),
        ),
        curves.LearningCurve("celeba_kept", _KEPT, "Figure 3c"),
    )
    compared = "error"
    compared_label = "error in percentage points"
    compared_digits = 2
    lower_is_better = True
    search_space: ClassVar[Mapping[str, str]] = {
        "learning_rate": "log_uniform(1e-4, 1e-2)"
    }

    def name_losses(self, run: experiment.Run) -> Sequence[str]:
        """See the base class."""
        return self._data(run).names

    def check(self, run: experiment.Run) -> None:
        """See the base class."""
        super().check(run)
        data = self._data(run)
        data.check_shape(run.config.shape)
        for split in self._splits(run):
            data.check_labels(split)

    def build(self, run: experiment.Run) -> keras.Model:
        """See the base class."""
        config, data = run.config, self._data(run)
        trunk, heads = attribute_network.make_network(
            (config.height, config.width, data.channels),
            len(data.names),
            config.channels,
            config.synchronized_batch_norm,
        )
        model = fit_experiment.make_multi_loss_model(run, trunk, heads)
        factor = schedules.factor_for(config.factors(), run.recipe)
        rate = keras.optimizers.schedules.ExponentialDecay(
            config.learning_rate * factor,
            config.decay_steps,
            config.decay_rate,
            staircase=True,
        )
        model.compile(
            keras.optimizers.Adam(rate, beta_1=0.9, beta_2=0.999),
            loss=gd.VectorLoss(
                attribute_network.cross_entropy, names=data.names
            ),
            metrics=_metrics(len(data.names)),
        )
        return model

    def serving_model(
        self, run: experiment.Run, model: keras.Model
    ) -> keras.Model:
        """Returns a model from images to the probability of each attribute."""
        config, data = run.config, self._data(run)
        shape = config.height, config.width, data.channels
        network = gd.inference_model(model)
        return raw_images.of_attributes(network, shape, data.names, config.crop)

    def training_data(
        self, run: experiment.Run, reading: streams.Reading
    ) -> tf.data.Dataset:
        """See the base class."""
        return self._data(run).training_batches(
            run.config.training_split,
            run.config.shape,
            reading,
        )

    def test_data(self, run: experiment.Run) -> tf.data.Dataset:
        """See the base class."""
        return self._data(run).test_batches(
            run.config.evaluation_split,
            run.config.shape,
            batch_size=run.config.batch_size,
        )

    def callbacks(
        self, run: experiment.Run, model: keras.Model
    ) -> Sequence[keras.callbacks.Callback]:
        """Monitors the gradients on batches in a separate order."""
        # A measurement runs on one device: the chief is enough.
        if not (run.config.monitor_steps and run.worker.is_chief):
            return []
        batches = self._data(run).training_batches(
            run.config.training_split,
            run.config.shape,
            streams.Reading(run.config.batch_size, run.seed + 1),
        )
        return [
            gd.GradientMonitor(
                batches.take(_MONITORED_BATCHES).cache(),
                every_steps=run.config.monitor_steps,
                path=run.directory / "gradients.csv",
                log_dir=run.directory / "tensorboard" / "gradients",
            )
        ]

    def check_data(self, run: experiment.Run) -> None:
        """See the base class."""
        for split in self._splits(run):
            self._data(run).check(split)

    def conclude(
        self, run: experiment.Run, model: keras.Model
    ) -> dict[str, float]:
        """Writes `attributes.csv`; returns the error of a constant guess."""
        data = self._data(run)
        logits = model.predict(
            distribution.shard_by_example(self.test_data(run)), verbose=0
        )
        labels = data.labels(run.config.evaluation_split)
        values = []
        for metric in _metrics(len(data.names)):
            metric.update_state(labels, logits)
            values.append(metric.per_attribute().numpy())
        known = labels >= 0
        rates = (labels * known).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        rows = zip(data.names, rates, *values, strict=True)
        if run.worker.is_chief:
            files.write_text(
                run.directory / _TABLE,
                "attribute,frequency,error_rate,max_f1\n"
                + "".join(
                    f"{name},{rate:.6f},{wrong:.6f},{best:.6f}\n"
                    for name, rate, wrong, best in rows
                ),
            )
        constant = np.minimum(rates, 1.0 - rates)
        return {"majority_error": 100.0 * float(constant.mean())}

    def measure(self, row: Mapping[str, float]) -> dict[str, float]:
        """See the base class."""
        return {
            "error": 100.0 * row["val_error_rate"],
            "max_f1": 100.0 * row["val_max_f1"],
            "best_step": row["step"],
            "test_loss": row["val_loss"],
        }

    def is_published(self, config: Mapping[str, Any]) -> bool:
        """See the base class."""
        return config["dataset"] == self.defaults.dataset

    def _data(self, run: experiment.Run) -> attribute_data.AttributeSet:
        return _open(run.config.dataset, run.config.labels, run.data_dir)

    def _splits(self, run: experiment.Run) -> tuple[str, str]:
        return run.config.training_split, run.config.evaluation_split


def _metrics(num_attributes: int) -> list[keras.metrics.Metric]:
    return [
        attribute_metrics.ErrorRate(num_attributes),
        attribute_metrics.MaxF1(num_attributes),
    ]
