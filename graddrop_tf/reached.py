"""Which tensors gradients reach, and warnings where a user expects more."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

# The call that is going on, and which layer or model it entered by.
from keras.src.backend.common.global_state import get_global_attribute


class Arrivals:
    """Notes which of some tensors receive a gradient, as one is asked for.

    TensorFlow gives zeros for the gradient of a tensor on which nothing
    depends, which cannot be told from a gradient that is zero.

    Args:
        name: What the tensors are branches of, for the warning.
    """

    def __init__(self, name: str):
        self._name = name
        self._arrived: set[int] = set()

    def watch(self, branches: Sequence[Any]) -> list[Any]:
        """Returns branches, structures of tensors, that are watched."""
        return [
            tf.nest.map_structure(lambda t, i=i: self._watched(t, i), branch)
            for i, branch in enumerate(branches)
        ]

    def _watched(self, tensor: tf.Tensor, index: int) -> tf.Tensor:
        @tf.custom_gradient
        def identity(value):
            def grad(gradient):
                self._arrived.add(index)
                return gradient

            return tf.identity(value), grad

        return identity(tensor)

    def check(self, count: int) -> None:
        """Warns of the branches, of `count`, that received no gradient."""
        missing = [i for i in range(count) if i not in self._arrived]
        self._arrived.clear()
        if missing:
            warnings.warn(
                f"No gradient reaches the branches {missing} of {count}, "
                f"counted from 0, of {self._name!r}, which counts as zero. "
                "Give each head the branch of its loss, not the layer's input "
                "or the branch of another, and take the gradient of the sum "
                "of all losses.",
                stacklevel=2,
            )


def untold(training: bool | None) -> keras.layers.Layer | None:
    """Returns the model that cannot tell its layers that they are trained.

    Its `call` has no argument `training`, so that `fit` does not give it one,
    and Keras has none to hand on.

    Args:
        training: What the layer that asks was told.
    """
    context = get_global_attribute("current_call_ctx")
    model = getattr(context, "entry_layer", None)
    if training is not None or model is None or model._call_has_training_arg:
        return None
    return model


def warn_on_gradient(tensors, message: str):
    """Returns tensors that warn when a gradient reaches them.

    Args:
        tensors: A structure of tensors.
        message: The warning.
    """

    @tf.custom_gradient
    def identity(value):
        def grad(gradient):
            warnings.warn(message, stacklevel=2)
            return gradient

        return tf.identity(value), grad

    def watched(tensor):
        if not isinstance(tensor, tf.Tensor) or not tensor.dtype.is_floating:
            return tensor
        copy = identity(tensor)
        mask = getattr(tensor, "_keras_mask", None)
        if mask is not None:
            copy._keras_mask = mask
        return copy

    return tf.nest.map_structure(watched, tensors)


def check_losses(
    reached: Mapping[int, Sequence[bool]],
    names: Sequence[str],
    is_shared: bool,
) -> None:
    """Warns of losses that have nothing in common at the activations.

    Args:
        reached: For each loss, whether it depends on each of the tensors that
            are the activations.
        names: The names of the losses.
        is_shared: Whether the losses share the tensors, or each has its own.
    """
    alone = [n for i, n in enumerate(names) if not any(reached[i])]
    if alone:
        warnings.warn(
            f"The losses {alone} do not depend on the activations: their "
            "gradients count as zero where the others are combined.",
            stacklevel=2,
        )
        return
    counts = [sum(losses) for losses in zip(*reached.values(), strict=True)]
    if is_shared and len(names) > 1 and max(counts) == 1:
        warnings.warn(
            "No two losses depend on the same tensor of the activations: there "
            "is nothing to combine. Cut at a layer that losses share, or, if "
            "each loss has examples of its own, give `separate=True`.",
            stacklevel=2,
        )
