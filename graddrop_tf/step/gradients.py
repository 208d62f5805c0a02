"""The gradient of each loss where the losses' gradients meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas

# Rows of one product in a batched backward pass. On the CPUs measured, one
# product of 320 rows with a wide matrix takes twice as long as four of 80.
_CPU_ROWS = 80
_USUAL_BATCH_SIZE = 8

# T losses: a list of scalars, or a tensor [T].
Losses = Sequence[tf.Tensor] | tf.Tensor


def count_losses(losses: Losses) -> int:
    """Returns T.

    Raises:
        ValueError: If `losses` is neither scalars nor a vector.
    """
    if isinstance(losses, (list, tuple)):
        if losses and all(loss.shape.rank == 0 for loss in losses):
            return len(losses)
    elif losses.shape.rank == 1 and losses.shape[0]:
        return losses.shape[0]
    raise ValueError(
        f"Losses must be a list of scalars or a tensor [T]. Received: {losses}."
    )


def as_vector(losses: Losses) -> tf.Tensor:
    """Returns losses as a `float32` tensor `[T]`."""
    if isinstance(losses, (list, tuple)):
        losses = tf.stack([tf.cast(loss, tf.float32) for loss in losses])
    return tf.cast(losses, tf.float32)


@dataclasses.dataclass(frozen=True)
class LossGradients:
    """The gradients `factor_i dL_i/dA` of T losses, to be computed.

    Attributes:
        tape: A persistent tape that watched the activations.
        losses: A list of T scalars: a backward pass for each. A tensor `[T]`:
            batched backward passes.
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
        return count_losses(self.losses)

    @property
    def seeds(self):
        """The gradients of `sum_i factor_i L_i`, in the shape of `losses`."""
        if isinstance(self.losses, (list, tuple)):
            return [
                tf.cast(self.factors[i], loss.dtype)
                for i, loss in enumerate(self.losses)
            ]
        return tf.cast(self.factors, self.losses.dtype)

    def of_sum(self, sources):
        """Computes `d(sum_i factor_i L_i) / d(sources)` in one backward pass.

        Args:
            sources: A structure of tensors.

        Returns:
            Gradients in the structure of `sources`, None where no loss
            depends on one.
        """
        return self.tape.gradient(
            self.losses, sources, output_gradients=self.seeds
        )

    def of(
        self,
        indices: Sequence[int],
        after: Sequence[tf.Tensor] = (),
    ) -> list[tf.Tensor]:
        """Computes the gradient of each of some losses.

        Args:
            indices: Which losses.
            after: Tensors to wait for, so that chunks do not coexist.

        Returns:
            A tensor for each index; zeros where a loss does not depend on its
            activations.

        Raises:
            ValueError: If losses are batch separated and a loss depends on
                the activations of another.
        """
        self.place.of_each(self.num_losses)
        with tf.control_dependencies(list(after)):
            factors = tf.identity(self.factors)
        if isinstance(self.losses, (list, tuple)):
            return [self._of_one(i, factors[i]) for i in indices]
        if self.place.separate:
            raise ValueError(
                "Batch-separated activations need one loss for each. Received: "
                f"a vector of {self.num_losses} losses."
            )
        seeds = tf.linalg.diag(tf.cast(factors, self.losses.dtype))
        return self._of_seeds(tf.gather(seeds, list(indices)))

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

    def _of_one(self, index: int, factor: tf.Tensor) -> tf.Tensor:
        loss = self.losses[index]
        gradients = self.tape.gradient(
            loss,
            self.place.activations,
            output_gradients=tf.cast(factor, loss.dtype),
        )
        return self.place.pick(gradients, index)

    def _of_seeds(self, seeds: tf.Tensor) -> list[tf.Tensor]:
        """Computes a gradient for each row of seeds `[m, T]`."""

        def gradient(seed):
            return self.place.dense(
                self.tape.gradient(
                    self.losses, self.place.activations, output_gradients=seed
                )
            )

        count = seeds.shape[0]
        if count == 1 or not self.batched:
            return [gradient(seed) for seed in tf.unstack(seeds)]
        gradients = []
        size = losses_at_once(self.place.activations.shape[0], count)
        for first in range(0, count, size):
            some = seeds[first : min(first + size, count)]
            stacked = tf.vectorized_map(gradient, some)
            gradients.extend(tf.unstack(stacked, num=some.shape[0]))
        return gradients


def losses_at_once(batch_size: int | None, count: int) -> int:
    """Returns how many losses share a backward pass: all of them on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return count
    return min(count, max(2, _CPU_ROWS // (batch_size or _USUAL_BATCH_SIZE)))


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
