"""What a place answers for, whatever the form of the activations."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.rows import Rows

# A tensor, or lists, tuples and dicts of tensors.
Structure = Any
BatchSums = Callable[[list[tf.Tensor], "Place"], list[tf.Tensor]]


class Place(abc.ABC):
    """Where the gradients of T losses meet.

    Attributes:
        activations: A, as the user passes them.
        num_losses: T, None where the activations do not tell.
        is_shared: Whether all losses share all of A.
    """

    activations: Structure
    num_losses: int | None = None
    is_shared: ClassVar[bool]

    @abc.abstractmethod
    def spread(self, values: Structure, num_losses: int) -> list[Structure]:
        """Returns the part of each loss of values in the form of A."""

    @abc.abstractmethod
    def pick(self, gradients: Structure, index: int) -> Structure:
        """Returns the gradient of a loss, without None.

        Args:
            gradients: Its gradient in the form of A.
            index: Which loss it is.

        Raises:
            ValueError: If the loss depends on activations of another loss.
        """

    @abc.abstractmethod
    def sum(self, gradients: Sequence[Structure]) -> Structure:
        """Returns what T gradients send into the trunk, in the form of A."""

    @abc.abstractmethod
    def rows(self, gradients: Sequence[Structure]) -> Rows:
        """Returns T gradients as the rows of a matrix."""

    @abc.abstractmethod
    def comparable(
        self, gradients: Sequence[Structure], batch_sums: BatchSums
    ) -> Rows:
        """Returns rows whose cosines tell whether losses agree.

        Args:
            gradients: T gradients.
            batch_sums: Sums the gradients at a block over the batch.
        """

    @abc.abstractmethod
    def split(
        self, gradients: Sequence[Structure]
    ) -> list[tuple[list[tf.Tensor], Place]]:
        """Returns the T gradients at each block, and the place of the block."""

    @abc.abstractmethod
    def sums_batch(self, wanted: bool) -> bool:
        """Returns whether gradients are compared as sums over the batch."""

    @abc.abstractmethod
    def check_losses(self, num_losses: int, is_vector: bool) -> None:
        """Checks that losses fit the activations.

        Args:
            num_losses: T.
            is_vector: Whether the losses are computed at once.

        Raises:
            ValueError: If they are batch separated, and another number or a
                vector.
        """

    @abc.abstractmethod
    def check_independent(self, tape: tf.GradientTape) -> None:
        """Checks that no tensor of A is computed from another.

        Args:
            tape: A persistent tape that recorded them.

        Raises:
            ValueError: If one is: its gradients would count twice.
        """

    def of_each(self, num_losses: int) -> list[Structure]:
        """Returns the activations of each of T losses.

        Raises:
            ValueError: If there is another number of them.
        """
        return self.spread(self.activations, num_losses)

    @property
    def blocks(self) -> list[tf.Tensor]:
        """All tensors of A, in a fixed order."""
        return tf.nest.flatten(self.activations)

    def with_blocks(self, blocks: Sequence[tf.Tensor]) -> Place:
        """Returns the same place with other tensors."""
        activations = tf.nest.pack_sequence_as(self.activations, list(blocks))
        return dataclasses.replace(self, activations=activations)

    def dense(self, gradients: Structure) -> Structure:
        """Returns gradients in the form of A, zeros in place of None."""
        return dense(gradients, self.activations)

    def add(self, first: Structure, second: Structure) -> Structure:
        """Returns the sum of two structures in the form of A."""
        sums = [a + b for a, b in linalg.by_block([first, second])]
        return self.with_blocks(sums).activations

    def of_blocks(
        self,
        combine: Callable[[list[tf.Tensor], Place], Sequence[tf.Tensor]],
        gradients: Sequence[Structure],
    ) -> list[Structure]:
        """Combines gradients block by block.

        Args:
            combine: Maps the T gradients at a block, and its place, to T
                tensors.
            gradients: T gradients.

        Returns:
            T gradients.
        """
        blocks = [combine(*block) for block in self.split(gradients)]
        return [
            tf.nest.pack_sequence_as(gradient, of_loss)
            for gradient, *of_loss in zip(gradients, *blocks, strict=True)
        ]

    @abc.abstractmethod
    def sum_of_blocks(
        self,
        combine: Callable[[list[tf.Tensor], Place], Structure],
        gradients: Sequence[Structure],
    ) -> Structure:
        """Combines gradients block by block to what the trunk receives.

        Args:
            combine: Maps the T gradients at a block, and its place, to the
                sum of a place of one block.
            gradients: T gradients.

        Returns:
            A structure in the form of A.
        """

    def check_shapes(self, gradients: Sequence[Structure]) -> None:
        """Checks that every gradient has the shape of its activations.

        Raises:
            ValueError: If a number or a shape does not match.
        """
        pairs = zip(gradients, self.of_each(len(gradients)), strict=True)
        for index, (gradient, activations) in enumerate(pairs):
            for g, a in linalg.by_block([gradient, activations]):
                if not a.shape.is_compatible_with(g.shape):
                    raise ValueError(
                        "A gradient must have the shape of its activations. "
                        f"Received for loss {index}: gradient of shape "
                        f"{g.shape}, activations of shape {a.shape}."
                    )
        check_features(gradients, "Gradients")


def check_features(tensors: Sequence[Structure], what: str) -> None:
    """Checks that tensors of T losses differ in their batch size only.

    Args:
        tensors: T structures of tensors.
        what: What they are, for the error.

    Raises:
        ValueError: If another dimension differs.
    """
    for block in linalg.by_block(tensors):
        shapes = [tf.TensorShape(t.shape) for t in block]
        first = shapes[0][1:]
        if any(not shape[1:].is_compatible_with(first) for shape in shapes):
            raise ValueError(
                f"{what} may differ in their batch size only. Received shapes "
                f"{[tuple(shape) for shape in shapes]}."
            )


def dense(gradients: Structure, like: Structure) -> Structure:
    """Returns gradients in the form of others, zeros in place of None."""
    tensors = [
        tf.zeros_like(a)
        if g is None
        else tf.ensure_shape(tf.convert_to_tensor(g), a.shape)
        for g, a in linalg.by_block([gradients, like])
    ]
    return tf.nest.pack_sequence_as(like, tensors)
