"""Backward passes: a gradient for each of some losses."""

from __future__ import annotations

import abc
import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from graddrop_tf import linalg, places, products
from graddrop_tf.fusion import fuses

# Rows of one product in a batched backward pass that TensorFlow computes. On
# the CPUs measured, one product of 320 rows with a wide matrix takes twice as
# long as four of 80.
_CPU_ROWS = 80
_USUAL_BATCH_SIZE = 8


class Passes(abc.ABC):
    """The backward passes of T losses from their values to the activations.

    Attributes:
        reached: For each loss whose gradient was computed, whether it depends
            on each tensor of the activations; empty where that is not known.
    """

    reached: Mapping[int, Sequence[bool]] = types.MappingProxyType({})

    @abc.abstractmethod
    def of(
        self, indices: Sequence[int], after: Sequence[tf.Tensor] = ()
    ) -> list[places.Structure]:
        """Computes the gradient of each of some losses times its factor.

        Args:
            indices: Which losses.
            after: Tensors to wait for, so that chunks do not coexist.

        Returns:
            A gradient for each index, in the form of its activations; zeros
            where a loss does not depend on them.
        """


class Single(Passes):
    """A backward pass for each loss.

    Args:
        gradient: Maps the index of a loss and its seed, the gradient at its
            value, to the gradient at the activations.
        seeds: T tensors.
        reached: Filled by `gradient`, as the attribute.
    """

    def __init__(
        self,
        gradient: Callable[[int, tf.Tensor], places.Structure],
        seeds: Sequence[tf.Tensor],
        reached: Mapping[int, Sequence[bool]] = types.MappingProxyType({}),
    ):
        self._gradient = gradient
        self._seeds = seeds
        self.reached = reached

    def of(self, indices, after=()):
        """See base class."""
        with tf.control_dependencies(list(after)):
            seeds = [tf.identity(self._seeds[i]) for i in indices]
        pairs = zip(indices, seeds, strict=True)
        return [self._gradient(i, seed) for i, seed in pairs]


class Batched(Passes):
    """Backward passes of a vector of losses, several at once.

    Args:
        gradient: Maps a seed `[T]`, the gradient at the vector, to the
            gradient at the activations.
        seeds: `[T, T]`, a seed for each loss.
        place: The activations.
    """

    def __init__(
        self,
        gradient: Callable[[tf.Tensor], places.Structure],
        seeds: tf.Tensor,
        place: places.Place,
    ):
        self._gradient = gradient
        self._seeds = seeds
        self._place = place

    def of(self, indices, after=()):
        """See base class."""
        count = len(indices)
        stacked = self._multiplied(indices, after)
        if stacked is not None:
            return linalg.unstack(stacked, count)
        with tf.control_dependencies(list(after)):
            seeds = tf.gather(self._seeds, list(indices))
        if count == 1:
            return [self._gradient(seeds[0])]
        at_once = losses_at_once(self._place.blocks[0].shape[0], count)
        return _map_in_turns(
            self._gradient, seeds, at_once, self._place.activations
        )

    def _multiplied(
        self, indices: Sequence[int], after: Sequence[tf.Tensor]
    ) -> places.Structure | None:
        """Computes gradients at the input of a dense layer in one product.

        Returns:
            A structure of stacks `[count, ...]`; None where the activations
            are not the input of a wide dense layer.
        """
        if not self._rights:
            return None
        indices = list(indices)
        if self._keeps_lefts(len(indices)):
            if self._lefts is None:
                return None
            with tf.control_dependencies(list(after)):
                lefts = [tf.gather(left, indices) for left in self._lefts]
        else:
            with tf.control_dependencies(list(after)):
                seeds = tf.gather(self._seeds, indices)
            lefts = self._lefts_of(seeds)
            if lefts is None:
                return None
        parts = zip(lefts, self._rights, self._place.blocks, strict=True)
        return self._place.with_blocks(
            [_product(*part) for part in parts]
        ).activations

    def _keeps_lefts(self, count: int) -> bool:
        """Returns whether all first factors are less than `count` gradients."""
        of_lefts = sum(right.shape[1] for right in self._rights)
        of_gradients = sum(right.shape[0] for right in self._rights)
        return of_lefts * self._seeds.shape[0] <= of_gradients * count

    @functools.cached_property
    def _lefts(self) -> list[tf.Tensor] | None:
        """The first factors of all losses: chunks share one trace of them."""
        return self._lefts_of(self._seeds)

    @functools.cached_property
    def _rights(self) -> list[tf.Tensor]:
        """The second factors, which all losses share; empty if not wide."""
        if tf.executing_eagerly() or self._seeds.shape[0] == 1:
            return []
        found = self._factors(self._seeds[0])
        if not all(found):
            return []
        lefts, rights = zip(*found, strict=True)
        pairs = zip(lefts, rights, strict=True)
        if not all(fuses(right, stacks=[left[None]]) for left, right in pairs):
            return []
        return list(rights)

    def _lefts_of(self, seeds: tf.Tensor) -> list[tf.Tensor] | None:
        """Computes first factors; None if the second are not shared."""
        shared = True

        def lefts_of(seed: tf.Tensor) -> list[tf.Tensor]:
            nonlocal shared
            lefts, rights = zip(*self._factors(seed), strict=True)
            # A factor that is no weights may follow from the seed.
            names = [right.name for right in self._rights]
            shared = names == [right.name for right in rights]
            return list(lefts)

        lefts = tf.vectorized_map(lefts_of, seeds)
        return lefts if shared else None

    def _factors(
        self, seed: tf.Tensor
    ) -> list[tuple[tf.Tensor, tf.Tensor] | None]:
        blocks = tf.nest.flatten(self._gradient(seed))
        return list(map(products.factors, blocks))


def losses_at_once(batch_size: int | None, count: int) -> int:
    """Returns how many losses share a backward pass: all of them on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return count
    return min(count, max(2, _CPU_ROWS // (batch_size or _USUAL_BATCH_SIZE)))


def _product(lefts: tf.Tensor, right: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
    """Returns a stack of products, each of the shape of `block`."""
    product = products.multiply(lefts, right)
    shape = tf.concat([tf.shape(lefts)[:1], tf.shape(block)], axis=0)
    static = [lefts.shape[0], *block.shape]
    return tf.ensure_shape(tf.reshape(product, shape), static)


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
