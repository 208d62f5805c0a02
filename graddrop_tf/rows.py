"""Per-loss gradients as the rows of a matrix.

All magnitudes from 1e-30 to 1e30 are right in float32: values are divided by
their largest magnitude before they are multiplied.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from graddrop_tf import linalg, products, replicas
from graddrop_tf.fusion import fused, is_large
from graddrop_tf.linalg import ReplicaSum, accumulation_dtype, power_of_two

# Values of all gradients that are copied at once: 4 MiB in float32.
_AT_ONCE = 2**20
# Values of a gradient in one product: a batch of such products is faster than
# one of long rows, which also is where short ones end up.
_LONGEST, _SHORTEST = 2**13, 2**8


class Rows(abc.ABC):
    """Gradients as the rows of a matrix: products and combinations of them."""

    @abc.abstractmethod
    def gram(self, replica_sum: ReplicaSum = replicas.identity) -> tf.Tensor:
        """Returns the inner products of all pairs, `[T, T]` `float64`."""

    @abc.abstractmethod
    def mix(self, coefficients: tf.Tensor) -> list[Any]:
        """Returns `sum_j c_ij g_j` for every i, given `[T, T]`."""

    @abc.abstractmethod
    def weighted_sum(self, weights: tf.Tensor) -> Any:
        """Returns what `sum_j w_j g_j` sends into the trunk, given `[T]`."""


class _Block(abc.ABC):
    """The part of all gradients at one tensor."""

    @abc.abstractmethod
    def gram(self) -> tf.Tensor:
        """Returns the inner products of all pairs, `[T, T]` `float64`."""

    @abc.abstractmethod
    def mix(self, coefficients: tf.Tensor) -> list[tf.Tensor]:
        """Returns `sum_j c_ij g_j` for every i, given `[T, T]`."""

    @abc.abstractmethod
    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns `sum_j w_j g_j`, given `[T]`."""


@dataclasses.dataclass(frozen=True)
class _Stacked(_Block):
    """Gradients copied into matrices, each of a part of their values.

    Attributes:
        units: `[parts, T, n]`; the largest magnitude of each gradient is in
            [1, 2).
        scales: `[T]` `float64`, what each gradient was divided by.
        like: One of the gradients.
    """

    units: tf.Tensor
    scales: tf.Tensor
    like: tf.Tensor

    @classmethod
    def of(cls, gradients: Sequence[tf.Tensor]) -> _Stacked:
        return cls.of_parts(_parts(gradients), gradients[0])

    @classmethod
    def of_parts(cls, parts: tf.Tensor, like: tf.Tensor) -> _Stacked:
        """Takes values `[parts, T, n]`."""
        parts = tf.cast(parts, accumulation_dtype(parts.dtype))
        # Without a copy of all, as `abs` would make, and axis by axis: the
        # reduction of two axes that are apart is slow on a CPU.
        largest = tf.reduce_max(tf.reduce_max(parts, axis=2), axis=0)
        smallest = tf.reduce_min(tf.reduce_min(parts, axis=2), axis=0)
        scales = power_of_two(tf.maximum(largest, -smallest))
        units = parts / scales[:, None]
        return cls(units, tf.cast(scales, tf.float64), like)

    def gram(self):
        """See base class."""
        products = tf.matmul(self.units, self.units, transpose_b=True)
        products = tf.reduce_sum(tf.cast(products, tf.float64), axis=0)
        return products * self.scales[:, None] * self.scales[None, :]

    def mix(self, coefficients):
        """See base class; `[m, T]` gives m combinations."""
        like = self.like
        coefficients = tf.cast(coefficients * self.scales, self.units.dtype)
        mixed = tf.cast(tf.matmul(coefficients, self.units), like.dtype)
        return [
            tf.ensure_shape(tf.reshape(row, tf.shape(like)), like.shape)
            for row in tf.unstack(mixed, axis=1)
        ]

    def weighted_sum(self, weights):
        """See base class."""
        return self.mix(weights[None])[0]


