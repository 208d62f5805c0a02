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

_NONE = (None, "none")
_NOT_REDUCED = (
    "A loss is one value for the batch: give it the reduction "
    "'sum_over_batch_size', or take it column by column by a gd.VectorLoss."
)


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
        ValueError: If the losses do not fit the outputs, or one is not
            reduced.
    """

    def __init__(self, loss, loss_weights, output_names, outputs):
        super().__init__(loss, loss_weights, output_names=output_names)
        _check_reductions(keras.tree.flatten(loss))
        self._alignment = self._align(loss_weights)
        self.loss_names: tuple[str, ...] | None = None
        if outputs is not None:
            self._name_losses(outputs)

    def _name_losses(self, outputs) -> None:
        if isinstance(self._user_loss, VectorLoss):
            names = self._user_loss.names_for(outputs)
        else:
            names = self._names(outputs)
        self.loss_names = tuple(names)
        if len(names) > 1:
            self._tracker.add_to_store("metrics", _LossMeans(names))

    def _names(self, outputs) -> list[str]:
        shapes = keras.tree.map_structure(lambda o: tuple(o.shape), outputs)
        terms = self._terms(
            None,
            outputs,
            "`loss` must be one for all outputs, or one for each: a list, or a "
            f"dict with their names. Received: {self._user_loss} for outputs "
            f"of shapes {shapes}.",
        )
        weights = self._user_loss_weights
        self._terms(
            weights,
            outputs,
            "`loss_weights` must be one number for each loss, in the structure "
            f"of `loss`. Received: {weights}.",
        )
        return _names_of(terms, outputs)

    def _terms(self, loss_weights, outputs, message: str) -> list:
        """Returns the losses of the outputs, in their order.

        Raises:
            ValueError: With the message, if Keras refuses them.
        """
        alignment = self._align(loss_weights)
        try:
            alignment.build(outputs, outputs)
            order = alignment.order(outputs)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(message) from error
        return [alignment.terms[i] for i in order]

    def _align(self, loss_weights) -> _Alignment:
        return _Alignment(
            self._user_loss, loss_weights, output_names=self.output_names
        )

    @property
    def is_vector(self) -> bool:
        """Whether the losses are a vector: one is a `VectorLoss`."""
        losses = keras.tree.flatten(self._user_loss)
        return any(isinstance(loss, VectorLoss) for loss in losses)

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
            A list of T scalars, or a `[T]` tensor if one is a `VectorLoss`:
            weighted, and divided by the number of replicas.
        """
        if self.loss_names is None:
            self._name_losses(y_pred)
        # As in Keras: names tell the losses' operations in a profile.
        with keras.name_scope(self.name):
            losses = self._losses(y_true, y_pred, sample_weight)
        self.built = True
        return tf.concat(losses, axis=0) if self.is_vector else losses

    def _losses(self, y_true, y_pred, sample_weight) -> list[tf.Tensor]:
        """Computes the losses of each output: all scalars, or all vectors."""
        arguments = self._alignment.arguments(y_true, y_pred, sample_weight)
        terms = self._alignment.terms
        order = self._alignment.order(y_pred)
        terms = [terms[i] for i in order]
        arguments = [arguments[i] for i in order]
        values = [
            self._values(term, *given)
            for term, given in zip(terms, arguments, strict=True)
        ]
        self._check_count(values)
        self._track(values, arguments)
        return [
            _weighted(value, term)
            for value, term in zip(values, terms, strict=True)
        ]

    def _values(self, term, y_true, y_pred, sample_weight) -> tf.Tensor:
        """Computes the loss of an output, a scalar, or a vector of losses."""
        if isinstance(term.loss, VectorLoss):
            values = term.loss.values(y_true, y_pred, sample_weight)
            return tf.cast(values, self.dtype)
        value = tf.cast(term.loss(y_true, y_pred, sample_weight), self.dtype)
        if value.shape.rank:
            raise ValueError(
                f"{_NOT_REDUCED} Received: the loss {term.name!r} of shape "
                f"{value.shape}."
            )
        return value[tf.newaxis] if self.is_vector else value

    def _check_count(self, values: list[tf.Tensor]) -> None:
        count = sum(value.shape.num_elements() for value in values)
        if count == len(self.loss_names):
            return
        if self.is_vector:
            raise ValueError(
                "The VectorLoss returned another number of losses than the "
                f"model's output has columns: {count}, expected "
                f"{len(self.loss_names)}. Give the VectorLoss `names`."
            )
        raise ValueError(
            "The losses must be one for each output. Received: "
            f"{count} losses for {list(self.loss_names)}."
        )

    def _track(self, values: list[tf.Tensor], arguments) -> None:
        counts = []
        for value, (_, y_pred, _) in zip(values, arguments, strict=True):
            count = tf.shape(keras.tree.flatten(y_pred)[0])[0]
            counts += [count] * value.shape.num_elements()
        joined = tf.concat([tf.reshape(v, [-1]) for v in values], axis=0)
        for metric in self.metrics:
            metric.update_state(replicas.unscale_loss(joined), counts)


def _names_of(terms, outputs) -> list[str]:
    """Returns the names of losses; those of vectors tell all losses apart.

    Raises:
        ValueError: If they do not.
    """
    own = [
        term.loss.names_for(_at(term.path, outputs))
        if isinstance(term.loss, VectorLoss)
        else None
        for term in terms
    ]

    def joined(is_short: bool) -> list[str]:
        names = []
        for term, of_vector in zip(terms, own, strict=True):
            if of_vector is None:
                names.append(term.name)
            elif is_short and term.loss.names:
                names += of_vector
            else:
                names += [f"{term.name}_{name}" for name in of_vector]
        return names

    if all(of_vector is None for of_vector in own):
        return joined(is_short=False)
    for names in map(joined, (True, False)):
        if len(names) == len(set(names)):
            return names
    raise ValueError(
        "Each loss needs a name of its own: give each gd.VectorLoss `names`, "
        f"or another `name`. Received: {names}."
    )


def _at(path, structure):
    for key in path:
        structure = structure[key]
    return structure


def _check_reductions(losses) -> None:
    for loss in losses:
        if isinstance(loss, keras.losses.Loss) and loss.reduction in _NONE:
            raise ValueError(
                f"{_NOT_REDUCED} Received: {loss.name!r} with "
                f"reduction={loss.reduction!r}."
            )


def _weighted(value: tf.Tensor, term) -> tf.Tensor:
    """Applies the `loss_weights` of an output and of its `VectorLoss`."""
    if isinstance(term.loss, VectorLoss):
        value = term.loss.weighted(value)
    return value if term.loss_weights is None else value * term.loss_weights
