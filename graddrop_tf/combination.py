"""The mathematics of every method in one call, without a model."""

from __future__ import annotations

import contextlib
import numbers
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from graddrop_tf import linalg, places, random
from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.configuration import Configuration
from graddrop_tf.bases.draws import RandomDraws
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.places import Place, Structure
from graddrop_tf.recipe import Recipe


@tf.autograph.experimental.do_not_convert
def combine(
    method: Combiner | Weighting | Recipe | str,
    gradients,
    activations: Structure | None = None,
    step: tf.Tensor | int = 0,
    losses=None,
) -> list[Structure]:
    """Combines the gradients of T losses, without a model.

    It computes what a model with the method does in its first step: eagerly,
    in a `tf.function`, or under XLA. Where a method has no solution, its class
    says what it returns; the result has no NaN unless the gradients have one.

    Args:
        method: A combiner, a weighting, or a recipe of them such as `"mgda"`
            or `"log_sum+graddrop(leak=0.2)"`. It is not changed.
        gradients: The gradient of each loss: a list of T tensors, or of T
            structures of tensors, each tensor a block; a stack `[T, ...]`, or
            a dict of stacks. The first axis of a tensor is the batch; one of a
            single axis, or none, is that of a single example. None, as
            `tape.gradient` returns it, stands for zeros.
        activations: A, where a method looks at it: a tensor or structure in
            the form of one gradient, or T of them where the losses are batch
            separated. Ones if None.
        step: Integer scalar from which draws follow. Text that gives no seed
            draws with seed 0, so that the same step gives the same result.
        losses: The T values of the losses, which a weighting sees. Its weights
            are those of the first step, in `float32`; the gradients are those
            of the losses without them.

    Returns:
        T gradients in the forms, shapes and dtypes of the given ones; integers
        become `float32`. Their sum is what the trunk receives.

    Raises:
        ValueError: If the recipe holds `clip` or `penalty`, `losses` are
            missing or have no use, or shapes or numbers do not match.

    Example:
        >>> a, b = gd.combine("mgda", [[6.0, 1.0, 1.0], [-4.0, 1.0, 1.0]])
        >>> a + b  # the shortest convex combination, (0, 1, 1)
    """
    weighting, combiners = _methods(method)
    gradients = _as_structures(gradients)
    losses = _losses(losses, len(gradients), weighting)
    shapes = tf.nest.map_structure(tf.shape, gradients)
    static = tf.nest.map_structure(lambda g: g.shape, gradients)
    gradients = tf.nest.map_structure(_with_batch, gradients)
    place = _place(combiners, gradients, activations)
    place.check_shapes(gradients)
    with random.drawing(step), contextlib.ExitStack() as stack:
        if weighting is not None:
            weighting.check_numbers(len(gradients), None)
            weighting.check_losses(len(gradients), None)
            stack.enter_context(weighting.without_variables(len(gradients)))
            weights = weighting.current_weights(losses)
            gradients = linalg.scale_each(gradients, weights)
        for combiner in combiners:
            combiner.set_losses(len(gradients))
            stack.enter_context(combiner.without_variables(len(gradients)))
            gradients = combiner.checked(gradients, place)
    return tf.nest.map_structure(
        lambda g, shape, like: tf.ensure_shape(tf.reshape(g, shape), like),
        gradients,
        shapes,
        static,
    )


def _methods(method) -> tuple[Weighting | None, list[Combiner]]:
    """Returns a new weighting and combiners that do what the method does."""
    if isinstance(method, Combiner):
        return None, list(_copies(method))
    if isinstance(method, Weighting):
        seed = getattr(method, "seed", None)
        return _build(method.configuration, seed), []
    recipe = Recipe.of(method)
    if recipe.global_clipnorm is not None or recipe.gradient_penalty:
        raise ValueError(
            "`combine` takes a weighting and combiners: `clip` and `penalty` "
            f"act on variables and inputs. Received: '{recipe}'."
        )
    weighting = recipe.weighting
    return (
        None if weighting is None else _build(weighting, seed=0),
        [_build(configuration, seed=0) for configuration in recipe.combiners],
    )


