"""Activations that all losses share."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.places.place import Place, Structure
from graddrop_tf.rows import SharedRows


@dataclasses.dataclass(frozen=True)
class Shared(Place):
    """A tensor or a structure of tensors that all losses share.

    Attributes:
        activations: A: a tensor, or lists, tuples and dicts of tensors.
    """

    activations: Structure
    is_shared = True

    def spread(self, values, num_losses):
        """See base class."""
        return [values] * num_losses

    def check_losses(self, num_losses, is_vector):
        """See base class; any losses do."""

    def check_independent(self, tape):
        """See base class."""
        blocks = self.blocks
        for index, block in enumerate(blocks):
            others = blocks[:index] + blocks[index + 1 :]
            if others and tape.gradient(others, block) is not None:
                raise ValueError(
                    "None of several activations may be computed from another: "
                    "let `activations = tf.nest.map_structure(tf.identity, "
                    "trunk(x))` inside of the tape, and give them to the heads "
                    f"and to this function. Received: the one at {index}, of "
                    f"shape {block.shape}, from which others are computed."
                )

    def pick(self, gradients, index):
        """See base class."""
        return self.dense(gradients)

    def sum(self, gradients):
        """See base class."""
        sums = [tf.add_n(block) for block in linalg.by_block(gradients)]
        return self.with_blocks(sums).activations

    def rows(self, gradients):
        """See base class."""
        return SharedRows.of(gradients)

    def comparable(self, gradients, batch_sums):
        """See base class; the gradients themselves."""
        return self.rows(gradients)

    def split(self, gradients):
        """See base class."""
        pairs = zip(linalg.by_block(gradients), self.blocks, strict=True)
        return [(list(block), Shared(a)) for block, a in pairs]

    def sum_of_blocks(self, combine, gradients):
        """See base class."""
        sums = [combine(*block) for block in self.split(gradients)]
        return self.with_blocks(sums).activations

    def sums_batch(self, wanted):
        """See base class; as wanted."""
        return wanted
