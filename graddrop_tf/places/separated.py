"""Activations for each loss, computed from examples of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.places.place import Place, Structure, dense
from graddrop_tf.rows import SeparatedRows, SharedRows


@dataclasses.dataclass(frozen=True)
class Separated(Place):
    """A tensor, or a structure of tensors, for each of T losses.

    Attributes:
        activations: A_1 ... A_T: tensors, or structures of the same form.
    """

    activations: Sequence[Structure]
    is_shared = False

    @property
    def num_losses(self) -> int:
        """T, the number of activations."""
        return len(self.activations)

    def spread(self, values, num_losses):
        """See base class."""
        if self.num_losses != num_losses:
            raise ValueError(
                "Batch-separated activations need one tensor for each loss. "
                f"Received: {self.num_losses} activations, "
                f"{num_losses} losses."
            )
        return list(values)

    def check_losses(self, num_losses, is_vector):
        """See base class."""
        if is_vector:
            raise ValueError(
                "Batch-separated activations need one loss for each. Received: "
                f"a vector of {num_losses} losses."
            )
        self.of_each(num_losses)

    def check_independent(self, tape):
        """See base class; `pick` refuses a loss that depends on two."""

    def pick(self, gradients, index):
        """See base class."""
        others = [
            i
            for i, of_loss in enumerate(gradients)
            if i != index
            and any(g is not None for g in tf.nest.flatten(of_loss))
        ]
        if others:
            raise ValueError(
                "Batch-separated losses must each depend on their own "
                f"activations. Received: loss {index} depends on those of "
                f"{others}."
            )
        return dense(gradients[index], self.activations[index])

    def sum(self, gradients):
        """See base class; the gradients themselves, of other examples each."""
        return list(gradients)

    def rows(self, gradients):
        """See base class."""
        return SeparatedRows(gradients)

    def comparable(self, gradients, batch_sums):
        """See base class; sums over the batch, as examples differ."""
        sums = self.of_blocks(batch_sums, gradients)
        return SharedRows.of(sums)

    def split(self, gradients):
        """See base class."""
        activations = linalg.by_block(self.activations)
        pairs = zip(linalg.by_block(gradients), activations, strict=True)
        return [(list(block), Separated(list(a))) for block, a in pairs]

    def sum_of_blocks(self, combine, gradients):
        """See base class; the gradients themselves, as in `sum`."""
        return self.of_blocks(combine, gradients)

    def sums_batch(self, wanted):
        """See base class; always, as no example has two losses."""
        return True
