"""The gradient of each loss where the losses' gradients meet."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, reached, replicas
from graddrop_tf.step import passes, paths
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

    def of_sum_past(
        self, combined: places.Structure, sources: Sequence[tf.Variable]
    ) -> list[tf.Tensor | tf.IndexedSlices | None]:
        """Computes the gradient of the sum, another one at the activations.

        What reaches a source past the activations counts in full: it is the
        gradient of the sum, less its part through the activations, plus the
        part of `combined` through them.

        Args:
            combined: What replaces the gradient of the sum at the activations,
                in their form.
            sources: Variables.

        Returns:
            A gradient for each source, None where no loss depends on it.
        """
        sums = self.of_sum(self.place.blocks)
        triples = zip(
            self.place.blocks, sums, tf.nest.flatten(combined), strict=True
        )
        reached = [triple for triple in triples if triple[1] is not None]
        if not reached:
            return self.of_sum(sources)
        blocks, sums, combined = zip(*reached, strict=True)
        if not paths.may_pass(tf.nest.flatten(self.losses.values), blocks):
            # Spares a second pass through the trunk.
            whole = self.of_sum(sources)
            through = self.tape.gradient(
                blocks, sources, output_gradients=combined
            )
            pairs = zip(through, whole, strict=True)
            return [w if t is None else t for t, w in pairs]
        # The part through the activations vanishes where it enters the trunk.
        # In a difference of two gradients of the trunk its rounding error
        # would hide what is a millionth of it.
        residues, past = self.tape.gradient(
            [self.losses.values, blocks],
            [blocks, sources],
            output_gradients=[
                self.losses.seeds(self.factors),
                [-tf.convert_to_tensor(s) for s in sums],
            ],
        )
        # What rounding left of the sum is in `past`, and known.
        entering = [
            c - tf.convert_to_tensor(r)
            for c, r in zip(combined, residues, strict=True)
        ]
        through = self.tape.gradient(blocks, sources, output_gradients=entering)
        return [_added(*pair) for pair in zip(past, through, strict=True)]

    def of(
        self,
        indices: Sequence[int],
        after: Sequence[tf.Tensor] = (),
    ) -> list[places.Structure]:
        """Computes the gradient of each of some losses; see `Passes.of`.

        Raises:
            ValueError: If losses are batch separated and a loss depends on
                the activations of another.
        """
        return self._passes.of(indices, after)

    def check_reached(self, names: Sequence[str] | None) -> None:
        """Warns of losses that have nothing to combine, once all were asked.

        Args:
            names: The names of the losses, numbers if None.
        """
        known = self._passes.reached
        if len(known) == self.num_losses:
            names = names or [str(i) for i in range(self.num_losses)]
            reached.check_losses(known, names, self.place.is_shared)

    @functools.cached_property
    def _passes(self) -> passes.Passes:
        return self.losses.passes(
            self.tape, self.place, self.factors, self.batched
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

    def check_reached(self, names: Sequence[str] | None) -> None:
        """Does nothing: what they come from is not known."""

    def norms(self, gradients, indices: Sequence[int]) -> tf.Tensor:
        """Returns the norms of the unweighted gradients."""
        del gradients
        return tf.gather(self.unweighted_norms, list(indices))


def _added(first, second) -> tf.Tensor | tf.IndexedSlices | None:
    """Returns the sum of two gradients, sparse if both are; None is 0."""
    if first is None or second is None:
        return second if first is None else first
    pair = [first, second]
    if not all(isinstance(g, tf.IndexedSlices) for g in pair):
        return tf.add_n([tf.convert_to_tensor(g) for g in pair])
    return tf.IndexedSlices(
        tf.concat([g.values for g in pair], axis=0),
        tf.concat([tf.cast(g.indices, tf.int64) for g in pair], axis=0),
        first.dense_shape,
    )
