"""One forward pass, recorded so that each gradient can be asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from graddrop_tf import places, replicas
from graddrop_tf.step import losses as losses_lib
from graddrop_tf.step import penalty
from graddrop_tf.step.gradients import LossGradients


@dataclasses.dataclass
class Taped:
    """A recorded forward pass through trunk and heads.

    Attributes:
        trunk: The trunk.
        heads: The heads.
        y_pred: The outputs.
        losses: The T losses, divided by the number of replicas.
        place: Where the gradients of the losses meet: the activations.
        trunk_terms: Regularisers and `add_loss` terms of the trunk.
        heads_terms: The same of the heads.
        trunk_tape: Recorded the trunk.
        heads_tape: Recorded the heads and their variables; from the
            activations on for the plain sum.
        activations_tape: Recorded the heads from the activations on, for the
            gradients of the losses one by one.
        penalty: The gradient penalty, or None.
    """

    trunk: keras.Model
    heads: keras.Model
    y_pred: Any
    losses: losses_lib.Losses
    place: places.Place
    trunk_terms: Sequence[tf.Tensor]
    heads_terms: Sequence[tf.Tensor]
    trunk_tape: tf.GradientTape
    heads_tape: tf.GradientTape
    activations_tape: tf.GradientTape
    penalty: penalty.Penalty | None = None

    def per_loss(self, factors: tf.Tensor) -> LossGradients:
        """Returns the gradients of the losses times `factors` `[T]`."""
        return LossGradients(
            self.activations_tape,
            self.losses,
            self.place,
            factors,
            batched=not _sum_over_replicas(self.heads),
        )

    def gradients(
        self, combined, factors: tf.Tensor, scale: tf.Tensor, variables
    ) -> list[tf.Tensor | tf.IndexedSlices | None]:
        """Computes the gradient of each variable.

        The trunk receives the combined gradient, the heads that of the sum of
        their losses, both that of terms which are not losses. The plain sum
        takes one backward pass through the heads and one through the trunk.

        Args:
            combined: The gradient at the activations; None for the plain sum.
            factors: `[T]`, what the losses are multiplied by.
            scale: The loss scale.
            variables: Variables of the trunk and the heads.

        Returns:
            Gradients in the order of `variables`, None for one that nothing
            depends on.
        """
        wanted = {id(v) for v in variables}
        trunk, heads = (
            [v for v in part.trainable_variables if id(v) in wanted]
            for part in (self.trunk, self.heads)
        )
        if combined is None:
            combined, of_heads = self._of_sum(
                [self.place.activations, _values(heads)], factors, scale
            )
            combined = self.place.dense(combined)
        else:
            of_heads = self._of_sum(_values(heads), factors, scale)
            combined = self._with_terms(combined, scale)
        of_trunk = self.trunk_tape.gradient(
            [self.place.activations, self.trunk_terms],
            _values(trunk),
            output_gradients=[combined, _seeds(self.trunk_terms, scale)],
        )
        pairs = zip([*trunk, *heads], [*of_trunk, *of_heads], strict=True)
        found = {id(variable): gradient for variable, gradient in pairs}
        grads = [found.get(id(v)) for v in variables]
        if self.penalty is None:
            return grads
        return _add_gradients(
            grads, self.penalty.gradients(_values(variables), scale)
        )

    def _of_sum(self, sources, factors, scale):
        """Computes the gradients of all losses and terms of the heads."""
        return self.heads_tape.gradient(
            [self.losses.values, self.heads_terms],
            sources,
            output_gradients=[
                self.losses.seeds(factors),
                _seeds(self.heads_terms, scale),
            ],
        )

    def _with_terms(self, combined, scale):
        """Adds the gradients of the heads' terms at the activations."""
        if not self.heads_terms:
            return combined
        added = self.activations_tape.gradient(
            self.heads_terms,
            self.place.activations,
            output_gradients=_seeds(self.heads_terms, scale),
            unconnected_gradients="zero",
        )
        return self.place.add(combined, added)

    def total(self) -> tf.Tensor:
        """Returns the sum of the losses and of all other terms."""
        total = tf.reduce_sum(self.losses.vector)
        for term in [*self.trunk_terms, *self.heads_terms]:
            total += tf.cast(term, total.dtype)
        if self.penalty is not None:
            total += tf.cast(self.penalty.value, total.dtype)
        return total


def forward(
    trunk: keras.Model,
    heads: keras.Model,
    x,
    losses_of: Callable[[Any], losses_lib.Values],
    place_of: Callable[[Any, Any], places.Place],
    penalty_factor: float = 0.0,
    per_loss: bool = True,
) -> Taped:
    """Runs trunk, heads and losses, and records them.

    Args:
        trunk: The trunk.
        heads: The heads.
        x: The inputs.
        losses_of: Maps the outputs to the T losses.
        place_of: Maps what the trunk gives, and its inputs, to the place where
            gradients meet.
        penalty_factor: Weight of the gradient penalty on the inputs.
        per_loss: Whether the gradients of the losses are needed one by one,
            or their plain sum alone.
    """

    def record():
        # A persistent tape is slow over a recurrent trunk.
        with tf.GradientTape() as trunk_tape:
            given = distinct(trunk(x, training=True))
            place = place_of(given, x)
            trunk_terms = _added_losses(trunk)
        heads_tape = tf.GradientTape(persistent=True)
        activations_tape = tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        )
        with heads_tape, activations_tape:
            tape = activations_tape if per_loss else heads_tape
            tape.watch(place.activations)
            y_pred = heads(given, training=True)
            losses = losses_lib.of(losses_of(y_pred))
            heads_terms = _added_losses(heads)
        return Taped(
            trunk=trunk,
            heads=heads,
            y_pred=y_pred,
            losses=losses,
            place=place,
            trunk_terms=trunk_terms,
            heads_terms=heads_terms,
            trunk_tape=trunk_tape,
            heads_tape=heads_tape,
            activations_tape=activations_tape,
        ), losses.values

    taped, term = penalty.measure(penalty_factor, x, record)
    return dataclasses.replace(taped, penalty=term)


def distinct(activations: places.Structure) -> places.Structure:
    """Copies a tensor that is given twice, to tell its gradients apart."""
    seen: set[int] = set()

    def copy(tensor):
        if tensor is None or id(tensor) not in seen:
            seen.add(id(tensor))
            return tensor
        repeated = tf.identity(tensor)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            repeated._keras_mask = mask
        return repeated

    return tf.nest.map_structure(copy, activations)


def _added_losses(part: keras.Model) -> list[tf.Tensor]:
    """Returns regularisers and `add_loss` terms, as Keras scales them."""
    terms = [tf.reduce_sum(keras.ops.convert_to_tensor(t)) for t in part.losses]
    return [replicas.scale_loss(t) for t in terms]


def _seeds(terms, scale: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(scale, term.dtype) for term in terms]


def _sum_over_replicas(heads: keras.Model) -> bool:
    """Returns whether the heads' backward pass sums over replicas."""
    return replicas.num_replicas() > 1 and any(
        getattr(layer, "synchronized", False)
        for layer in heads._flatten_layers()
    )


def _values(variables) -> list[tf.Variable]:
    return [v.value for v in variables]


def _add_gradients(first, second) -> list[tf.Tensor | tf.IndexedSlices | None]:
    """Adds gradients one by one; None counts as zero."""
    return [
        (a if b is None else b)
        if a is None or b is None
        else tf.convert_to_tensor(a) + b
        for a, b in zip(first, second, strict=True)
    ]
