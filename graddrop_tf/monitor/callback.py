"""What the gradients of the losses do to each other while a model trains.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, Figure 3(c): the share of the gradients
that the layer passes, also for models that are trained without it.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from graddrop_tf import linalg, random, replicas
from graddrop_tf.bases.combiner import Chain, Combiner
from graddrop_tf.bases.configuration import check_count
from graddrop_tf.inference import has_combiner
from graddrop_tf.methods.graddrop import function as graddrop_lib
from graddrop_tf.methods.graddrop.layer import GradDrop, SignDropout
from graddrop_tf.model import MultiLossModel
from graddrop_tf.step.gradients import per_loss_gradients, weights_of

_PREFIX = "gradients/"


def kept_share(
    gradients: Sequence[tf.Tensor], activations, graddrop: SignDropout
) -> tf.Tensor:
    """Computes the share of the gradients' values that GradDrop keeps.

    It is the expectation over the uniform draw: a value whose G_i is positive
    is kept with probability f(P), one whose G_i is negative with 1 - f(P),
    one whose G_i is 0 never (Algorithm 1, step 4). The leak counts as its
    weight: `l_i + (1 - l_i) M_i`. Values of 0 do not count.

    Args:
        gradients: T tensors, dL_i/dA (batch separated: dL_i/dA_i).
        activations: A; a list of T tensors where batch separated.
        graddrop: Says k (or f), leak, and whether the batch is summed away.

    Returns:
        A scalar in [0, 1]; 0 where all gradients are 0, NaN where one is not
        finite.

    Example:
        >>> kept_share([[[3.0]], [[-1.0]]], tf.ones([1, 1]), gd.GradDrop())
        0.5
    """
    gradients = linalg.as_list(gradients)
    signed = _signed_gradients(gradients, activations, graddrop)
    passed = graddrop.transform(graddrop_lib.sign_purity(signed))
    zeros = tf.zeros_like(passed)
    kept = count = 0.0
    for g, G, leak in zip(
        gradients, signed, graddrop.leaks(len(gradients)), strict=True
    ):
        chance = tf.where(G > 0, passed, 1 - passed)
        chance = tf.where(tf.equal(G, 0), zeros, chance)
        counts = tf.cast(tf.not_equal(g, 0), chance.dtype)
        kept += tf.reduce_sum(counts * (leak + (1 - leak) * chance))
        count += tf.reduce_sum(counts)
    return linalg.safe_ratio(kept, count)


def mean_purity(
    gradients: Sequence[tf.Tensor], activations, graddrop: SignDropout
) -> tf.Tensor:
    """Computes the mean sign purity over positions with a gradient.

    Args:
        gradients: As in `kept_share`, like all that follow.
        activations: As in `kept_share`.
        graddrop: As in `kept_share`.

    Returns:
        A scalar in [0, 1]; 0.5 where there is no such position, NaN where a
        gradient is not finite.
    """
    gradients = linalg.as_list(gradients)
    signed = _signed_gradients(gradients, activations, graddrop)
    # P is exactly 0.5 where there is no gradient.
    beyond_half = graddrop_lib.sign_purity(signed) - 0.5
    present = tf.not_equal(tf.add_n([tf.abs(G) for G in signed]), 0)
    count = tf.reduce_sum(tf.cast(present, beyond_half.dtype))
    return 0.5 + linalg.safe_ratio(tf.reduce_sum(beyond_half), count)


def _signed_gradients(gradients, activations, graddrop) -> list[tf.Tensor]:
    return graddrop_lib.signed_gradients(
        gradients, activations, graddrop.marginalize_batch
    )


def mean_cosine_and_conflict_rate(
    gradients: Sequence[tf.Tensor], activations
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compares the gradients of all pairs of losses.

    Batch-separated gradients have no position in common. There the two are
    those of the G_i, the sums of sgn(A_i) dL_i/dA_i over the batch.

    Args:
        gradients: As in `kept_share`.
        activations: As in `kept_share`.

    Returns:
        The mean of cos(g_i, g_j) over the pairs i < j, where a gradient of
        zeros has cosine 0, and the share of pairs whose inner product is
        negative. Both are `float64`, 0 with one loss, and NaN where a
        gradient is not finite.
    """
    gradients = linalg.as_list(gradients)
    if linalg.is_separate(activations):
        gradients = graddrop_lib.signed_gradients(gradients, activations)
    gram = linalg.Rows.of(gradients).gram()
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    cosines = linalg.safe_ratio(gram, norms[:, None] * norms[None, :])
    cosines = tf.linalg.set_diag(cosines, tf.zeros_like(norms))
    conflicts = tf.cast(cosines < 0, cosines.dtype)
    conflicts = tf.where(tf.math.is_nan(cosines), cosines, conflicts)
    count = max(1, len(gradients) * (len(gradients) - 1))
    return tf.reduce_sum(cosines) / count, tf.reduce_sum(conflicts) / count


