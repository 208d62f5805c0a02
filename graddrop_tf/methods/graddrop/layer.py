"""GradDrop and Random GradDrop as Keras layers.

Chen et al., "Just Pick a Sign: Optimizing Deep Multitask Models with
Gradient Sign Dropout", NeurIPS 2020, section 3.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from graddrop_tf import replicas
from graddrop_tf.bases.combiner import RandomCombiner
from graddrop_tf.bases.joint import JointCombiner
from graddrop_tf.bases.numbers import Number, PerLossNumber
from graddrop_tf.methods.graddrop.arguments import (
    PurityTransform,
    check_purity_transform,
    linear_purity_transform,
)
from graddrop_tf.methods.graddrop.masking import SignMasking
from graddrop_tf.methods.graddrop.streaming import StreamingGradDrop
from graddrop_tf.schedules import Schedule

Leak = float | Schedule | Sequence[float] | dict[str, float]


class SignDropout(JointCombiner, RandomCombiner):
    """Abstract base of the layers that keep gradients of a drawn sign.

    A subclass chooses f, by `transform`.

    Args:
        num_losses: As in `GradDrop`, like all that follow.
        leak: As in `GradDrop`.
        marginalize_batch: As in `GradDrop`.
        renormalize: As in `GradDrop`.
        **kwargs: `sync_replicas`, `separate`, `seed`, `name`, `dtype`.
    """

    search_space: ClassVar[Mapping[str, str]] = {"leak": "uniform(0.0, 1.0)"}
    purity_transform: PurityTransform | None = None
    leak = PerLossNumber("[0, 1]", default=0.0)

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        leak: Leak = 0.0,
        marginalize_batch: bool = True,
        renormalize: bool = False,
        **kwargs,
    ):
        super().__init__(num_losses, **kwargs)
        self.leak = leak
        if num_losses is not None and not isinstance(leak, dict):
            self.check_numbers(num_losses, None)
        self.marginalize_batch = bool(marginalize_batch)
        self.renormalize = bool(renormalize)

    @abc.abstractmethod
    def transform(self) -> PurityTransform:
        """Returns f in this step: the probability to keep the positive sign."""

    def combine_at(self, gradients, place):
        """See base class."""
        return self._masking(len(gradients)).to_each(gradients, place)

    def combine_to_sum(self, gradients, place):
        """See base class."""
        return self._masking(len(gradients)).to_sum(gradients, place)

    def streaming(self):
        """See base class."""
        return StreamingGradDrop(self._masking)

    def _masking(self, num_losses: int) -> SignMasking:
        alone = replicas.num_replicas() == 1
        return SignMasking(
            draw=self._draw,
            leaks=self.number("leak", num_losses=num_losses),
            transform=self.transform(),
            marginalize_batch=self.marginalize_batch,
            renormalize=self.renormalize,
            replica_sum=replicas.identity if alone else self.replica_sum,
            fusible=self.purity_transform is None,
        )

    def _draw(self, activations: tf.Tensor, summed: bool) -> tf.Tensor:
        """Draws U for a purity that is summed over the batch, or is not."""
        shape = tf.shape(activations)
        if summed:
            drawn = self.uniform(shape[1:])
            return tf.ensure_shape(drawn, activations.shape[1:])
        drawn = self.uniform(shape, per_example=True)
        return tf.ensure_shape(drawn, activations.shape)


@keras.saving.register_keras_serializable("graddrop_tf")
class GradDrop(SignDropout):
    """Keeps, at each position, the gradients of one sign.

    The sign is drawn with the probability given by the sign purity, which
    measures how strongly the losses' gradients agree at that position. In the
    forward pass, and at inference altogether, the layer is the identity; at
    inference it adds no operations.

    Reference: Chen et al., NeurIPS 2020, Algorithm 1.

    Args:
        num_losses: T. Required if the losses share one tensor and the layer
            is called in a model; a list of tensors gives its own length.
        leak: Share of each gradient that passes unmasked, in [0, 1]: one
            number, one for each loss, or (in `MultiLossModel`) a dict by
            loss name, in which missing losses have leak 0.
        k: Steepness of `f(p) = clip(k (p - 0.5) + 0.5, 0, 1)`, at least 0; or,
            as for `leak` and `purity`, a Keras schedule.
        purity_transform: A callable f in place of `k`: monotone, and odd
            around (0.5, 0.5). Register it with Keras to save the model.
        purity: A constant in [0, 1] in place of the sign purity P, which tells
            what the purity itself is worth: 0.5 tosses a fair coin, 1 keeps
            the positive sign whatever the gradients are.
        marginalize_batch: Whether to compute the purity from the gradients'
            sums over the batch. Batch-separated gradients are always summed.
        renormalize: Whether to scale the result to the L2 norm of the plain
            sum.
        sync_replicas: Whether to compute the purity over the global batch;
            costs a sum of T x (size of the purity) floats in each step.
        separate: Whether the inputs are a list with the activations of each
            loss, batch separated; False: a structure of tensors, such as a
            feature pyramid, that the losses share and that are masked one by
            one. A list is batch separated if None.
        seed: Integer seed of the masks; drawn if None.
        **kwargs: `name`, `dtype`.

    Input shape:
        `[batch, ...]`, or a structure of such tensors; batch separated, a
        list of T of them that may differ in their batch size.

    Output shape:
        A list of T: the input itself for each loss, or the inputs; for one
        loss, what is shared itself and no list.

    Raises:
        ValueError: If an argument is out of its range or does not match the
            number of losses.

    Example:
        >>> features = keras.Input([8])
        >>> a, b = gd.GradDrop(num_losses=2)(features)
    """

    search_space: ClassVar[Mapping[str, str]] = {
        "k": "uniform(0.0, 2.0)",
        **SignDropout.search_space,
    }
    k = Number("[0, inf)")
    purity = Number("[0, 1]", optional=True)

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        leak: Leak = 0.0,
        k: float | Schedule = 1.0,
        purity_transform: PurityTransform | None = None,
        purity: float | Schedule | None = None,
        marginalize_batch: bool = True,
        renormalize: bool = False,
        sync_replicas: bool = True,
        separate: bool | None = None,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(
            num_losses,
            leak=leak,
            marginalize_batch=marginalize_batch,
            renormalize=renormalize,
            sync_replicas=sync_replicas,
            separate=separate,
            seed=seed,
            **kwargs,
        )
        if purity_transform is not None:
            check_purity_transform(purity_transform, k)
        self.k = k
        self.purity_transform = purity_transform
        self.purity = purity

    def transform(self):
        """See base class."""
        f = self.purity_transform
        if f is None:
            f = linear_purity_transform(self.number("k"))
        if self.purity is None:
            return f
        constant = self.number("purity")
        return lambda P: f(tf.cast(constant, P.dtype) * tf.ones_like(P))


@keras.saving.register_keras_serializable("graddrop_tf")
class RandomGradDrop(SignDropout):
    """GradDrop with k = 0: a fair coin picks the sign (section 4.1).

    Args:
        num_losses: As in `GradDrop`, like all that follow.
        leak: As in `GradDrop`.
        marginalize_batch: As in `GradDrop`.
        renormalize: As in `GradDrop`.
        sync_replicas: As in `GradDrop`.
        seed: As in `GradDrop`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.RandomGradDrop(num_losses=2)
    """

    def transform(self):
        """See base class."""
        return linear_purity_transform(0.0)
