"""The gradient of each loss where the losses' gradients meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.step.losses import Losses


@dataclasses.dataclass(frozen=True)
class LossGradients:
    """The gradients `factor_i dL_i/dA` of T losses, to be computed.

    Attributes:
        tape: A persistent tape that watched the activations.
        losses: The losses.
        place: Where the gradients meet: the activations.
        factors: `[T]`: weights times the loss scale.
        batched: Whether backward passes of a tensor of losses may be batched.
            A pass that sums over replicas (synchronized batch norm) is wrong
            in a batch.
    """

    tape: tf.GradientTape
    losses: Losses
    place: places.Place
    factors: tf.Tensor
    batched: bool = True

    @property
    def num_losses(self) -> int:
        """T."""
        return self.losses.count

    def of_sum(self, sources):
        """Computes `d(sum_i factor_i L_i) / d(sources)` in one backward pass.

        Args:
            sources: A structure of tensors.

        Returns:
            Gradients in the structure of `sources`, None where no loss
            depends on one.
        """
        losses, seeds = self.losses.values, self.losses.seeds(self.factors)
        return self.tape.gradient(losses, sources, output_gradients=seeds)

    def of(
        self,
        indices: Sequence[int],
        after: Sequence[tf.Tensor] = (),
    ) -> list[places.Structure]:
        """Computes the gradient of each of some losses.

        Args:
            indices: Which losses.
            after: Tensors to wait for, so that chunks do not coexist.

        Returns:
            A gradient for each index, in the form of its activations; zeros
            where a loss does not depend on its activations.

        Raises:
            ValueError: If losses are batch separated and a loss depends on
                the activations of another.
        """
        with tf.control_dependencies(list(after)):
            factors = tf.identity(self.factors)
        return self.losses.gradients(
            self.tape, self.place, factors, indices, self.batched
        )

    def norms(
        self, gradients: Sequence[tf.Tensor], indices: Sequence[int]
    ) -> tf.Tensor:
        """Computes the norms of unweighted gradients of the global batch.

        Args:
            gradients: What `of(indices)` returned.
            indices: Which losses they belong to.

        Returns:
            `float32`, one for each index; 0 where a factor is 0.
        """
        squares = linalg.squared_norms(gradients, replicas.sum_over_replicas)
        factors = tf.gather(tf.cast(self.factors, squares.dtype), list(indices))
        norms = linalg.safe_ratio(tf.sqrt(squares), factors)
        return tf.cast(norms, tf.float32)


@dataclasses.dataclass(frozen=True)
class KnownGradients:
    """Gradients of T losses that are known without a tape.

    Attributes:
        gradients: T tensors, `factor_i dL_i/dA`.
        place: Where they meet.
        unweighted_norms: `[T]`, the norms of dL_i/dA.
    """

    gradients: Sequence[tf.Tensor]
    place: places.Place
    unweighted_norms: tf.Tensor

    @property
    def num_losses(self) -> int:
        """T."""
        return len(self.gradients)

    def of(self, indices: Sequence[int], after: Sequence[tf.Tensor] = ()):
        """Returns the gradients of some losses."""
        del after
        return [self.gradients[i] for i in indices]

    def norms(self, gradients, indices: Sequence[int]) -> tf.Tensor:
        """Returns the norms of the unweighted gradients."""
        del gradients
        return tf.gather(self.unweighted_norms, list(indices))
