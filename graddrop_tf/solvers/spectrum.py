"""Eigenvalues and singular values of high relative accuracy, also under XLA.

XLA's own eigendecomposition stops at an error of about 1e-7, and none that
works on `M' M` sees a singular value of a millionth of the largest. One-sided
Jacobi rotations do (Demmel and Veselic, "Jacobi's method is more accurate than
QR", 1992). From the vectors of an eigendecomposition they need few sweeps.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_NUM_SWEEPS = 3
# Relative to the squared lengths: a product that needs no rotation.
_ORTHOGONAL = 1e-20


class Spectrum(NamedTuple):
    """Singular values and right singular vectors.

    Attributes:
        values: `[T]` `float64`, at least 0, in no order.
        vectors: `[T, T]` `float64`, a vector in each column.
    """

    values: tf.Tensor
    vectors: tf.Tensor


def eigenvalues(matrix: tf.Tensor) -> Spectrum:
    """Computes eigenvalues and eigenvectors.

    Args:
        matrix: `[T, T]` `float64`, symmetric and positive semidefinite.

    Returns:
        A `Spectrum`.

    Example:
        >>> values, vectors = eigenvalues(tf.eye(2, dtype="float64"))
    """
    return _rotated(matrix, tf.linalg.eigh(matrix)[1])


def singular_values(matrix: tf.Tensor) -> Spectrum:
    """Computes singular values and right singular vectors.

    Args:
        matrix: `[n, T]` `float64`.

    Returns:
        A `Spectrum`.

    Example:
        >>> values, vectors = singular_values(tf.eye(2, dtype="float64"))
    """
    square = tf.matmul(matrix, matrix, transpose_a=True)
    return _rotated(matrix, tf.linalg.eigh(square)[1])


def solve_for_ones(
    cosines: tf.Tensor, live: tf.Tensor, rounding: float
) -> tf.Tensor:
    """Solves `C x = 1` for the gradients that are not zero.

    Args:
        cosines: C, `[T, T]` `float64` with a diagonal of ones, positive
            semidefinite up to its rounding.
        live: `[T]` `float64`: 0 for a gradient of zero, else 1.
        rounding: The error of the values of C.

    Returns:
        `C^+ 1`, `[T]` `float64`, by the pseudo-inverse with the eigenvalues
        above T times the rounding; 0 for a gradient of zero. All of it is 0
        where it is no more than rounding, as for two opposed gradients.

    Example:
        >>> x = solve_for_ones(cosines, tf.ones([2], "float64"), 1e-12)
    """
    limit = cosines.shape[0] * rounding
    values, vectors = eigenvalues(cosines)
    inverse = tf.where(values > limit, 1 / tf.maximum(values, limit), 0.0)
    along = tf.linalg.matvec(vectors, live, transpose_a=True)
    x = live * tf.linalg.matvec(vectors, inverse * along)
    return tf.where(tf.reduce_max(tf.abs(x)) > limit, x, tf.zeros_like(x))


def _rotated(matrix: tf.Tensor, vectors: tf.Tensor) -> Spectrum:
    """Rotates orthogonal vectors until their images are orthogonal."""
    num_rows, num_columns = matrix.shape
    images = tf.matmul(vectors, matrix, transpose_a=True, transpose_b=True)
    # A row for each vector: its image, then the vector itself.
    rows = tf.concat([images, tf.transpose(vectors)], axis=1)
    odd = num_columns % 2
    rows = tf.pad(rows, [[0, odd], [0, 0]])
    order = _round_robin(num_columns + odd)
    count = _NUM_SWEEPS * (len(order) - 1)
    rows = tf.while_loop(
        lambda position, _: position < count,
        lambda position, rows: (
            position + 1,
            tf.gather(_rotate_pairs(rows, num_rows), order),
        ),
        (0, rows),
    )[1]
    # Whole sweeps bring each row back, the padding to the end.
    rows = rows[:num_columns]
    return Spectrum(
        tf.norm(rows[:, :num_rows], axis=1), tf.transpose(rows[:, num_rows:])
    )


def _rotate_pairs(rows: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Makes the images of the rows i and n / 2 + i orthogonal, for every i."""
    a, b = tf.split(rows, 2)
    image_a, image_b = a[:, :num_rows], b[:, :num_rows]
    square_a = tf.reduce_sum(image_a**2, axis=1, keepdims=True)
    square_b = tf.reduce_sum(image_b**2, axis=1, keepdims=True)
    product = tf.reduce_sum(image_a * image_b, axis=1, keepdims=True)
    needed = tf.abs(product) > _ORTHOGONAL * (square_a + square_b)
    divisor = tf.where(needed, 2 * product, 1.0)
    zeta = tf.where(needed, (square_b - square_a) / divisor, 0.0)
    sign = tf.where(zeta < 0, -tf.ones_like(zeta), 1.0)
    tangent = sign / (tf.abs(zeta) + tf.sqrt(1 + zeta**2))
    tangent = tf.where(needed, tangent, 0.0)
    cosine = 1 / tf.sqrt(1 + tangent**2)
    sine = cosine * tangent
    return tf.concat([cosine * a - sine * b, sine * a + cosine * b], axis=0)


def _round_robin(count: int) -> list[int]:
    """Returns the order after a round in which i met `count / 2 + i`.

    All pairs meet in `count - 1` rounds, as in a tournament where the first
    stays in its seat and the others move on by one.
    """
    seats = list(range(count))
    if count == 2:
        return seats
    above, below = seats[: count // 2], seats[count // 2 :]
    return [*above[:1], below[0], *above[1:-1], *below[1:], above[-1]]
