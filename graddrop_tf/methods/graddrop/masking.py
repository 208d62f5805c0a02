"""Gradient Sign Dropout at all tensors of a place.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3, Algorithm 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, replicas
from graddrop_tf.fusion import fused, fuses
from graddrop_tf.methods.graddrop.arguments import PurityTransform
from graddrop_tf.methods.graddrop.purity import (
    check_draws,
    mask_without_signs,
    purity_of_sums,
    purity_sums,
    signed_gradients,
    signed_stack,
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
        leaks: T leaks, `float64`.
        transform: f.
        marginalize_batch: As in `graddrop`, like all that follow.
        renormalize: As in `graddrop`.
        replica_sum: As in `graddrop`.
        fusible: Whether XLA can compile f.
    """

    draw: Draw
    leaks: tf.Tensor
    transform: PurityTransform
    marginalize_batch: bool
    renormalize: bool
    replica_sum: linalg.ReplicaSum
    fusible: bool

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
            shares = self._fused_shares(gradients, block, U)
            if shares is None:
                shares = self._shares(self.signed(gradients, block), U)
            return _scaled(gradients, shares)

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
            return here.sum(_scaled(gradients, self._shares(G, U)))

        U = self._draws(block)
        # XLA compiles no sum over replicas.
        G = self.signed(gradients, block) if self._exchanges(block) else []
        arguments = gradients, block.blocks, U, G
        if not self.fusible:
            return masked_sum(*arguments)
        return fused(masked_sum, *arguments)

    def _fused_shares(
        self, gradients: list[tf.Tensor], block: places.Place, U: tf.Tensor
    ) -> list[tf.Tensor] | None:
        """Computes `_shares` of a stack in one kernel, if that is possible."""
        stack = linalg.restack(gradients)
        if (
            stack is None
            or not self.fusible
            or not self._sums_batch(block)
            or self._exchanges(block)
            or not fuses(block.activations, U, stacks=[stack])
        ):
            return None

        def shares(stack, activations, U):
            return self._shares(signed_stack(stack, activations), U)

        of_all = fused(shares, block.activations, U, stacks=[stack])
        return tf.unstack(of_all, num=len(gradients))

    def _draws(self, block: places.Place) -> tf.Tensor:
        drawn = self.draw(block.blocks[0], self._sums_batch(block))
        return tf.convert_to_tensor(drawn)

    def _sums_batch(self, block: places.Place) -> bool:
        return block.sums_batch(self.marginalize_batch)

    def _exchanges(self, block: places.Place) -> bool:
        """Returns whether the G_i are sums over several replicas."""
        alone = self.replica_sum is replicas.identity
        return self._sums_batch(block) and not alone

    def _shares(self, G: Sequence[tf.Tensor] | tf.Tensor, U: tf.Tensor):
        """Returns what share of each gradient passes (steps 3 to 5).

        Args:
            G: The G_i at a block: a list, or a stack `[T, ...]`.
            U: The draws.

        Returns:
            T shares in the form of `G`, of the shapes of the G_i.
        """
        positive, total = purity_sums(G)
        kept = self.kept_sign(purity_of_sums(positive, total), U)
        unmasked = mask_without_signs(total)

        def share(G, leak):
            M = tf.cast(kept * G > 0, G.dtype) + unmasked
            return leak + (1 - leak) * M

        leaks = tf.cast(self.leaks, total.dtype)
        if isinstance(G, tf.Tensor):
            ones = [1] * (G.shape.rank - 1)
            return share(G, tf.reshape(leaks, [-1, *ones]))
        return [share(G_i, leaks[i]) for i, G_i in enumerate(G)]


def _scaled(
    gradients: Sequence[tf.Tensor], shares: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    pairs = zip(gradients, shares, strict=True)
    return [g * tf.cast(share, g.dtype) for g, share in pairs]


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
