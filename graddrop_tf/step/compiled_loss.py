"""The losses of `compile`, with the value of each."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import keras
import tensorflow as tf

# Per-loss values exist in Keras only inside its private compiled loss; the
# supported Keras versions are pinned in setup.cfg for this import.
from keras.src.trainers.compile_utils import CompileLoss

from graddrop_tf import replicas
from graddrop_tf.step.vector_loss import VectorLoss


class _LossMeans(keras.metrics.Metric):
    """The running means of T losses, shown under their names."""

    def __init__(self, names: Sequence[str]):
        super().__init__(name="losses")
        self._names = names
        self._totals = self.add_variable(
            (len(names),), initializer="zeros", name="totals"
        )
        self._count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, values, num_examples):
        count = tf.cast(num_examples, tf.float32)
        self._totals.assign_add(tf.cast(values, tf.float32) * count)
        self._count.assign_add(count)

    def result(self):
        means = tf.math.divide_no_nan(
            tf.convert_to_tensor(self._totals),
            tf.convert_to_tensor(self._count),
        )
        return {f"{n}_loss": means[i] for i, n in enumerate(self._names)}


class PerLossCompileLoss(CompileLoss):
    """Keras' compiled loss, which also gives the values of its losses.

    Args:
        loss: As in `keras.Model.compile`.
        loss_weights: As in `keras.Model.compile`.
        output_names: Names of the model's outputs.
        names: Names of the losses in the order of the outputs.
    """

    def __init__(self, loss, loss_weights, output_names, names):
        super().__init__(loss, loss_weights, output_names=output_names)
        self.loss_names = tuple(names)
        self._recorded = threading.local()
        if isinstance(loss, VectorLoss) and len(names) > 1:
            self._tracker.add_to_store("metrics", _LossMeans(names))

    @property
    def is_vector(self) -> bool:
        """Whether the losses are one `VectorLoss`."""
        return isinstance(self._user_loss, VectorLoss)

    def build(self, y_true, y_pred):
        """Resolves the losses, and records the value of each."""
        super().build(y_true, y_pred)
        if self.is_vector:
            return
        flat = self._flat_losses
        if len(flat) != len(self.loss_names):
            raise ValueError(
                "The losses must be one for each output. Received: "
                f"{len(flat)} losses for {list(self.loss_names)}."
            )
        # A dict of losses may name the outputs in another order.
        order = {name: i for i, name in enumerate(self.loss_names)}
        self._positions = [
            order.get(loss.name, i) for i, loss in enumerate(flat)
        ]
        self._flat_losses = [
            loss._replace(loss=self._record(i, loss.loss, loss.loss_weights))
            for i, loss in zip(self._positions, flat, strict=True)
        ]
        for metric in self.metrics:
            metric.update_state = self._by_examples(metric.update_state)

    def _record(self, position, loss, loss_weight):
        def recording(y_true, y_pred, sample_weight=None):
            value = loss(y_true, y_pred, sample_weight)
            weighted = tf.cast(value, self.dtype)
            if loss_weight is not None:
                weighted *= loss_weight
            self._recorded.values[position] = weighted
            self._recorded.num_examples = tf.shape(y_pred)[0]
            return value

        return recording

    def _by_examples(self, update_state):
        # Keras weights the mean of a loss by the static batch size, if known.
        def update(value, sample_weight=None):
            return update_state(value, self._recorded.num_examples)

        return update

    def call(self, y_true, y_pred, sample_weight=None):
        """Computes the weighted sum of all losses, a scalar."""
        if not self.is_vector:
            self._recorded.values = {}
            return super().call(y_true, y_pred, sample_weight)
        loss = self._user_loss
        y_true, y_pred, sample_weight = map(
            _only, (y_true, y_pred, sample_weight)
        )
        values = loss.values(y_true, y_pred, sample_weight)
        if values.shape[0] != len(self.loss_names):
            raise ValueError(
                "The VectorLoss returned another number of losses than the "
                f"model's output has columns: {values.shape[0]}, expected "
                f"{len(self.loss_names)}. Give the VectorLoss `names`."
            )
        for metric in self.metrics:
            metric.update_state(
                replicas.unscale_loss(values), tf.shape(y_pred)[0]
            )
        weighted = loss.weighted(values)
        self._recorded.values = weighted
        return tf.reduce_sum(weighted)

    def per_loss(self, y_true, y_pred, sample_weight=None):
        """Computes the losses one by one.

        Returns:
            A list of T scalars, or a `[T]` tensor for a `VectorLoss`:
            weighted, and divided by the number of replicas.
        """
        self(y_true, y_pred, sample_weight)
        values = self._recorded.values
        if self.is_vector:
            return values
        return [values[i] for i in range(len(self.loss_names))]


def _only(value):
    """Unpacks the one tensor of a single output."""
    flat = keras.tree.flatten(value)
    if len(flat) != 1:
        raise ValueError(
            f"A VectorLoss takes one output. Received: {len(flat)} tensors."
        )
    return None if value is None else flat[0]
