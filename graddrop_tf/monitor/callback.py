"""A callback that logs how the gradients of the losses interact."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from graddrop_tf import replicas
from graddrop_tf.checks import check_count
from graddrop_tf.methods.graddrop.layer import GradDrop, SignDropout
from graddrop_tf.monitor.probes import Measured, make_probe
from graddrop_tf.monitor.quantities import measure
from graddrop_tf.monitor.samples import Batches, Table

_PREFIX = "gradients/"


class GradientMonitor(keras.callbacks.Callback):
    """Logs how the gradients of the losses interact, and what GradDrop keeps.

    Works for a `gd.MultiLossModel` with any recipe, and for a functional
    Keras model with combiners such as `gd.GradDrop` in it. If there are
    several, each gets its own columns, which begin with the layer's name. A
    plain functional model is measured `at` a layer, before a method is chosen.

    Every `every_steps` training steps the monitor runs a batch of `data`
    through the model as in training, and computes the gradients that the
    combiners would receive: those of the weighted losses with respect to the
    activations. The model does not change: training gives the same weights,
    bit for bit, with and without the monitor. The quantities are

    - `kept_share`: the share of the gradients' nonzero values that the mask
      of the model's own GradDrop keeps, among the gradients that reach it; in
      a model without GradDrop, that of `graddrop`. It is the expectation over
      the random draw; a leak counts as its weight. From 0 to 1.
    - `hypothetical_kept_share`: what the mask of `graddrop` would keep of the
      per-loss gradients. It does not depend on the method that trains the
      model, so it compares methods. From 0 to 1.
    - `mean_purity`: the mean sign purity over the positions that receive a
      gradient, for the GradDrop of `kept_share`. From 0 to 1.
    - `mean_cosine`: the mean cosine of the gradients over pairs of losses.
      From -1 to 1.
    - `conflict_rate`: the share of pairs of losses whose gradients have a
      negative inner product. From 0 to 1.
    - `norm_before`: the L2 norm of the plain sum of the gradients (batch
      separated: of all gradients together), in units of the loss over those
      of the activations.
    - `norm_after`: the same after the model's methods, but before clipping
      and without terms that do not count as losses: regularisers, `add_loss`
      terms of a `MultiLossModel` and the gradient penalty.
    - `weight_NAME`: the weight of each loss, where the recipe of a
      `MultiLossModel` has a weighting.

    They are written to a file with a row for each sample (`path`), to
    TensorBoard (`log_dir`), and, averaged over an epoch's samples, to the logs
    of that epoch under `gradients/...`: `History` and callbacks that follow
    the monitor, such as `CSVLogger`, see them. An epoch without a sample is
    sampled at its end. Values that are not finite are logged as they are.

    The measurement runs as one batch on one device, however many replicas
    train, and without communication: the numbers are those of the whole
    batch. All T gradients of the batch exist at once, whatever
    `loss_chunk_size` is; use a smaller batch to save memory. If several
    processes train, give paths only to the monitor of the first.

    Source: Chen et al., NeurIPS 2020, Figure 3(c).

    Args:
        data: What to measure on: a batch `(x, y)` or `(x, y, sample_weight)`,
            or a `tf.data.Dataset` of such batches, which are taken in turn.
            Do not pass a shuffled dataset object that `fit` reads too: each
            reader changes the order that the next one sees.
        every_steps: Training steps from one sample to the next.
        at: Where to measure in a plain Keras model: the name of a layer, or a
            list, as in `gd.MultiLossModel.from_model`.
        graddrop: The `gd.GradDrop` of `hypothetical_kept_share`;
            `gd.GradDrop()` by default.
        path: A CSV file, with the number of training steps in its first
            column. When training resumes, the rows after the restored step
            are dropped, and the file ends like that of an uninterrupted run.
        log_dir: A directory for TensorBoard.

    Raises:
        ValueError: If an argument is of the wrong type, the model has no
            combiner and no layer `at` which to cut it, `graddrop` does not
            fit its losses, or `path` has other columns.

    Example:
        >>> monitor = gd.GradientMonitor(
        ...     (x[:64], y[:64]), path="run/gradients.csv", log_dir="run/board"
        ... )
        >>> model.fit(x, y, callbacks=[monitor, keras.callbacks.CSVLogger(f)])
    """

    def __init__(
        self,
        data,
        *,
        every_steps: int = 50,
        at: str | Sequence[str] | None = None,
        graddrop: SignDropout | None = None,
        path: str | os.PathLike | None = None,
        log_dir: str | os.PathLike | None = None,
    ):
        super().__init__()
        check_count("every_steps", every_steps)
        if graddrop is not None and not isinstance(graddrop, SignDropout):
            raise ValueError(
                "`graddrop` takes a gd.GradDrop. Received: "
                f"{graddrop!r} of type {type(graddrop).__name__}."
            )
        self._batches = Batches(data)
        self._every_steps = every_steps
        self._at = at
        # Without a seed and a name it would draw from Python's generator and
        # count a layer name, and change the models made after the monitor.
        self._graddrop = graddrop or GradDrop(seed=0, name="hypothetical")
        self._path = None if path is None else pathlib.Path(path)
        self._log_dir = log_dir
        self._measured = None

    def on_train_begin(self, logs=None):
        """Prepares the measurement of this model."""
        # Compiling a model again makes a new train function.
        key = (self.model, self.model.train_function)
        if self._measured != key:
            self._measure = self._make_measure()
            self._measured = key
        self._batches.restart()
        self._table = self._writer = None
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the step and starts the samples of this epoch."""
        self._first_step = self._last_step = self._steps_taken()
        self._samples = []

    def on_train_batch_end(self, batch, logs=None):
        """Takes a sample every `every_steps` steps."""
        step = self._first_step + batch + 1
        if step // self._every_steps > self._last_step // self._every_steps:
            self._sample()
        self._last_step = step

    def on_epoch_end(self, epoch, logs=None):
        """Adds the means over the epoch to its logs."""
        if not self._samples:
            self._sample()
        for name in self._samples[0]:
            values = [sample[name] for sample in self._samples]
            logs[_PREFIX + name] = math.fsum(values) / len(values)
        if self._writer is not None:
            self._writer.flush()

    def on_train_end(self, logs=None):
        """Closes the TensorBoard writer."""
        if self._writer is not None:
            self._writer.close()

    def _steps_taken(self) -> int:
        """Returns the number of steps taken since training first started."""
        optimizer = self.model.optimizer
        while hasattr(optimizer, "inner_optimizer"):
            optimizer = optimizer.inner_optimizer
        micro_batches = optimizer.gradient_accumulation_steps or 1
        iterations = keras.ops.convert_to_numpy(optimizer.iterations)
        return int(iterations) * micro_batches

    def _sample(self) -> None:
        step = self._steps_taken()
        number = max(0, step - 1) // self._every_steps
        measured = self._measure(*self._batches.get(number))
        sample = {name: float(value) for name, value in measured.items()}
        self._samples.append(sample)
        if self._path is not None:
            if self._table is None:
                self._table = Table(self._path, list(sample), step)
            self._table.append(step, list(sample.values()))
        if self._writer is not None:
            with self._writer.as_default():
                for name, value in sample.items():
                    tf.summary.scalar(_PREFIX + name, value, step=step)

    def _make_measure(self) -> Callable:
        model, graddrop = self.model, self._graddrop
        probe = make_probe(model, self._at)
        probe.check(graddrop)

        def measure_batch(x, y, sample_weight=None):
            probe.check(graddrop)
            # Regularisers ask the scope for the values of their variables.
            values = [(v, v.value) for v in model.trainable_variables]
            with keras.StatelessScope(values, collect_losses=True):
                scale = model.optimizer.scale_loss(tf.ones([]))
                # The losses may be divided by the number of replicas.
                factor = replicas.unscale_loss(scale)
                combiners = probe.measure(x, y, sample_weight, factor)
                return {
                    prefix + name: value
                    for prefix, at in _prefixed(combiners)
                    for name, value in measure(at, graddrop, scale).items()
                }

        if model.run_eagerly:
            return measure_batch
        return tf.function(
            measure_batch, autograph=False, reduce_retracing=True
        )


def _prefixed(combiners: list[Measured]) -> list[tuple[str, Measured]]:
    """Returns what was measured with a unique prefix for its columns."""
    if len(combiners) == 1:
        return [("", combiners[0])]
    counts, prefixed = {}, []
    for at in combiners:
        count = counts[at.name] = counts.get(at.name, 0) + 1
        name = at.name if count == 1 else f"{at.name}_{count}"
        prefixed.append((name + "/", at))
    return prefixed