def _norm(gradients, activations) -> tf.Tensor:
    """Returns the L2 norm of what the trunk receives."""
    gradients = graddrop_lib.trunk_gradients(gradients, activations)
    return tf.sqrt(tf.reduce_sum(linalg.squared_norms(gradients)))


@dataclasses.dataclass(frozen=True)
class _Place:
    """A place where the gradients of the losses are combined.

    Attributes:
        name: What the place is called.
        combiner: What combines them.
        step: The number from which the combiner draws.
        activations: A; a list of T tensors where batch separated.
        gradients: T tensors.
    """

    name: str
    combiner: Combiner
    step: tf.Tensor
    activations: tf.Tensor | list[tf.Tensor]
    gradients: list[tf.Tensor]

    def measure(
        self, graddrop: SignDropout, scale: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Computes what a `GradientMonitor` logs of this place.

        Args:
            graddrop: The hypothetical one.
            scale: What the gradients were multiplied by.

        Returns:
            Scalars by name.
        """
        methods = _methods_of(self.combiner)
        masks = [m for m in methods if isinstance(m, SignDropout)]
        mask = masks[0] if masks else graddrop
        masked = combined = self.gradients
        with random.drawing(self.step):
            for method in methods:
                if method is mask:
                    masked = combined
                combined = method.combine(combined, self.activations)
        cosine, conflict_rate = mean_cosine_and_conflict_rate(
            self.gradients, self.activations
        )
        scale = tf.cast(scale, tf.float64)
        return {
            "kept_share": kept_share(masked, self.activations, mask),
            "hypothetical_kept_share": kept_share(
                self.gradients, self.activations, graddrop
            ),
            "mean_purity": mean_purity(masked, self.activations, mask),
            "mean_cosine": cosine,
            "conflict_rate": conflict_rate,
            "norm_before": _norm(self.gradients, self.activations) / scale,
            "norm_after": _norm(combined, self.activations) / scale,
        }


def _methods_of(combiner: Combiner) -> list[Combiner]:
    """Returns the combiner, or those that a chain is made of."""
    if not isinstance(combiner, Chain):
        return [combiner]
    return [m for inner in combiner.combiners for m in _methods_of(inner)]


class _ModelPlaces:
    """The activations of a `MultiLossModel`."""

    def __init__(self, model: MultiLossModel):
        self._model = model

    def check(self, graddrop: SignDropout) -> None:
        """Checks that a GradDrop fits the losses, and tells it their names."""
        names = self._model.recipe_state.combiner.loss_names
        graddrop.set_losses(len(names), names)

    def find(self, x, y, sample_weight, factor) -> list[_Place]:
        """Computes the gradients of a batch.

        Args:
            x: Inputs.
            y: Labels.
            sample_weight: Their weights, or None.
            factor: What to multiply the losses by.

        Returns:
            The places.
        """
        model, state = self._model, self._model.recipe_state
        activations = model.trunk(x, training=True)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as tape:
            tape.watch(activations)
            y_pred = model.heads(activations, training=True)
            losses = model.per_loss_values(y, y_pred, sample_weight)
        factors = weights_of(state, losses) * factor
        gradients = per_loss_gradients(tape, losses, activations, factors)
        step = state.combiner.next_step()
        return [_Place("", state.combiner, step, activations, gradients)]


class _Tap(keras.layers.Layer):
    """Calls a combiner and shows what it gives the losses."""

    def __init__(self, combiner: Combiner, show: Callable, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self._combiner = combiner
        self._show = show

    def call(self, inputs):
        step = tf.identity(self._combiner.step.value)
        branches = self._combiner(inputs, training=True)
        self._show(self._combiner, step, branches, linalg.is_separate(inputs))
        return branches

    def compute_output_spec(self, inputs):
        return self._combiner.compute_output_spec(inputs)

    def compute_mask(self, inputs, previous_mask=None):
        return self._combiner.compute_mask(inputs, previous_mask)


class _LayerPlaces:
    """The combiners in a functional Keras model."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._nums_losses: list[int] = []
        if hasattr(model, "operations"):
            self._probe = self._with_taps(model)
        if not self._nums_losses:
            raise ValueError(
                "A gd.GradientMonitor needs a gd.MultiLossModel, or a "
                "functional model with combiners such as gd.GradDrop in it. "
                f"Received: the model {model.name!r}, which is neither."
            )

    def _with_taps(self, model: keras.Model) -> keras.Model:
        def share(layer):
            return self._with_taps(layer) if has_combiner(layer) else layer

        def call(layer, *args, **kwargs):
            if not isinstance(layer, Combiner):
                return layer(*args, **kwargs)
            name = f"{layer.name}_tap_{len(self._nums_losses)}"
            branches = _Tap(layer, self._show, name=name)(args[0])
            self._nums_losses.append(len(branches))
            return branches

        # A clone of a compiled model would come with an optimizer of its own.
        plain = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(
            plain, clone_function=share, call_function=call
        )

    def _show(self, combiner, step, branches, separate) -> None:
        self._tape.watch(branches)
        self._shown.append((combiner, step, branches, separate))

    def check(self, graddrop: SignDropout) -> None:
        """See `_ModelPlaces`."""
        for num_losses in self._nums_losses:
            graddrop.set_losses(num_losses)

    def find(self, x, y, sample_weight, factor) -> list[_Place]:
        """See `_ModelPlaces`."""
        self._shown = []
        self._tape = tf.GradientTape(watch_accessed_variables=False)
        with self._tape:
            y_pred = self._probe(x, training=True)
            loss = self._model.compute_loss(x, y, y_pred, sample_weight)
        gradients = self._tape.gradient(
            loss,
            [branches for _, _, branches, _ in self._shown],
            output_gradients=tf.cast(factor, loss.dtype),
            unconnected_gradients="zero",
        )
        places = [
            _Place(
                combiner.name,
                combiner,
                step,
                branches if separate else branches[0],
                [tf.convert_to_tensor(g) for g in arrived],
            )
            for (combiner, step, branches, separate), arrived in zip(
                self._shown, gradients, strict=True
            )
        ]
        del self._tape, self._shown
        return places


class _Batches:
    """The batches of a dataset, over and over, by ascending number."""

    def __init__(self, dataset: tf.data.Dataset, first: int):
        self._rest = iter(dataset.repeat().skip(first))
        self._number = first - 1

    def get(self, number: int):
        """Returns the batch of a number that is not below the last one."""
        while self._number < number:
            self._batch = next(self._rest, None)
            if self._batch is None:
                raise ValueError(
                    "`data` must hold at least one batch. Received: an empty "
                    "dataset."
                )
            self._number += 1
        return self._batch


class _Table:
    """A CSV file with a row for each sample."""

    def __init__(self, path: pathlib.Path, columns: Sequence[str], step: int):
        """Opens the file, and drops the rows from `step` on.

        Raises:
            ValueError: Where the file has other columns.
        """
        self._path = path
        header = ",".join(["step", *columns]) + "\n"
        text = path.read_text() if path.exists() else header
        # A line that was not written to its end is dropped as well.
        lines = [x for x in text.splitlines(True) if x.endswith("\n")]
        if lines[:1] not in ([], [header]):
            raise ValueError(
                f"{path} has other columns; give the monitor another `path`. "
                f"Received: {lines[0].strip()!r}, expected: {header.strip()!r}."
            )
        rows = [x for x in lines[1:] if int(x.partition(",")[0]) < step]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join([header, *rows]))
        os.replace(temporary, path)

    def append(self, step: int, values: Sequence[float]) -> None:
        """Adds a row."""
        with open(self._path, "a") as file:
            file.write(",".join(map(str, [step, *values])) + "\n")


