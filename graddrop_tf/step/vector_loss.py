"""Losses with a value for each task, before they are summed."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import replicas
from graddrop_tf.checks import is_number
from graddrop_tf.step import columns


@keras.saving.register_keras_serializable("graddrop_tf")
class VectorLoss(keras.losses.Loss):
    """T losses computed at once, for tasks that share head weights.

    Each loss is the mean over the batch of its weighted values, as in Keras:
    the weights are no part of the divisor. In a plain `keras.Model` it is
    the sum of the T losses.

    Args:
        fn: A callable of `y_true` and `y_pred` that returns `[batch, T]`;
            register it with Keras to save a compiled model. Or a Keras loss
            of single values, such as `"mse"` or
            `keras.losses.BinaryCrossentropy(from_logits=True)`, which is
            taken column by column.
        names: T names of the losses, for logs and leaks by name; without
            them T is the last dimension of the model's output.
        loss_weights: A number, T numbers, or a dict from names (losses not
            named have weight 1). `compile(loss_weights=...)` sets it too.
        name: Name of the loss.

    Raises:
        ValueError: Where `fn` is neither, names repeat, weights do not fit,
            or `fn` returns another shape.

    Example:
        >>> loss = gd.VectorLoss("binary_crossentropy", names=["hat", "smile"])
        >>> def cross_entropy(y_true, y_pred):
        ...     return tf.nn.sigmoid_cross_entropy_with_logits(y_true, y_pred)
        >>> loss = gd.VectorLoss(cross_entropy, names=["hat", "smile"])
    """

    def __init__(
        self,
        fn: columns.Function | keras.losses.Loss | str,
        names: Sequence[str] | None = None,
        loss_weights: float | Sequence[float] | dict[str, float] | None = None,
        name: str = "vector_loss",
    ):
        super().__init__(name=name, dtype=getattr(fn, "dtype", None))
        self._function = columns.function_of(fn)
        if names is not None:
            names = tuple(names)
            if not names or len(set(names)) != len(names):
                raise ValueError(
                    "`names` must be different names, at least one. "
                    f"Received: {list(names)}."
                )
        self.fn = fn
        self.names = names
        self.loss_weights = loss_weights
        self._check_loss_weights()

    def _check_loss_weights(self) -> None:
        weights = self.loss_weights
        if isinstance(weights, dict):
            unknown = sorted(set(weights) - set(self.names or ()))
            if unknown:
                raise ValueError(
                    f"`loss_weights` names no such loss: {unknown}. The "
                    f"losses are {list(self.names or ())}."
                )
            weights = list(weights.values())
        elif weights is None or is_number(weights):
            weights = [0 if weights is None else weights]
        elif self.names and len(weights) != len(self.names):
            raise ValueError(
                "`loss_weights` must be one number for each loss. Received: "
                f"{len(weights)} for {len(self.names)} losses."
            )
        if not all(is_number(w) for w in weights):
            raise ValueError(
                "`loss_weights` must be numbers. Received: "
                f"{self.loss_weights}."
            )

    def names_for(self, outputs) -> list[str]:
        """Returns the names of the losses, numbers where none are given.

        Args:
            outputs: The outputs of the model: a tensor `[batch, ..., T]`.

        Raises:
            ValueError: If there are several, or T is unknown.
        """
        flat = keras.tree.flatten(outputs)
        if len(flat) != 1:
            raise ValueError(
                "A gd.VectorLoss is the loss of one output: give a list or a "
                "dict with a loss for each. Received: "
                f"{len(flat)} outputs."
            )
        if self.names is not None:
            return list(self.names)
        count = flat[0].shape[-1]
        if count is None:
            raise ValueError(
                "Give the gd.VectorLoss `names`: the last dimension of the "
                f"output is unknown, of shape {flat[0].shape}."
            )
        return [str(i) for i in range(count)]

    def with_loss_weights(self, loss_weights) -> VectorLoss:
        """Returns the same loss with other weights."""
        return VectorLoss(self.fn, self.names, loss_weights, self.name)

    def weights_for(self, num_losses: int) -> list[float] | None:
        """Returns the weight of each of T losses, None where all are 1.

        Raises:
            ValueError: Where there are weights for another number.
        """
        weights = self.loss_weights
        if weights is None:
            return None
        if isinstance(weights, dict):
            return [float(weights.get(name, 1.0)) for name in self.names]
        if is_number(weights):
            return [float(weights)] * num_losses
        if len(weights) != num_losses:
            raise ValueError(
                "`loss_weights` must be one number for each loss. Received: "
                f"{len(weights)} for {num_losses} losses."
            )
        return [float(w) for w in weights]

    def values(self, y_true, y_pred, sample_weight=None) -> tf.Tensor:
        """Computes the T losses without `loss_weights`.

        Args:
            y_true: Labels.
            y_pred: Predictions; a Keras mask on them is respected.
            sample_weight: None, `[batch]` or `[batch, T]`.

        Returns:
            A tensor of shape `[T]`, divided by the number of replicas.

        Raises:
            ValueError: Where `fn` or `sample_weight` has another shape.
        """
        mask = getattr(y_pred, "_keras_mask", None)
        y_true, y_pred = keras.tree.map_structure(
            lambda x: keras.ops.convert_to_tensor(x, dtype=self.dtype),
            (y_true, y_pred),
        )
        values = tf.cast(self._function(y_true, y_pred), self.dtype)
        if values.shape.rank != 2 or values.shape[1] is None:
            raise ValueError(
                "The function of a VectorLoss must return `[batch, T]` with "
                f"a static T. Received: shape {values.shape}."
            )
        if self.names is not None and values.shape[1] != len(self.names):
            raise ValueError(
                f"The VectorLoss has {len(self.names)} names. Received: "
                f"{values.shape[1]} losses, of shape {values.shape}."
            )
        if mask is not None:
            # As in Keras: the mean over the positions that the mask keeps.
            mask = tf.cast(_per_example(mask, "mask"), values.dtype)
            mask = tf.broadcast_to(mask, tf.shape(values))
            values *= mask * tf.math.divide_no_nan(
                tf.cast(tf.size(mask), mask.dtype), tf.reduce_sum(mask)
            )
        if sample_weight is not None:
            weight = tf.cast(sample_weight, values.dtype)
            weight = _per_example(weight, "sample_weight")
            if weight.shape[1] not in (None, 1, values.shape[1]):
                raise ValueError(
                    "`sample_weight` must be [batch] or [batch, T]. "
                    f"Received: shape {weight.shape} for losses of shape "
                    f"{values.shape}."
                )
            values *= weight
        # At the end of the data a replica may have no examples.
        count = tf.cast(tf.maximum(tf.shape(values)[0], 1), values.dtype)
        return replicas.scale_loss(tf.reduce_sum(values, axis=0) / count)

    def weighted(self, values: tf.Tensor) -> tf.Tensor:
        """Applies `loss_weights` to losses `[T]` or `[batch, T]`."""
        weights = self.weights_for(values.shape[-1])
        if weights is None:
            return values
        return values * tf.constant(weights, values.dtype)

    def __call__(self, y_true, y_pred, sample_weight=None):
        """Computes the weighted sum of the T losses, a scalar."""
        values = self.values(y_true, y_pred, sample_weight)
        return tf.reduce_sum(self.weighted(values))

    def call(self, y_true, y_pred):
        """Computes the weighted losses of each example, `[batch, T]`."""
        return self.weighted(self._function(y_true, y_pred))

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "fn": keras.saving.serialize_keras_object(self.fn),
            "names": self.names,
            "loss_weights": self.loss_weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the loss from `get_config`."""
        fn = config["fn"]
        if isinstance(fn, dict):
            fn = keras.saving.deserialize_keras_object(fn)
        return cls(**{**config, "fn": fn})


