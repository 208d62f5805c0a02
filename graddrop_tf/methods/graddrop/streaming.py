"""GradDrop of some losses at a time, for more losses than fit in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from graddrop_tf import linalg
from graddrop_tf.bases.combiner import Streaming
from graddrop_tf.methods.graddrop import function
from graddrop_tf.methods.graddrop.arguments import PurityTransform


@dataclasses.dataclass
class StreamingGradDrop(Streaming):
    """Sums gradients by sign; at each position one draw picks a sum.

    Args:
        draw: Returns the uniform draws for a gradient of A.
        leaks: Returns T leaks, given T.
        transform: f.
        marginalize_batch: As in `graddrop`, like all that follow.
        renormalize: As in `graddrop`.
        replica_sum: As in `graddrop`.
    """

    draw: Callable[[tf.Tensor], tf.Tensor]
    leaks: Callable[[int], Sequence[float]]
    transform: PurityTransform
    marginalize_batch: bool
    renormalize: bool
    replica_sum: linalg.ReplicaSum

    def start(self, num_losses, activations):
        """See base class."""
        self._activations = activations
        self._leaks = self.leaks(num_losses)
        self._positive = self._negative = self._unsigned = None
        self._purity_sums = self._leaked = self._plain = None

    def add(self, indices, gradients):
        """See base class."""
        signed = function.signed_gradients(
            gradients,
            self._activations,
            self.marginalize_batch,
            self.replica_sum,
        )
        for i, dL, G in zip(indices, gradients, signed, strict=True):
            dL = tf.cast(dL, G.dtype)
            masked = dL * (1 - self._leaks[i])
            zeros = tf.zeros_like(masked)
            self._positive = _plus(
                self._positive, tf.where(G > 0, masked, zeros)
            )
            self._negative = _plus(
                self._negative, tf.where(G < 0, masked, zeros)
            )
            self._unsigned = _plus(
                self._unsigned, tf.where(G == 0, masked, zeros)
            )
            if any(self._leaks):
                self._leaked = _plus(self._leaked, dL * self._leaks[i])
            if self.renormalize:
                self._plain = _plus(self._plain, dL)
        sums = tf.stack(function.purity_sums(signed))
        self._purity_sums = _plus(self._purity_sums, sums)
        accumulators = [
            self._positive,
            self._negative,
            self._unsigned,
            self._purity_sums,
            self._leaked,
            self._plain,
        ]
        return [a for a in accumulators if a is not None]

    def finish(self):
        """See base class."""
        positive, magnitude = tf.unstack(self._purity_sums)
        P = function.purity_of_sums(positive, magnitude)
        U = function.check_draws(self.draw(self._positive), P)
        kept = tf.sign(self.transform(P) - U)
        zeros = tf.zeros_like(self._positive)
        total = tf.where(kept > 0, self._positive, zeros) + tf.where(
            kept < 0, self._negative, zeros
        )
        if self._leaked is not None:
            total += self._leaked
        total += self._unsigned * function.mask_without_signs(magnitude)
        if self.renormalize:
            ratio = function.norm_ratio(
                [self._plain], [total], self.replica_sum
            )
            total *= tf.cast(ratio, total.dtype)
        return tf.cast(total, self._activations.dtype)


def _plus(total: tf.Tensor | None, value: tf.Tensor) -> tf.Tensor:
    return value if total is None else total + value
