"""The losses of `compile`, with the value of each."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

# Per-loss values exist in Keras only inside its private compiled loss; the
# supported Keras versions are pinned in setup.cfg for this import.
from keras.src.trainers.compile_utils import CompileLoss

from graddrop_tf import places, replicas
from graddrop_tf.step.vector_loss import VectorLoss


class _LossMeans(keras.metrics.Metric):
    """The running means of T losses, shown under their names."""

    def __init__(self, names: Sequence[str]):
        super().__init__(name="losses")
        self._names = names
        self._totals, self._counts = (
            self.add_variable((len(names),), initializer="zeros", name=name)
            for name in ("totals", "counts")
        )

    def update_state(self, values, nums_examples):
        counts = tf.cast(nums_examples, tf.float32)
        self._totals.assign_add(tf.cast(values, tf.float32) * counts)
        self._counts.assign_add(tf.broadcast_to(counts, self._counts.shape))

    def result(self):
        means = tf.math.divide_no_nan(
            tf.convert_to_tensor(self._totals),
            tf.convert_to_tensor(self._counts),
        )
        return {f"{n}_loss": means[i] for i, n in enumerate(self._names)}


class _Alignment(CompileLoss):
    """Keras' way to match labels and sample weights with outputs."""

    def build(self, y_true, y_pred):
        super().build(y_true, y_pred)
        self.terms = self._flat_losses
        # A single loss at the root is given the whole structures.
        root = self.terms[0]._replace(
            path=(), loss=self._keep, loss_weights=None
        )
        self._flat_losses = [root]
        self._metrics.clear()

    def names(self, outputs) -> list[str]:
        """Returns the names of the losses of outputs, in their order."""
        self.build(outputs, outputs)
        return [self.terms[i].name for i in self.order(outputs)]

    def order(self, outputs) -> list[int]:
        """Returns the losses' indices in the order of the outputs.

        A dict of losses may name the outputs in another order.
        """
        paths = [path for path, _ in keras.tree.flatten_with_path(outputs)]
        ranks = [paths.index(term.path) for term in self.terms]
        return sorted(range(len(ranks)), key=ranks.__getitem__)

    def _keep(self, y_true, y_pred, sample_weight=None):
        self._kept = y_true, y_pred, sample_weight
        return 0.0

    def arguments(self, y_true, y_pred, sample_weight) -> list[tuple]:
        """Returns labels, output and sample weight of each loss."""
        self.call(y_true, y_pred, sample_weight)
        *structures, weights = self._kept
        if not keras.tree.is_nested(weights):
            return [
                (*(_at(term.path, s) for s in structures), weights)
                for term in self.terms
            ]
        structures.append(weights)
        return [
            tuple(_at(term.path, s) for s in structures) for term in self.terms
        ]


class PerLossCompileLoss(CompileLoss):
    """Keras' compiled loss, which computes its losses one by one.

    Args:
        loss: As in `keras.Model.compile`.
        loss_weights: As in `keras.Model.compile`.
        output_names: Names of the model's outputs; None where they have none.
        outputs: The outputs, or symbolic tensors in their place; None where
            the first batch tells them.

    Attributes:
        loss_names: The names of the losses in the order of the outputs, None
            until the outputs are known.

    Raises:
        ValueError: If the losses do not fit the outputs.
    """

    def __init__(self, loss, loss_weights, output_names, outputs):
        super().__init__(loss, loss_weights, output_names=output_names)
        self._alignment = self._align()
        self.loss_names: tuple[str, ...] | None = None
        if outputs is not None:
            self._name_losses(outputs)

    def _name_losses(self, outputs) -> None:
        if self.is_vector:
            names = self._user_loss.names_for(outputs)
        else:
            names = self._names(outputs)
        self.loss_names = tuple(names)
        if len(names) > 1:
            self._tracker.add_to_store("metrics", _LossMeans(names))

    def _names(self, outputs) -> list[str]:
        try:
            return self._align().names(outputs)
        except (KeyError, TypeError, ValueError) as error:
            shapes = keras.tree.map_structure(lambda o: tuple(o.shape), outputs)
            raise ValueError(
                "`loss` must be one for all outputs, or one for each: a list, "
                "or a dict with their names. Received: "
                f"{self._user_loss} for outputs of shapes {shapes}."
            ) from error

    def _align(self) -> _Alignment:
        return _Alignment(
            self._user_loss,
            self._user_loss_weights,
            output_names=self.output_names,
        )

    @property
    def is_vector(self) -> bool:
        """Whether the losses are one `VectorLoss`."""
        return isinstance(self._user_loss, VectorLoss)

    def check_place(self, place: places.Place) -> None:
        """Checks that the losses fit the activations.

        Raises:
            ValueError: If they do not.
        """
        place.check_losses(len(self.loss_names), self.is_vector)

    def call(self, y_true, y_pred, sample_weight=None):
        """Computes the sum of the losses, a scalar."""
        losses = self.per_loss(y_true, y_pred, sample_weight)
        return tf.reduce_sum(losses) if self.is_vector else sum(losses)

    def per_loss(self, y_true, y_pred, sample_weight=None):
        """Computes the losses.

        Returns:
            A list of T scalars, or a `[T]` tensor for a `VectorLoss`:
            weighted, and divided by the number of replicas.
        """
        if self.loss_names is None:
            self._name_losses(y_pred)
        of_each = self._vector if self.is_vector else self._scalars
        # As in Keras: names tell the losses' operations in a profile.
        with keras.name_scope(self.name):
            losses = of_each(y_true, y_pred, sample_weight)
        self.built = True
        return losses

    def _vector(self, y_true, y_pred, sample_weight):
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
        self._track(values, tf.shape(y_pred)[0])
        return loss.weighted(values)

    def _scalars(self, y_true, y_pred, sample_weight):
        arguments = self._alignment.arguments(y_true, y_pred, sample_weight)
        terms = self._alignment.terms
        if len(terms) != len(self.loss_names):
            raise ValueError(
                "The losses must be one for each output. Received: "
                f"{len(terms)} losses for {list(self.loss_names)}."
            )
        order = self._alignment.order(y_pred)
        terms = [terms[i] for i in order]
        arguments = [arguments[i] for i in order]
        values = [
            tf.cast(term.loss(*given), self.dtype)
            for term, given in zip(terms, arguments, strict=True)
        ]
        counts = [tf.shape(keras.tree.flatten(a[1])[0])[0] for a in arguments]
        self._track(values, counts)
        return [
            value if term.loss_weights is None else value * term.loss_weights
            for value, term in zip(values, terms, strict=True)
        ]

    def _track(self, values, nums_examples) -> None:
        for metric in self.metrics:
            values = tf.cast(tf.stack(values), tf.float32)
            metric.update_state(replicas.unscale_loss(values), nums_examples)


def _at(path, structure):
    for key in path:
        structure = structure[key]
    return structure


def _only(value):
    """Unpacks the one tensor of a single output."""
    flat = keras.tree.flatten(value)
    if len(flat) != 1:
        raise ValueError(
            f"A VectorLoss takes one output. Received: {len(flat)} tensors."
        )
    return None if value is None else flat[0]
