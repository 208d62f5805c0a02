"""Gradients that are products of small matrices.

The gradient of a loss at the input of a dense layer, or of a 1 x 1
convolution, is `D W^T`: that of the layer's `c` outputs times its weights.
Where `c` is small, inner products and sums of many such gradients follow from
the factors, and the gradients themselves, as wide as the activations, are never
computed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

# Ops that keep the order of all values.
_KEEP_ORDER = ("EnsureShape", "Identity", "Reshape")
_ACCURATE = (tf.float32, tf.float64)


@dataclasses.dataclass(frozen=True)
class Products:
    """T matrices `[n, F]`, each a product of two thin ones.

    Attributes:
        lefts: T matrices `[n, c_i]`.
        rights: T matrices `[F, c_i]`.
    """

    lefts: Sequence[tf.Tensor]
    rights: Sequence[tf.Tensor]

    def gram(self) -> tf.Tensor:
        """Returns the inner products of all pairs, `[T, T]` `float64`."""
        # `<D V^T, E W^T>` is the sum over (D^T E) * (V^T W). It may cancel.
        left, right = (
            tf.cast(tf.concat(factors, axis=1), tf.float64)
            for factors in (self.lefts, self.rights)
        )
        products = tf.matmul(left, left, transpose_a=True)
        products *= tf.matmul(right, right, transpose_a=True)
        owner = tf.one_hot(self._owners(), len(self.lefts), dtype=tf.float64)
        return tf.matmul(owner, products @ owner, transpose_a=True)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Returns `sum_i w_i D_i W_i^T`, `[n, F]`.

        Args:
            weights: `[T]` `float64`.
        """
        left = tf.concat(self.lefts, axis=1)
        weights = tf.gather(weights, self._owners())
        left = tf.cast(tf.cast(left, tf.float64) * weights, left.dtype)
        return tf.matmul(left, tf.concat(self.rights, axis=1), transpose_b=True)

    def _owners(self) -> list[int]:
        """Returns which matrix each column of a factor belongs to."""
        return [
            index
            for index, right in enumerate(self.rights)
            for _ in range(right.shape[1])
        ]


def find(tensors: Sequence[tf.Tensor]) -> Products | None:
    """Finds the products that tensors of a graph are made by.

    Args:
        tensors: T tensors of one shape.

    Returns:
        Their factors; None if one is no product, or the tensors themselves
        take less work.
    """
    found = [factors(tensor) for tensor in tensors]
    last = tensors[0].shape[-1]
    # Rows of the matrix have to be rows of the tensor too.
    if not all(pair and pair[1].shape[0] == last for pair in found):
        return None
    lefts, rights = zip(*found, strict=True)
    rows = math.prod(size or 1 for size in tensors[0].shape[:-1])
    features = rights[0].shape[0]
    width = sum(right.shape[1] for right in rights)
    if width**2 * (rows + features) > len(tensors) * rows * features:
        return None
    return Products(lefts, rights)


def factors(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Finds the product that a tensor of a graph was reshaped from.

    Args:
        tensor: The tensor.

    Returns:
        Matrices D `[n, c]` and W `[F, c]`: the values of the tensor are those
        of `D W^T`, in order. None if it is no product, or of half precision.
    """
    if tf.is_symbolic_tensor(tensor) and tensor.dtype in _ACCURATE:
        op = tensor.op
        while op.type in _KEEP_ORDER or _transposes_nothing(op):
            op = op.inputs[0].op
        if op.type == "MatMul":
            return _of_matmul(op)
        if op.type == "Conv2DBackpropInput":
            return _of_convolution(op)
    return None


# One function, so that equal shapes are compiled once.
@tf.function(autograph=False, jit_compile=True)
def multiply(lefts: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Multiplies a stack of matrices by one, in one product.

    XLA orders the loops by the shapes; TensorFlow's own product of some
    hundred rows with a wide matrix takes two to four times as long.

    Args:
        lefts: `[T, n, c]`.
        right: `[F, c]`.

    Returns:
        `[T, n, F]`.
    """
    rows = tf.reshape(lefts, [-1, lefts.shape[-1]])
    product = tf.matmul(rows, right, transpose_b=True)
    shape = tf.concat([tf.shape(lefts)[:-1], [right.shape[0]]], axis=0)
    return tf.reshape(product, shape)


def _transposes_nothing(op: tf.Operation) -> bool:
    """Returns whether it is the start of a `tf.tensordot` of unknown sizes."""
    if op.type != "Transpose":
        return False
    axes = op.inputs[1]
    if axes.op.type == "InvertPermutation":
        axes = axes.op.inputs[0]
    axes = tf.get_static_value(axes)
    return axes is not None and list(axes) == list(range(len(axes)))


def _of_matmul(op: tf.Operation):
    left, right = op.inputs
    if op.get_attr("transpose_a") or not op.get_attr("transpose_b"):
        return None
    known = right.shape.is_fully_defined()
    return (left, right) if known else None


def _of_convolution(op: tf.Operation):
    _, kernel, outputs = op.inputs
    is_pointwise = (
        kernel.shape[:2] == [1, 1]
        and kernel.shape.is_fully_defined()
        and op.get_attr("data_format") == b"NHWC"
        and list(op.get_attr("strides")) == [1, 1, 1, 1]
        and outputs.shape[-1] == kernel.shape[-1]
    )
    if not is_pointwise:
        return None
    return tf.reshape(outputs, [-1, kernel.shape[-1]]), kernel[0, 0]