def _losses(
    losses, num_losses: int, weighting: Weighting | None
) -> tf.Tensor | None:
    """Returns the losses as a tensor `[T]`."""
    if weighting is None:
        if losses is None:
            return None
        raise ValueError(
            "`losses` are for a weighting, and the method has none. Received: "
            f"losses={losses}."
        )
    if losses is None:
        raise ValueError(
            f"{type(weighting).__name__} needs `losses`, the T values of the "
            "losses. Received: losses=None."
        )
    if isinstance(losses, (list, tuple)):
        losses = tf.stack([tf.cast(loss, tf.float32) for loss in losses])
    losses = tf.cast(losses, tf.float32)
    if losses.shape != [num_losses]:
        raise ValueError(
            f"Expected `losses` of shape [{num_losses}], one for each gradient."
            f" Received: shape {losses.shape}."
        )
    return losses


def _copies(method: Combiner) -> Iterator[Combiner]:
    if isinstance(method, Chain):
        for combiner in method.combiners:
            yield from _copies(combiner)
    else:
        yield _build(method.configuration, getattr(method, "seed", None))


def _build(
    configuration: Configuration, seed: int | None
) -> Combiner | Weighting:
    given = configuration.arguments.get("seed")
    if given is None and issubclass(configuration.make, RandomDraws):
        return configuration.build(seed=seed)
    return configuration.build()


def _as_structures(gradients) -> list[Structure]:
    """Returns T structures of tensors of floating point numbers."""
    if isinstance(gradients, dict):
        stacks = tf.nest.map_structure(tf.convert_to_tensor, gradients)
        first = tf.nest.flatten(stacks)[0]
        gradients = linalg.unstack(stacks, len(linalg.as_list(first)))
    if not isinstance(gradients, (list, tuple)):
        gradients = linalg.as_list(gradients)
    if not gradients:
        raise ValueError(
            "Expected one gradient for each loss. Received an empty list."
        )
    return _dense([_as_structure(gradient) for gradient in gradients])


def _dense(gradients: Sequence[Structure]) -> list[Structure]:
    """Returns the gradients with zeros in place of None."""
    blocks = []
    for block in linalg.by_block(gradients):
        like = next((g for g in block if g is not None), None)
        if like is None:
            raise ValueError(
                "Expected a gradient of at least one loss at each tensor. "
                "Received None for all of them."
            )
        blocks.append([tf.zeros_like(like) if g is None else g for g in block])
    return [
        tf.nest.pack_sequence_as(gradient, list(of_one))
        for gradient, *of_one in zip(gradients, *blocks, strict=True)
    ]


def _as_structure(gradient: Any) -> Structure:
    leaves = tf.nest.flatten(gradient)
    if all(isinstance(leaf, numbers.Number) for leaf in leaves):
        # A tensor, written as lists of numbers.
        return _floating(gradient)
    return tf.nest.map_structure(_floating, gradient)


def _floating(value: Any) -> tf.Tensor | None:
    if value is None:
        return None
    tensor = tf.convert_to_tensor(value)
    return tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.float32)


def _with_batch(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a tensor with a batch axis and features."""
    if tensor.shape.rank is None:
        raise ValueError(
            f"Expected tensors of a known rank. Received: {tensor}."
        )
    return tensor if tensor.shape.rank > 1 else tf.reshape(tensor, [1, -1])


def _place(
    combiners: Sequence[Combiner], gradients: list, activations: Structure
) -> Place:
    """Returns where the gradients meet."""
    wanted = [c.separate for c in combiners if c.separate is not None]
    separate = wanted[0] if wanted else None
    if activations is None:
        ones = tf.nest.map_structure(tf.ones_like, gradients)
        return places.Separated(ones) if separate else places.Shared(ones[0])
    activations = tf.nest.map_structure(_with_batch, _as_structure(activations))
    if separate is None and _same_form(activations, gradients[0]):
        separate = False
    return places.of(activations, separate)


def _same_form(first: Structure, second: Structure) -> bool:
    try:
        tf.nest.assert_same_structure(first, second)
    except (TypeError, ValueError):
        return False
    return True
