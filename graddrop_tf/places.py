"""Where the gradients of the losses meet.

A combiner is given the activations as a user would pass them: one tensor
where the losses share it, a list of T tensors where the losses are batch
separated. Here each case is a value, so that no other module has to look at
the type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Shared:
    """One tensor that all losses share.

    Attributes:
        activations: A.
    """

    activations: tf.Tensor
    separate = False

    def of_each(self, num_losses: int) -> list[tf.Tensor]:
        """Returns the activations of each of T losses."""
        return [self.activations] * num_losses

    def dense(self, gradient) -> tf.Tensor:
        """Returns the gradient as a tensor, zeros in place of None."""
        return _dense(gradient, self.activations)

    def pick(self, gradient, index: int) -> tf.Tensor:
        """Returns the gradient of loss `index`, dense."""
        return self.dense(gradient)


@dataclasses.dataclass(frozen=True)
class Separated:
    """A tensor for each loss, with different examples in each.

    Attributes:
        activations: A_1 ... A_T.
    """

    activations: Sequence[tf.Tensor]
    separate = True

    def of_each(self, num_losses: int) -> list[tf.Tensor]:
        """Returns the activations of each of T losses.

        Raises:
            ValueError: If there is another number of them.
        """
        if len(self.activations) != num_losses:
            raise ValueError(
                "Batch-separated activations need one tensor for each loss. "
                f"Received: {len(self.activations)} activations, "
                f"{num_losses} losses."
            )
        return list(self.activations)

    def dense(self, gradients) -> list[tf.Tensor]:
        """Returns gradients as tensors, zeros in place of None."""
        pairs = zip(gradients, self.activations, strict=True)
        return [_dense(g, a) for g, a in pairs]

    def pick(self, gradients, index: int) -> tf.Tensor:
        """Returns the gradient of loss `index`, dense.

        Raises:
            ValueError: If the loss depends on the activations of another loss.
        """
        others = [
            i for i, g in enumerate(gradients) if g is not None and i != index
        ]
        if others:
            raise ValueError(
                "Batch-separated losses must each depend on their own "
                f"activations. Received: loss {index} depends on those of "
                f"{others}."
            )
        return _dense(gradients[index], self.activations[index])


Place = Shared | Separated


def _dense(gradient, like: tf.Tensor) -> tf.Tensor:
    if gradient is None:
        return tf.zeros_like(like)
    return tf.ensure_shape(tf.convert_to_tensor(gradient), like.shape)


def of(activations) -> Place:
    """Returns the place of activations: a list is batch separated."""
    if isinstance(activations, (Shared, Separated)):
        return activations
    if isinstance(activations, (list, tuple)):
        return Separated(activations)
    return Shared(activations)


def check_shapes(gradients: Sequence[tf.Tensor], activations) -> None:
    """Checks that every gradient has the shape of its activations.

    Raises:
        ValueError: If a number or a shape does not match.
    """
    matching = of(activations).of_each(len(gradients))
    for index, (gradient, activation) in enumerate(
        zip(gradients, matching, strict=True)
    ):
        if not activation.shape.is_compatible_with(gradient.shape):
            raise ValueError(
                "A gradient must have the shape of its activations. "
                f"Received for loss {index}: gradient of shape "
                f"{gradient.shape}, activations of shape {activation.shape}."
            )
    features = [g.shape[1:] for g in gradients]
    if any(not f.is_compatible_with(features[0]) for f in features):
        raise ValueError(
            "Gradients may differ in their batch size only. Received shapes "
            f"{[tuple(g.shape) for g in gradients]}."
        )
