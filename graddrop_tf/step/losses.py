"""The losses of a step: T scalars, or one vector."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, products
from graddrop_tf.fusion import fuses

# Rows of one product in a batched backward pass that TensorFlow computes. On
# the CPUs measured, one product of 320 rows with a wide matrix takes twice as
# long as four of 80.
_CPU_ROWS = 80
_USUAL_BATCH_SIZE = 8


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
    def gradients(
        self,
        tape: tf.GradientTape,
        place: places.Place,
        factors: tf.Tensor,
        indices: Sequence[int],
        batched: bool,
    ) -> list[places.Structure]:
        """Computes the gradient of each of some losses times its factor.

        Args:
            tape: A persistent tape that watched the activations.
            place: The activations.
            factors: `[T]`.
            indices: Which losses.
            batched: Whether backward passes may be batched.

        Returns:
            A gradient for each index, in the form of its activations; zeros
            where a loss does not depend on them.
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

    def gradients(self, tape, place, factors, indices, batched):
        """See base class."""
        seeds = self.seeds(factors)
        return [
            place.pick(
                tape.gradient(
                    self.values[i], place.activations, output_gradients=seeds[i]
                ),
                i,
            )
            for i in indices
        ]


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

    def gradients(self, tape, place, factors, indices, batched):
        """See base class."""

        def gradient(seed):
            return place.dense(
                tape.gradient(
                    self.values, place.activations, output_gradients=seed
                )
            )

        seeds = tf.gather(tf.linalg.diag(self.seeds(factors)), list(indices))
        count = len(indices)
        if count == 1 or not batched:
            return [gradient(seed) for seed in tf.unstack(seeds)]
        stacked = _multiplied(gradient, seeds, place)
        if stacked is not None:
            return linalg.unstack(stacked, count)
        at_once = losses_at_once(place.blocks[0].shape[0], count)
        return _map_in_turns(gradient, seeds, at_once, place.activations)


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


def losses_at_once(batch_size: int | None, count: int) -> int:
    """Returns how many losses share a backward pass: all of them on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return count
    return min(count, max(2, _CPU_ROWS // (batch_size or _USUAL_BATCH_SIZE)))


def _multiplied(
    gradient: Callable[[tf.Tensor], places.Structure],
    seeds: tf.Tensor,
    place: places.Place,
) -> places.Structure | None:
    """Computes gradients at the input of a dense layer in one product.

    Args:
        gradient: Maps a seed to a gradient.
        seeds: `[count, T]`.
        place: The activations.

    Returns:
        A structure of stacks `[count, ...]`; None where the activations are
        not the input of a wide dense layer.
    """

    def factors(seed: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor] | None]:
        return list(map(products.factors, tf.nest.flatten(gradient(seed))))

    if tf.executing_eagerly():
        return None
    found = factors(seeds[0])
    if not all(found):
        return None
    lefts, rights = zip(*found, strict=True)
    if not all(
        fuses(right, stacks=[left[None]])
        for left, right in zip(lefts, rights, strict=True)
    ):
        return None
    shared = True

    def lefts_of(seed: tf.Tensor) -> list[tf.Tensor]:
        nonlocal shared
        lefts, again = zip(*factors(seed), strict=True)
        names = [right.name for right in rights]
        shared = names == [right.name for right in again]
        return list(lefts)

    stacks = tf.vectorized_map(lefts_of, seeds)
    if not shared:
        # No weights, but something that follows from the seed.
        return None

    def in_form(stack, right, block):
        product = products.multiply(stack, right)
        shape = tf.concat([tf.shape(stack)[:1], tf.shape(block)], axis=0)
        static = [seeds.shape[0], *block.shape]
        return tf.ensure_shape(tf.reshape(product, shape), static)

    parts = zip(stacks, rights, place.blocks, strict=True)
    return place.with_blocks([in_form(*part) for part in parts]).activations


def _map_in_turns(
    gradient: Callable[[tf.Tensor], places.Structure],
    seeds: tf.Tensor,
    at_once: int,
    like: places.Structure,
) -> list[places.Structure]:
    """Maps a function over seeds, some at once; traces it once.

    Args:
        gradient: Maps a seed to a gradient.
        seeds: `[count, T]`.
        at_once: How many seeds share a call.
        like: A structure of the form, shapes and dtypes of a gradient.

    Returns:
        A gradient for each seed.
    """
    count = seeds.shape[0]
    turns = math.ceil(count / at_once)
    if turns == 1:
        return linalg.unstack(tf.vectorized_map(gradient, seeds), count)
    at_once = math.ceil(count / turns)
    padded = tf.pad(seeds, [[0, turns * at_once - count], [0, 0]])
    stacked = tf.map_fn(
        lambda some: tf.vectorized_map(gradient, some),
        tf.reshape(padded, [turns, at_once, seeds.shape[1]]),
        parallel_iterations=1,
        fn_output_signature=tf.nest.map_structure(lambda a: a.dtype, like),
    )

    def in_a_row(block: tf.Tensor, one: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([[turns * at_once], tf.shape(one)], axis=0)
        return tf.ensure_shape(
            tf.reshape(block, shape)[:count], [count, *one.shape]
        )

    stacked = tf.nest.map_structure(in_a_row, stacked, like)
    return linalg.unstack(stacked, count)
