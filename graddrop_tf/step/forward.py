"""One forward pass, recorded so that each gradient can be asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from graddrop_tf import places, replicas
from graddrop_tf.step import penalty
from graddrop_tf.step.gradients import Losses, LossGradients, as_vector


@dataclasses.dataclass
class Taped:
    """A recorded forward pass through trunk and heads.

    Attributes:
        trunk: The trunk.
        heads: The heads.
        y_pred: The outputs.
        losses: The T losses, divided by the number of replicas.
        activations: A, or a list with A_i for each loss.
        trunk_terms: Regularisers and `add_loss` terms of the trunk.
        heads_terms: The same of the heads.
        trunk_tape: Recorded the trunk.
        heads_tape: Recorded the heads and their variables.
        activations_tape: Recorded the heads from the activations on.
        penalty: The gradient penalty, or None.
    """

    trunk: keras.Model
    heads: keras.Model
    y_pred: Any
    losses: Losses
    activations: Any
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
            places.of(self.activations),
            factors,
            batched=not _sum_over_replicas(self.heads),
        )

    def gradients(
        self, combined, factors: tf.Tensor, scale: tf.Tensor, variables
    ) -> list[tf.Tensor | tf.IndexedSlices | None]:
        """Computes the gradient of each variable.

        The trunk receives the combined gradient, the heads that of the sum of
        their losses, both that of terms which are not losses.

        Args:
            combined: The gradient at the activations.
            factors: `[T]`, what the losses are multiplied by.
            scale: The loss scale.
            variables: Variables of the trunk and the heads.

        Returns:
            Gradients in the order of `variables`, None for one that nothing
            depends on.
        """
        trunk, heads = (p.trainable_variables for p in (self.trunk, self.heads))
        sums = _SumOfGradients(variables)
        sums.add(trunk, lambda v: self._of_trunk(v, combined, scale))
        weighted = LossGradients(
            self.heads_tape, self.losses, places.of(self.activations), factors
        )
        sums.add(heads, weighted.of_sum)
        if self.heads_terms:
            sums.add(
                heads,
                lambda v: self.heads_tape.gradient(
                    self.heads_terms,
                    v,
                    output_gradients=_seeds(self.heads_terms, scale),
                ),
            )
        if self.penalty is not None:
            sums.add(variables, lambda v: self.penalty.gradients(v, scale))
        return sums.values()

    def _of_trunk(self, variables, combined, scale):
        if self.heads_terms:
            added = self.activations_tape.gradient(
                self.heads_terms,
                self.activations,
                output_gradients=_seeds(self.heads_terms, scale),
                unconnected_gradients="zero",
            )
            combined = keras.tree.map_structure(tf.add, combined, added)
        return self.trunk_tape.gradient(
            [self.activations, self.trunk_terms],
            variables,
            output_gradients=[combined, _seeds(self.trunk_terms, scale)],
        )

    def total(self) -> tf.Tensor:
        """Returns the sum of the losses and of all other terms."""
        total = tf.reduce_sum(as_vector(self.losses))
        for term in [*self.trunk_terms, *self.heads_terms]:
            total += tf.cast(term, total.dtype)
        if self.penalty is not None:
            total += tf.cast(self.penalty.value, total.dtype)
        return total


def forward(
    trunk: keras.Model,
    heads: keras.Model,
    x,
    losses_of: Callable[[Any], Losses],
    penalty_factor: float = 0.0,
) -> Taped:
    """Runs trunk, heads and losses, and records them.

    Args:
        trunk: The trunk.
        heads: The heads.
        x: The inputs.
        losses_of: Maps the outputs to the T losses.
        penalty_factor: Weight of the gradient penalty on the inputs.
    """

    def record():
        # A persistent tape is slow over a recurrent trunk.
        with tf.GradientTape() as trunk_tape:
            activations = trunk(x, training=True)
            trunk_terms = _added_losses(trunk)
        with (
            tf.GradientTape(persistent=True) as heads_tape,
            tf.GradientTape(
                persistent=True, watch_accessed_variables=False
            ) as activations_tape,
        ):
            activations_tape.watch(activations)
            y_pred = heads(activations, training=True)
            losses = losses_of(y_pred)
            heads_terms = _added_losses(heads)
        taped = Taped(
            trunk=trunk,
            heads=heads,
            y_pred=y_pred,
            losses=losses,
            activations=activations,
            trunk_terms=trunk_terms,
            heads_terms=heads_terms,
            trunk_tape=trunk_tape,
            heads_tape=heads_tape,
            activations_tape=activations_tape,
        )
        return taped, losses

    taped, term = penalty.measure(penalty_factor, x, record)
    return dataclasses.replace(taped, penalty=term)


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


class _SumOfGradients:
    """Gradients of several terms, summed by variable."""

    def __init__(self, variables):
        self._sums = {v.path: None for v in variables}

    def add(self, variables, gradients_of: Callable) -> None:
        """Adds `gradients_of(variables)`; None counts as zero."""
        variables = [v for v in variables if v.path in self._sums]
        if not variables:
            return
        grads = gradients_of([v.value for v in variables])
        for variable, gradient in zip(variables, grads, strict=True):
            before = self._sums[variable.path]
            if before is None or gradient is None:
                total = before if gradient is None else gradient
            else:
                total = tf.convert_to_tensor(before) + gradient
            self._sums[variable.path] = total

    def values(self):
        """Returns the sums in the order of the variables."""
        return list(self._sums.values())
