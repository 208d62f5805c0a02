"""GradDrop of some losses at a time, for more losses than fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.streaming import Streaming
from graddrop_tf.methods.graddrop.masking import SignMasking, norm_ratio
from graddrop_tf.methods.graddrop.purity import (
    mask_without_signs,
    purity_of_sums,
    purity_sums,
)


@dataclasses.dataclass
class StreamingGradDrop(Streaming):
    """Sums gradients by sign; at each position one draw picks a sum.

    Args:
        make_masking: Returns the algorithm and its arguments for T losses.
    """

    make_masking: Callable[[int], SignMasking]

    def start(self, num_losses, place):
        """See base class."""
        self._place = place
        self.masking = self.make_masking(num_losses)
        self._sums = [_Sums() for _ in place.blocks]

    def add(self, indices, gradients):
        """See base class."""
        blocks = self._place.split(gradients)
        for sums, (of_block, block) in zip(self._sums, blocks, strict=True):
            signed = self.masking.signed(of_block, block)
            for i, dL, G in zip(indices, of_block, signed, strict=True):
                leak = tf.cast(self.masking.leaks[i], G.dtype)
                self._add_one(sums, tf.cast(dL, G.dtype), G, leak)
            sums.purity = _plus(sums.purity, tf.stack(purity_sums(signed)))
        accumulators = [v for sums in self._sums for v in vars(sums).values()]
        return [a for a in accumulators if a is not None]

    def _add_one(self, sums: _Sums, dL, G, leak) -> None:
        masked = dL * (1 - leak)
        zeros = tf.zeros_like(masked)
        sums.positive = _plus(sums.positive, tf.where(G > 0, masked, zeros))
        sums.negative = _plus(sums.negative, tf.where(G < 0, masked, zeros))
        sums.unsigned = _plus(sums.unsigned, tf.where(G == 0, masked, zeros))
        sums.leaked = _plus(sums.leaked, dL * leak)
        if self.masking.renormalize:
            sums.plain = _plus(sums.plain, dL)

    def finish(self):
        """See base class."""
        pairs = zip(self._sums, self._place.blocks, strict=True)
        totals = [self._pick_signs(*pair) for pair in pairs]
        if self.masking.renormalize:
            plain = [sums.plain for sums in self._sums]
            ratio = norm_ratio(plain, totals, self.masking.replica_sum)
            totals = linalg.scale_each(totals, [ratio] * len(totals))
        pairs = zip(totals, self._place.blocks, strict=True)
        totals = [tf.cast(total, block.dtype) for total, block in pairs]
        return self._place.with_blocks(totals).activations

    def _pick_signs(self, sums: _Sums, block: tf.Tensor) -> tf.Tensor:
        positive, magnitude = tf.unstack(sums.purity)
        P = purity_of_sums(positive, magnitude)
        summed = self._place.sums_batch(self.masking.marginalize_batch)
        kept = self.masking.kept_sign(P, self.masking.draw(block, summed))
        zeros = tf.zeros_like(sums.positive)
        total = tf.where(kept > 0, sums.positive, zeros) + tf.where(
            kept < 0, sums.negative, zeros
        )
        if sums.leaked is not None:
            total += sums.leaked
        return total + sums.unsigned * mask_without_signs(magnitude)


@dataclasses.dataclass
class _Sums:
    """What is summed at one tensor; None before the first gradient.

    Attributes:
        positive: The gradients where G_i > 0, without their leaks.
        negative: The same where G_i < 0.
        unsigned: The same where G_i = 0.
        purity: The sums that make the purity.
        leaked: The leaks of all gradients.
        plain: The gradients themselves, to renormalize.
    """

    positive: tf.Tensor | None = None
    negative: tf.Tensor | None = None
    unsigned: tf.Tensor | None = None
    purity: tf.Tensor | None = None
    leaked: tf.Tensor | None = None
    plain: tf.Tensor | None = None


def _plus(total: tf.Tensor | None, value: tf.Tensor) -> tf.Tensor:
    return value if total is None else total + value