@dataclasses.dataclass(frozen=True)
class _Large(_Block):
    """Gradients that are not to be copied all at once.

    Attributes:
        gradients: T tensors of a static shape.
        length: The length of a part.
    """

    gradients: Sequence[tf.Tensor]
    length: int

    def gram(self):
        """See base class; copies some parts of every gradient at a time."""
        count = len(self.gradients)
        num_parts = self.gradients[0].shape.num_elements() // self.length
        at_once = max(1, _AT_ONCE // (count * self.length))
        turns = num_parts // at_once

        def gram_of(start, number):
            parts = self._some(start, number, num_parts)
            return _Stacked.of_parts(parts, self.gradients[0]).gram()

        _, gram = tf.while_loop(
            lambda turn, _: turn < turns,
            lambda turn, gram: (
                turn + 1,
                gram + gram_of(turn * at_once, at_once),
            ),
            (0, tf.zeros([count, count], tf.float64)),
            parallel_iterations=1,
        )
        if num_parts % at_once:
            gram += gram_of(turns * at_once, num_parts % at_once)
        return gram

    def _some(self, start, number: int, num_parts: int) -> tf.Tensor:
        """Copies some parts of every gradient, `[number, T, length]`."""
        shape = [num_parts, self.length]
        stack = linalg.restack(self.gradients)
        if stack is None:
            return tf.stack(
                [
                    tf.slice(
                        tf.reshape(g, shape), [start, 0], [number, self.length]
                    )
                    for g in self.gradients
                ],
                axis=1,
            )
        count = len(self.gradients)
        parts = tf.slice(
            tf.reshape(stack, [count, *shape]),
            [0, start, 0],
            [count, number, self.length],
        )
        return tf.transpose(parts, [1, 0, 2])

    def mix(self, coefficients):
        """See base class."""
        return _Stacked.of(self.gradients).mix(coefficients)

    def weighted_sum(self, weights):
        """See base class."""
        return fused(_weighted_sum, self.gradients, weights)


@dataclasses.dataclass(frozen=True)
class _Products(_Block):
    """Gradients that need not be computed, as products of small matrices.

    Attributes:
        gradients: The gradients.
        products: Their factors.
    """

    gradients: Sequence[tf.Tensor]
    products: products.Products

    def gram(self):
        """See base class."""
        return self.products.gram()

    def mix(self, coefficients):
        """See base class."""
        return _Stacked.of(self.gradients).mix(coefficients)

    def weighted_sum(self, weights):
        """See base class."""
        like = self.gradients[0]
        total = self.products.weighted_sum(weights)
        return tf.ensure_shape(tf.reshape(total, tf.shape(like)), like.shape)


def _length(shape: tf.TensorShape, count: int) -> int | None:
    """Returns the length of the parts of `count` gradients of a shape.

    None if they would be too short, or their size is not known.
    """
    lengths, length = [], 1
    for size in reversed(shape):
        if size is None:
            break
        length *= size
        part = length
        while part > _LONGEST and part % 2 == 0:
            part //= 2
        lengths.append(part)
    lengths = [part for part in lengths if part >= max(count, _SHORTEST)]
    short = [part for part in lengths if part <= _LONGEST]
    return max(short) if short else min(lengths, default=None)


def _parts(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns gradients as matrices `[parts, T, n]`."""
    count = len(gradients)
    length = _length(gradients[0].shape, count)
    if length is not None:
        rows = [tf.reshape(g, [-1, length]) for g in gradients]
        return tf.stack(rows, axis=1)
    stack = linalg.restack(gradients)
    stack = tf.stack(gradients) if stack is None else stack
    return tf.reshape(stack, [1, count, -1])


def _block(gradients: Sequence[tf.Tensor]) -> _Block:
    """Returns the T gradients at one tensor in the form that is cheapest."""
    gradients = [tf.convert_to_tensor(g) for g in gradients]
    shape = gradients[0].shape
    found = products.find(gradients) if is_large(shape) else None
    if found:
        return _Products(gradients, found)
    size = shape.num_elements()
    length = _length(shape, len(gradients))
    if size and length and len(gradients) * size > 4 * _AT_ONCE:
        return _Large(gradients, length)
    return _Stacked.of(gradients)


def _weighted_sum(
    gradients: Sequence[tf.Tensor], weights: tf.Tensor
) -> tf.Tensor:
    """Returns `sum_j w_j g_j`, given `[T]` `float64`."""
    like = gradients[0]
    dtype = accumulation_dtype(like.dtype)
    # Two factors in the range of float32, of a weight that may be out of it.
    magnitudes = power_of_two(tf.sqrt(tf.abs(weights)))
    rests = tf.cast(weights / magnitudes, dtype)
    magnitudes = tf.cast(magnitudes, dtype)
    terms = [
        tf.cast(g, dtype) * magnitudes[i] * rests[i]
        for i, g in enumerate(gradients)
    ]
    return tf.cast(tf.add_n(terms), like.dtype)


@dataclasses.dataclass(frozen=True)
class SharedRows(Rows):
    """Gradients with respect to the same tensors.

    Attributes:
        form: A structure of the form of each gradient.
        blocks: The rows at each tensor.
    """

    form: Any
    blocks: Sequence[_Block]

    @classmethod
    def of(cls, gradients: Sequence[Any]) -> SharedRows:
        """Takes gradients in the form of their tensors."""
        blocks = [_block(block) for block in linalg.by_block(gradients)]
        return cls(gradients[0], blocks)

    def gram(self, replica_sum=replicas.identity):
        """See base class."""
        return replica_sum(tf.add_n([block.gram() for block in self.blocks]))

    def mix(self, coefficients):
        """See base class."""
        mixed = [block.mix(coefficients) for block in self.blocks]
        return [
            tf.nest.pack_sequence_as(self.form, list(row))
            for row in zip(*mixed, strict=True)
        ]

    def weighted_sum(self, weights):
        """See base class."""
        sums = [block.weighted_sum(weights) for block in self.blocks]
        return tf.nest.pack_sequence_as(self.form, sums)


@dataclasses.dataclass(frozen=True)
class SeparatedRows(Rows):
    """Gradients with respect to tensors of different examples.

    No example has two gradients, so the rows are orthogonal.

    Attributes:
        gradients: T gradients.
    """

    gradients: Sequence[Any]

    def gram(self, replica_sum=replicas.identity):
        """See base class; diagonal."""
        return tf.linalg.diag(linalg.squared_norms(self.gradients, replica_sum))

    def mix(self, coefficients):
        """See base class; the examples of loss j receive `sum_i c_ij g_j`."""
        return self.weighted_sum(tf.reduce_sum(coefficients, axis=0))

    def weighted_sum(self, weights):
        """See base class; T gradients, each to its own examples."""
        return linalg.scale_each(self.gradients, weights)
