"""Combined gradients in a custom training loop."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from graddrop_tf import places
from graddrop_tf.step import clipping
from graddrop_tf.step import losses as losses_lib
from graddrop_tf.step.gradients import LossGradients
from graddrop_tf.step.state import RecipeState
from graddrop_tf.step.variables import Variables


# AutoGraph has nothing to convert in here, and warns of what it cannot.
@tf.autograph.experimental.do_not_convert
def compute_gradients(
    tape: tf.GradientTape,
    losses: losses_lib.Values,
    activations,
    variables,
    state: RecipeState,
    optimizer: keras.optimizers.Optimizer | None = None,
    separate: bool = False,
) -> Any:
    """Computes combined gradients in a custom training loop.

    The trunk's variables receive the combined gradient, all others that of
    the sum of their losses. What reaches a variable of the trunk past the
    activations (a regularizer in a loss, a weight that the heads use too, a
    skip from inside of the trunk) is added unmasked, as `gd.MultiLossModel`
    adds regularizers. Under `tf.distribute` divide each loss by the number of
    replicas; if the heads synchronize over replicas, pass a list of scalars.

    Args:
        tape: A persistent tape that recorded trunk, heads and losses.
        losses: A list of T scalars, or a tensor `[T]`; not scaled.
        activations: A: a tensor, or lists and dicts of tensors. None may be
            computed from another: where one is, as the skips of a U-Net, give
            the heads and this function `tf.nest.map_structure(tf.identity,
            A)`.
        variables: Variables of Keras or TensorFlow, layers, models, modules
            (`tf.Module`), or lists, tuples and dicts of them.
        state: `recipe.build(num_losses)`, made once, outside of the step.
        optimizer: A `LossScaleOptimizer`, whose scale the gradients get.
        separate: Whether the losses are batch separated: A is a list with the
            activations of each loss, computed from examples of its own.

    Returns:
        Gradients in the nesting of `variables`: tensors or
        `tf.IndexedSlices`, None where no loss depends on a variable, which a
        warning names. For a layer, model or module a list, in the order of its
        `trainable_variables`.

    Raises:
        ValueError: If the numbers of losses differ, the tape is not
            persistent, the recipe has a penalty, one of the activations is
            computed from another, something else is among the variables, or
            no loss depends on any of them.

    Example:
        >>> state = gd.Recipe.parse("graddrop").build(num_losses=2)
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     activations = trunk(x, training=True)
        ...     losses = [loss_a(activations), loss_b(activations)]
        >>> grads = gd.compute_gradients(tape, losses, activations, v, state)
        >>> optimizer.apply_gradients(zip(grads, v))
    """
    variables = Variables.of(variables)
    losses, place = losses_lib.of(losses), places.of(activations, separate)
    _prepare(tape, losses, place, state)
    scale = tf.ones([]) if optimizer is None else optimizer.scale_loss(1.0)
    with state.drawing():
        global_losses = state.global_losses(losses)
        factors = state.loss_weights(global_losses) * scale
        gradients = LossGradients(tape, losses, place, factors)
        combined, norms = state.combine(gradients)
        state.update(global_losses, norms)
    if combined is None:
        grads = gradients.of_sum(variables.unique)
    else:
        grads = gradients.of_sum_past(combined, variables.unique)
    variables.check_gradients(grads)
    grads = clipping.clip_unreduced(grads, state.global_clipnorm, scale)
    return variables.pack(grads)


def _prepare(tape, losses, place, state: RecipeState) -> None:
    """Checks the arguments, and tells the state of the losses."""
    if state.gradient_penalty:
        raise ValueError(
            "A gradient penalty needs the inputs: use `gd.MultiLossModel`. "
            f"Received: gradient_penalty={state.gradient_penalty}."
        )
    if not getattr(tape, "_persistent", True):
        raise ValueError(
            "Per-loss gradients need a persistent tape. Use "
            "`tf.GradientTape(persistent=True)`."
        )
    place.check_losses(losses.count, isinstance(losses, losses_lib.Vector))
    if state.needs_per_loss_gradients:
        place.check_independent(tape)
    if state.num_losses not in (None, losses.count):
        raise ValueError(
            f"The state was built for {state.num_losses} losses: build one for "
            f"each number. Received: {losses.count} losses."
        )
    state.set_losses(losses.count, state.combiner.loss_names)