class GradientMonitor(keras.callbacks.Callback):
    """Logs how the gradients of the losses agree, and what GradDrop keeps.

    It works for a `gd.MultiLossModel` with any recipe, and for a functional
    Keras model with combiners such as `gd.GradDrop` in it: there for each of
    them, in columns that begin with the layer's name if there are several.
    For a baseline in the layer form put `gd.Chain([], num_losses=T)` there.

    Every `every_steps` training steps it takes a batch of `data` through the
    model as in training, and computes the gradients that the combiners would
    receive: of the weighted losses, with respect to the activations. Nothing
    of the model changes: a run gives the same weights, bit for bit, with the
    monitor and without it. The quantities are

    - `kept_share`: the share of the gradients' nonzero values that the mask
      of the model's own GradDrop keeps, of the gradients that reach it; in a
      model without GradDrop that of `graddrop`. It is the expectation over
      the draw; a leak counts as its weight. From 0 to 1.
    - `hypothetical_kept_share`: what the mask of `graddrop` would keep of the
      per-loss gradients. It does not depend on the method that the model is
      trained by, and so compares methods. From 0 to 1.
    - `mean_purity`: the mean of the sign purity over the positions at which a
      gradient arrives, for the GradDrop of `kept_share`. From 0 to 1.
    - `mean_cosine`: the mean over pairs of losses of the cosine of their
      gradients. From -1 to 1.
    - `conflict_rate`: the share of the pairs of losses whose gradients have a
      negative inner product. From 0 to 1.
    - `norm_before`: the L2 norm of the plain sum of the gradients (batch
      separated: of all gradients together), in units of the loss over those
      of the activations.
    - `norm_after`: that of what the model's methods make of them, before
      clipping and without what is no task: regularisers, `add_loss` terms of
      a `MultiLossModel` and the gradient penalty.

    They go to a file with a row for each sample (`path`), to TensorBoard
    (`log_dir`), and, as means over an epoch's samples under `gradients/...`,
    to the logs of that epoch: callbacks that stand after the monitor, such as
    `CSVLogger`, and `History` see them. An epoch without a sample is sampled
    at its end. A value that is not finite stays visible.

    The measurement runs as one batch on one device, however many replicas the
    training has, without communication: the numbers are those of the whole
    batch. All T gradients of the batch exist at once, whatever
    `loss_chunk_size` is: a smaller batch bounds the memory. Where several
    processes train, give paths to the first one's monitor alone.

    Source: Chen et al., NeurIPS 2020, Figure 3(c).

    Args:
        data: What to measure on: a batch `(x, y)` or `(x, y, sample_weight)`,
            or a `tf.data.Dataset` of such batches, which are taken in turn.
            Not a shuffled dataset object that `fit` reads too: each of its
            readers changes the order that the next one sees.
        every_steps: Training steps from one sample to the next.
        graddrop: The `gd.GradDrop` of `hypothetical_kept_share`;
            `gd.GradDrop()` by default.
        path: A CSV file, with the number of training steps in its first
            column. When training is resumed, the rows after the restored step
            are dropped, and the file ends as if training had never stopped.
        log_dir: A directory for TensorBoard.

    Raises:
        ValueError: Where an argument is of the wrong kind, the model has no
            place to measure at, `graddrop` does not fit its losses, or `path`
            holds other columns.

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
        _check_data(data)
        if not isinstance(data, tf.data.Dataset):
            data = keras.tree.map_structure(_as_tensor, data)
        self._data = data
        self._every_steps = every_steps
        # Neither a draw from Python's generator nor a count of layer names:
        # a model that is made after the monitor is the same without it.
        self._graddrop = graddrop or GradDrop(seed=0, name="hypothetical")
        self._path = None if path is None else pathlib.Path(path)
        self._log_dir = log_dir
        self._measured = None

    def on_train_begin(self, logs=None):
        """Prepares the measurement of this model."""
        # Keras makes a new train function where a model is compiled again.
        key = (self.model, self.model.train_function)
        if self._measured != key:
            self._measure = self._make_measure()
            self._measured = key
        self._batches = self._table = self._writer = None
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the step, and forgets the last epoch's samples."""
        self._first_step = self._last_step = self._steps_taken()
        self._samples = []

    def on_train_batch_end(self, batch, logs=None):
        """Takes a sample if it is time."""
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
        """Closes what is written to TensorBoard."""
        if self._writer is not None:
            self._writer.close()

    def _steps_taken(self) -> int:
        """Returns the steps taken in all, also before a restart."""
        optimizer = self.model.optimizer
        while hasattr(optimizer, "inner_optimizer"):
            optimizer = optimizer.inner_optimizer
        micro_batches = optimizer.gradient_accumulation_steps or 1
        iterations = keras.ops.convert_to_numpy(optimizer.iterations)
        return int(iterations) * micro_batches

    def _sample(self) -> None:
        step = self._steps_taken()
        number = max(0, step - 1) // self._every_steps
        measured = self._measure(*self._batch(number))
        sample = {name: float(value) for name, value in measured.items()}
        self._samples.append(sample)
        if self._path is not None:
            if self._table is None:
                self._table = _Table(self._path, list(sample), step)
            self._table.append(step, list(sample.values()))
        if self._writer is not None:
            with self._writer.as_default():
                for name, value in sample.items():
                    tf.summary.scalar(_PREFIX + name, value, step=step)

    def _batch(self, number: int):
        """Returns the batch of a number: a function of the step alone."""
        if not isinstance(self._data, tf.data.Dataset):
            return self._data
        if self._batches is None:
            self._batches = _Batches(self._data, number)
        return self._batches.get(number)

    def _make_measure(self) -> Callable:
        model, graddrop = self.model, self._graddrop
        if isinstance(model, MultiLossModel):
            source = _ModelPlaces(model)
        else:
            source = _LayerPlaces(model)
        source.check(graddrop)

        def measure(x, y, sample_weight=None):
            # Regularisers ask the scope for the values of their variables.
            values = [(v, v.value) for v in model.trainable_variables]
            with keras.StatelessScope(values, collect_losses=True):
                scale = model.optimizer.scale_loss(tf.ones([]))
                # The losses may come divided by the number of replicas.
                factor = replicas.unscale_loss(scale)
                places = source.find(x, y, sample_weight, factor)
                return {
                    prefix + name: value
                    for prefix, place in _prefixed(places)
                    for name, value in place.measure(graddrop, scale).items()
                }

        if model.run_eagerly:
            return measure
        return tf.function(measure, autograph=False, reduce_retracing=True)


def _prefixed(places: list[_Place]) -> list[tuple[str, _Place]]:
    """Puts a different name before the columns of each place."""
    if len(places) == 1:
        return [("", places[0])]
    counts, prefixed = {}, []
    for place in places:
        count = counts[place.name] = counts.get(place.name, 0) + 1
        name = place.name if count == 1 else f"{place.name}_{count}"
        prefixed.append((name + "/", place))
    return prefixed


def _check_data(data) -> None:
    batch = data.element_spec if isinstance(data, tf.data.Dataset) else data
    received = type(batch).__name__
    if isinstance(batch, (list, tuple)):
        if len(batch) in (2, 3):
            return
        received += f" of length {len(batch)}"
    if batch is not data:
        received = f"Dataset of {received}"
    raise ValueError(
        "`data` takes a batch `(x, y)` or `(x, y, sample_weight)`, or a "
        f"tf.data.Dataset of such batches. Received: a {received}."
    )


def _as_tensor(x):
    return x if x is None else tf.convert_to_tensor(x)
