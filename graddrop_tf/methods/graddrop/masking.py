"""Gradient Sign Dropout at all tensors of a place.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.fusion import fused
from graddrop_tf.methods.graddrop.arguments import PurityTransform
from graddrop_tf.methods.graddrop.purity import (
    check_draws,
    mask_without_signs,
    purity_of_sums,
    purity_sums,
    signed_gradients,
)

# Maps the activations at a block, and whether gradients are summed over the
# batch, to draws.
Draw = Callable[[tf.Tensor, bool], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class SignMasking:
    """Algorithm 1 and its arguments.

    Each tensor of a place has a purity and draws of its own; the norm of
    `renormalize` is that over all of them.

    Attributes:
        draw: Returns the draws at a block.
        leaks: Returns T leaks, given T.
        transform: f.
        marginalize_batch: As in `graddrop`, like all that follow.
        renormalize: As in `graddrop`.
        replica_sum: As in `graddrop`.
        fusible: Whether XLA can compile f.
    """

    draw: Draw
    leaks: Callable[[int], Sequence[float]]
    transform: PurityTransform
    marginalize_batch: bool
    renormalize: bool
    replica_sum: linalg.ReplicaSum
    fusible: bool = True

    def to_each(
        self, gradients: Sequence[places.Structure], place: places.Place
    ) -> list[places.Structure]:
        """Masks T gradients.

        Args:
            gradients: T gradients.
            place: Where they meet.

        Returns:
            T gradients.
        """

        def mask(gradients, block):
            U = self._draws(block)
            return self._masked(gradients, self.signed(gradients, block), U)

        newgrad = place.of_blocks(mask, gradients)
        if not self.renormalize:
            return newgrad
        ratio = norm_ratio(
            trunk_gradients(gradients, place),
            trunk_gradients(newgrad, place),
            self.replica_sum,
        )
        return linalg.scale_each(newgrad, [ratio] * len(newgrad))

    def to_sum(
        self, gradients: Sequence[places.Structure], place: places.Place
    ) -> places.Structure:
        """Masks T gradients and adds them, without T masked copies.

        Args:
            gradients: As in `to_each`.
            place: As in `to_each`.

        Returns:
            What the trunk receives, in the form of the activations.
        """
        if self.renormalize:
            return place.sum(self.to_each(gradients, place))
        return place.sum_of_blocks(self._masked_sum, gradients)

    def signed(
        self, gradients: Sequence[tf.Tensor], block: places.Place
    ) -> list[tf.Tensor]:
        """Returns the G_i at a block, see `signed_gradients`."""
        return signed_gradients(
            gradients, block, self.marginalize_batch, self.replica_sum
        )

    def kept_sign(self, P: tf.Tensor, U: tf.Tensor) -> tf.Tensor:
        """Picks a sign at each position (step 4): I[f(P) > U] - I[f(P) < U]."""
        return tf.sign(self.transform(P) - check_draws(U, P))

    def _masked_sum(self, gradients: list[tf.Tensor], block: places.Place):
        def masked_sum(gradients, activations, U, G):
            here = block.with_blocks(activations)
            G = G or self.signed(gradients, here)
            return here.sum(self._masked(gradients, G, U))

        U = self._draws(block)
        summed = block.sums_batch(self.marginalize_batch)
        # XLA compiles no sum over replicas.
        known = summed and replicas.num_replicas() > 1
        G = self.signed(gradients, block) if known else []
        run = fused if self.fusible else _call
        return run(masked_sum, gradients, block.blocks, U, G)

    def _draws(self, block: places.Place) -> tf.Tensor:
        return self.draw(
            block.blocks[0], block.sums_batch(self.marginalize_batch)
        )

    def _masked(
        self,
        gradients: Sequence[tf.Tensor],
        G: Sequence[tf.Tensor],
        U: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Masks the gradients at a block (steps 3 to 5 of Algorithm 1)."""
        # A list, not a stack: each tensor fits the cache.
        positive, total = purity_sums(G)
        P = purity_of_sums(positive, total)
        kept = self.kept_sign(P, U)
        unmasked = mask_without_signs(total)
        newgrad = []
        leaks = self.leaks(len(gradients))
        for dL_i, G_i, l_i in zip(gradients, G, leaks, strict=True):
            M_i = tf.cast(kept * G_i > 0, G_i.dtype) + unmasked
            passed = l_i + (1 - l_i) * M_i if l_i else M_i
            newgrad.append(dL_i * tf.cast(passed, dL_i.dtype))
        return newgrad


def _call(function, *arguments):
    return function(*arguments)


def trunk_gradients(
    gradients: Sequence[places.Structure], place: places.Place
) -> list[tf.Tensor]:
    """Returns the gradients that flow from the losses into the trunk.

    Args:
        gradients: T gradients.
        place: Where they meet.

    Returns:
        Tensors of `float32` or `float64`: the sum at each shared tensor; the
        gradients themselves if they are batch separated.
    """
    accurate = [
        tf.nest.map_structure(
            lambda g: tf.cast(g, linalg.accumulation_dtype(g.dtype)), gradient
        )
        for gradient in gradients
    ]
    return tf.nest.flatten(place.sum(accurate))


def norm_ratio(
    before: Sequence[tf.Tensor],
    after: Sequence[tf.Tensor],
    replica_sum: linalg.ReplicaSum,
) -> tf.Tensor:
    """Divides the L2 norm of gradients by that of others.

    Args:
        before: Gradients of any shapes, whose norm is to be restored.
        after: Gradients that have another norm now.
        replica_sum: Sums a tensor over replicas.

    Returns:
        A `float64` scalar; 0 if `after` is all zeros.
    """
    squares = replica_sum(
        tf.stack(
            [
                tf.reduce_sum(linalg.squared_norms(before)),
                tf.reduce_sum(linalg.squared_norms(after)),
            ]
        )
    )
    return tf.sqrt(linalg.safe_ratio(squares[0], squares[1]))
