"""Keras' own losses, with a value for each column of the output."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

# They are means, over the last axis, of values that belong to one column.
_BY_COLUMN = frozenset(
    {
        "binary_crossentropy",
        "binary_focal_crossentropy",
        "hinge",
        "huber",
        "log_cosh",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_error",
        "mean_squared_logarithmic_error",
        "poisson",
        "squared_hinge",
    }
)
# A `VectorLoss` takes the mean over the batch itself.
_MEANS = (None, "none", "mean", "sum_over_batch_size")

Function = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def function_of(loss: Function | keras.losses.Loss | str) -> Function:
    """Returns a function from labels and outputs to a value for each column.

    Args:
        loss: A function that does so; or a Keras loss, by object, function or
            name, which is taken column by column.

    Returns:
        A function of two tensors `[batch, T]` that returns `[batch, T]`.

    Raises:
        ValueError: If it is none of these, has a reduction other than the
            mean, or is a loss of Keras that compares columns.
    """
    known = _resolved(loss)
    if isinstance(known, keras.losses.Loss):
        if known.reduction not in _MEANS:
            raise ValueError(
                "A VectorLoss takes the mean over the batch. Received: a "
                f"{type(known).__name__} with reduction={known.reduction!r}."
            )
        if not _is_of_keras(type(known)):
            return known.call
        name = getattr(known, "fn", known.call).__name__
        function = known.call
    elif _is_of_keras(known):
        name = getattr(known, "__name__", type(known).__name__)
        function = known
    else:
        return known
    if name not in _BY_COLUMN:
        raise ValueError(
            f"{name!r} compares the columns of an output: give a function that "
            "returns `[batch, T]`, or one of Keras' losses of single values, "
            f"{sorted(_BY_COLUMN)}. Received: {loss!r}."
        )
    return lambda y_true, y_pred: _by_column(function, y_true, y_pred)


def _resolved(loss):
    known = loss
    if isinstance(loss, str):
        try:
            known = keras.losses.get(loss)
        except ValueError:
            known = None
    if not callable(known):
        raise ValueError(
            "`fn` must be a callable of y_true and y_pred, or a Keras loss or "
            f"its name. Received: {loss!r}."
        )
    return known


def _is_of_keras(thing) -> bool:
    return getattr(thing, "__module__", "").startswith("keras.")


def _by_column(function: Function, y_true, y_pred) -> tf.Tensor:
    if len(y_true.shape) != len(y_pred.shape):
        raise ValueError(
            "The labels of a VectorLoss must have the shape of the output. "
            f"Received: labels {y_true.shape}, output {y_pred.shape}."
        )
    # The mean over an axis of one value is that value.
    return function(y_true[..., tf.newaxis], y_pred[..., tf.newaxis])