def weights_by_output(loss, loss_weights) -> tuple:
    """Gives each `VectorLoss` the weights of its losses.

    Args:
        loss: As in `compile`.
        loss_weights: As in `compile`; that of a `VectorLoss` may be a list or
            a dict.

    Returns:
        The losses, and weights of outputs that are numbers.

    Raises:
        ValueError: If there are weights and no losses.
    """
    if loss is None and loss_weights is not None:
        raise ValueError(
            "`loss_weights` are weights of the losses of `loss`. Received: "
            f"loss=None, loss_weights={loss_weights}."
        )
    if isinstance(loss, VectorLoss) and loss_weights is not None:
        return loss.with_loss_weights(loss_weights), None
    return _weights_inside(loss, loss_weights)


def _weights_inside(loss, loss_weights) -> tuple:
    """Does the same in lists and dicts, where a number stays Keras'."""
    if isinstance(loss, VectorLoss):
        if loss_weights is None or is_number(loss_weights):
            return loss, loss_weights
        return loss.with_loss_weights(loss_weights), 1.0
    if isinstance(loss, dict) and isinstance(loss_weights, dict):
        inside = {
            key: _weights_inside(loss[key], weights)
            for key, weights in loss_weights.items()
            if key in loss
        }
        return (
            {**loss, **{key: pair[0] for key, pair in inside.items()}},
            {**loss_weights, **{key: pair[1] for key, pair in inside.items()}},
        )
    kinds = (list, tuple)
    if isinstance(loss, kinds) and isinstance(loss_weights, kinds):
        pairs = zip(loss, loss_weights, strict=False)
        inside = [_weights_inside(*pair) for pair in pairs]
        count = len(inside)
        return (
            [*(pair[0] for pair in inside), *loss[count:]],
            [*(pair[1] for pair in inside), *loss_weights[count:]],
        )
    return loss, loss_weights


def _per_example(value: tf.Tensor, name: str) -> tf.Tensor:
    """Turns `[batch]` into `[batch, 1]`."""
    if value.shape.rank == 1:
        return value[:, None]
    if value.shape.rank == 2:
        return value
    raise ValueError(
        f"`{name}` must be [batch] or [batch, T]. Received: shape "
        f"{value.shape}."
    )
