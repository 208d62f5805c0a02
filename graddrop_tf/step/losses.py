"""The losses of a step: T scalars, or one vector."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import places
from graddrop_tf.step import passes


class Losses(abc.ABC):
    """T losses, recorded by a tape.

    Attributes:
        values: What the tape recorded.
    """

    values: list[tf.Tensor] | tf.Tensor

    @property
    @abc.abstractmethod
    def count(self) -> int:
        """T."""

    @property
    @abc.abstractmethod
    def vector(self) -> tf.Tensor:
        """The losses as a `float32` tensor `[T]`."""

    @abc.abstractmethod
    def seeds(self, factors: tf.Tensor) -> list[tf.Tensor] | tf.Tensor:
        """Returns `factors` `[T]` as output gradients of `values`."""

    @abc.abstractmethod
    def passes(
        self,
        tape: tf.GradientTape,
        place: places.Place,
        factors: tf.Tensor,
        batched: bool,
    ) -> passes.Passes:
        """Returns the backward passes of the losses times their factors.

        Args:
            tape: A persistent tape that watched the activations.
            place: The activations.
            factors: `[T]`.
            batched: Whether backward passes may be batched.
        """


# What users write, or a value already.
Values = Sequence[tf.Tensor] | tf.Tensor | Losses


@dataclasses.dataclass(frozen=True)
class Scalars(Losses):
    """T scalars: a backward pass for each.

    Attributes:
        values: The losses.
    """

    values: list[tf.Tensor]

    @property
    def count(self):
        """See base class."""
        return len(self.values)

    @property
    def vector(self):
        """See base class."""
        return tf.stack([tf.cast(loss, tf.float32) for loss in self.values])

    def seeds(self, factors):
        """See base class."""
        return [
            tf.cast(factors[i], loss.dtype)
            for i, loss in enumerate(self.values)
        ]

    def passes(self, tape, place, factors, batched):
        """See base class."""
        del batched
        reached: dict[int, list[bool]] = {}

        def gradient(index, seed):
            gradients = tape.gradient(
                self.values[index], place.activations, output_gradients=seed
            )
            blocks = tf.nest.flatten(gradients)
            reached[index] = [block is not None for block in blocks]
            return place.pick(gradients, index)

        return passes.Single(gradient, self.seeds(factors), reached)


@dataclasses.dataclass(frozen=True)
class Vector(Losses):
    """One vector: batched backward passes.

    Attributes:
        values: `[T]`.
    """

    values: tf.Tensor

    @property
    def count(self):
        """See base class."""
        return self.values.shape[0]

    @property
    def vector(self):
        """See base class."""
        return tf.cast(self.values, tf.float32)

    def seeds(self, factors):
        """See base class."""
        return tf.cast(factors, self.values.dtype)

    def passes(self, tape, place, factors, batched):
        """See base class."""

        def gradient(seed):
            gradients = tape.gradient(
                self.values, place.activations, output_gradients=seed
            )
            return place.dense(gradients)

        seeds = tf.linalg.diag(self.seeds(factors))
        if batched:
            return passes.Batched(gradient, seeds, place)
        return passes.Single(lambda _, seed: gradient(seed), tf.unstack(seeds))


def of(values: Values) -> Losses:
    """Returns losses as a value.

    Args:
        values: A list of T scalars, a tensor `[T]`, or such a value.

    Raises:
        ValueError: If they are neither.
    """
    if isinstance(values, Losses):
        return values
    if isinstance(values, (list, tuple)):
        if values and all(loss.shape.rank == 0 for loss in values):
            return Scalars(list(values))
    elif values.shape.rank == 1 and values.shape[0]:
        return Vector(values)
    raise ValueError(
        f"Losses must be a list of scalars or a tensor [T]. Received: {values}."
    )
