"""From losses to the one gradient that the trunk receives."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from graddrop_tf import linalg, random, replicas
from graddrop_tf.recipe import RecipeState
from graddrop_tf.step import clipping

# Rows of one product in a batched backward pass. On the CPUs measured, products
# of 320 rows with a wide matrix run at half the rate of four of 80.
_CPU_ROWS = 80
_USUAL_BATCH_SIZE = 8

# T losses: a list of scalars, each with a graph of its own, or a tensor [T].
Losses = Sequence[tf.Tensor] | tf.Tensor


def num_losses_of(losses: Losses) -> int:
    """Returns T.

    Raises:
        ValueError: Where `losses` is neither scalars nor a vector.
    """
    if isinstance(losses, (list, tuple)):
        if losses and all(loss.shape.rank == 0 for loss in losses):
            return len(losses)
    elif losses.shape.rank == 1 and losses.shape[0]:
        return losses.shape[0]
    raise ValueError(
        f"Losses must be a list of scalars or a tensor [T]. Received: {losses}."
    )


def as_vector(losses: Losses) -> tf.Tensor:
    """Returns losses as a `float32` tensor `[T]`."""
    if isinstance(losses, (list, tuple)):
        losses = tf.stack([tf.cast(loss, tf.float32) for loss in losses])
    return tf.cast(losses, tf.float32)


def _seeds(losses: Losses, factors: tf.Tensor):
    """What a backward pass from all losses starts with."""
    if isinstance(losses, (list, tuple)):
        return [
            tf.cast(factors[i], loss.dtype) for i, loss in enumerate(losses)
        ]
    return tf.cast(factors, losses.dtype)


def gradients_of_sum(
    tape: tf.GradientTape, losses: Losses, sources, factors: tf.Tensor
):
    """Computes `d(sum_i factor_i L_i) / d(sources)` in one backward pass."""
    return tape.gradient(
        losses, sources, output_gradients=_seeds(losses, factors)
    )


def per_loss_gradients(
    tape: tf.GradientTape,
    losses: Losses,
    activations,
    factors: tf.Tensor,
    indices: Sequence[int] | None = None,
    after: Sequence[tf.Tensor] = (),
    batched: bool = True,
) -> list[tf.Tensor]:
    """Computes `factor_i dL_i/dA`, one by one or batched.

    Args:
        tape: A persistent tape that watched the activations.
        losses: A list of scalars: a backward pass for each. A tensor `[T]`:
            one batched backward pass for all.
        activations: A, or a list with A_i for each loss.
        factors: `[T]`.
        indices: Which losses; all by default.
        after: Tensors to wait for, so that chunks do not coexist.
        batched: Whether the backward passes of a tensor of losses may be one.
            A pass that sums over replicas (synchronized batch norm) is wrong
            in a batch.

    Returns:
        A tensor for each index; zeros where a loss does not depend on A.

    Raises:
        ValueError: Where losses are batch separated and a loss depends on
            the activations of another.
    """
    count = num_losses_of(losses)
    indices = range(count) if indices is None else indices
    with tf.control_dependencies(list(after)):
        factors = tf.identity(factors)
    if isinstance(losses, (list, tuple)):
        return [
            _gradient_of_one(tape, losses[i], activations, i, factors[i])
            for i in indices
        ]
    if linalg.is_separate(activations):
        raise ValueError(
            "Batch-separated activations need one loss for each. Received: "
            f"a vector of {count} losses."
        )
    seeds = tf.linalg.diag(tf.cast(factors, losses.dtype))
    seeds = tf.gather(seeds, list(indices))

    def gradient(seed):
        return _dense(
            tape.gradient(losses, activations, output_gradients=seed),
            activations,
        )

    if len(indices) == 1 or not batched:
        return [gradient(seed) for seed in tf.unstack(seeds)]
    gradients = []
    size = _losses_at_once(activations, len(indices))
    for first in range(0, len(indices), size):
        some = seeds[first : min(first + size, len(indices))]
        stacked = tf.vectorized_map(gradient, some)
        gradients.extend(tf.unstack(stacked, num=some.shape[0]))
    return gradients


def _losses_at_once(activations: tf.Tensor, count: int) -> int:
    """How many losses share a backward pass: all of them on a GPU."""
    if tf.config.list_logical_devices("GPU"):
        return count
    batch_size = activations.shape[0] or _USUAL_BATCH_SIZE
    return min(count, max(2, _CPU_ROWS // batch_size))


def _gradient_of_one(tape, loss, activations, index, factor):
    seed = tf.cast(factor, loss.dtype)
    gradients = tape.gradient(loss, activations, output_gradients=seed)
    if not linalg.is_separate(activations):
        return _dense(gradients, activations)
    others = [
        i for i, g in enumerate(gradients) if g is not None and i != index
    ]
    if others:
        raise ValueError(
            "Batch-separated losses must each depend on their own "
            f"activations. Received: loss {index} depends on those of "
            f"{others}."
        )
    return _dense(gradients[index], activations[index])


def _dense(gradient, like: tf.Tensor) -> tf.Tensor:
    if gradient is None:
        return tf.zeros_like(like)
    return tf.ensure_shape(tf.convert_to_tensor(gradient), like.shape)


def combine_gradients(
    state: RecipeState,
    tape: tf.GradientTape,
    losses: Losses,
    activations,
    factors: tf.Tensor,
    chunk_size: int | None = None,
    batched: bool = True,
):
    """Computes the gradient that the trunk receives.

    Args:
        state: The recipe's layers.
        tape: A persistent tape that watched the activations.
        losses: A list of T scalars or a tensor `[T]`.
        activations: A, or a list with A_i for each loss.
        factors: `[T]`: weights times the loss scale.
        chunk_size: How many per-loss gradients may exist at once.
        batched: As in `per_loss_gradients`.

    Returns:
        The gradient in the structure of `activations`, and the norms `[T]` of
        the factored per-loss gradients, or None where no one needs them.
    """
    count = num_losses_of(losses)
    separate = linalg.is_separate(activations)
    if separate and len(activations) != count:
        raise ValueError(
            "Batch-separated activations need one tensor for each loss. "
            f"Received: {len(activations)} activations, {count} losses."
        )
    if not state.needs_per_loss_gradients:
        gradient = gradients_of_sum(tape, losses, activations, factors)
        if separate:
            return [
                _dense(g, a) for g, a in zip(gradient, activations, strict=True)
            ], None
        return _dense(gradient, activations), None
    with random.drawing(state.combiner.next_step()):
        if chunk_size is not None:
            return _stream(
                state, tape, losses, activations, factors, chunk_size, batched
            )
        gradients = per_loss_gradients(
            tape, losses, activations, factors, batched=batched
        )
        norms = _norms(state, gradients)
        if separate:
            return state.combiner.combine(gradients, activations), norms
        return state.combiner.combine_to_sum(gradients, activations), norms


def _norms(state, gradients):
    if state.weighting is None:
        return None
    squares = linalg.squared_norms(gradients, replicas.sum_over_replicas)
    return tf.sqrt(squares)


def _stream(state, tape, losses, activations, factors, chunk_size, batched):
    """Combines chunk by chunk, each after the one before."""
    count = num_losses_of(losses)
    stream = state.combiner.streaming()
    stream.start(count, activations)
    norms, accumulators = [], []
    for first in range(0, count, chunk_size):
        indices = range(first, min(first + chunk_size, count))
        gradients = per_loss_gradients(
            tape, losses, activations, factors, indices, accumulators, batched
        )
        norms.append(_norms(state, gradients))
        accumulators = stream.add(indices, gradients)
    total = stream.finish()
    return total, None if state.weighting is None else tf.concat(norms, 0)


def update_weighting(
    state: RecipeState, losses: Losses, norms, factors: tf.Tensor
) -> None:
    """Lets the weighting see the step, after its weights were used.

    Args:
        state: The recipe's layers.
        losses: The losses, divided by the number of replicas.
        norms: Norms of the factored per-loss gradients.
        factors: `[T]`.
    """
    if state.weighting is None:
        return
    state.weighting.update(
        replicas.sum_over_replicas(as_vector(losses)),
        tf.cast(norms / tf.cast(factors, norms.dtype), tf.float32),
    )


def compute_gradients(
    tape: tf.GradientTape,
    losses: Losses,
    activations,
    variables,
    state: RecipeState,
) -> list[tf.Tensor | tf.IndexedSlices | None]:
    """Computes combined gradients in a custom training loop.

    Variables that the activations depend on receive the combined gradient;
    all others (the heads') that of the sum of their losses. A loss must not
    reach a trunk variable except through the activations.

    In a `tf.function` the cost is one backward pass through the trunk; in
    eager mode a tape that recorded the trunk is walked for each loss.
    Under `tf.distribute` each loss is to be divided by the number of
    replicas, as Keras' own losses are; where the heads sum over replicas
    (synchronized batch norm), give the losses as a list of scalars.

    Args:
        tape: A persistent tape that recorded trunk, heads and losses.
        losses: A list of T scalars, or a tensor `[T]`.
        activations: The shared activations A, or a list with A_i for each
            loss where they are batch separated.
        variables: Trainable variables.
        state: `recipe.build(num_losses)`, made once, outside of the step.

    Returns:
        A gradient for each variable, to be applied by an optimizer; None for
        a variable that no loss depends on.

    Raises:
        ValueError: Where the numbers of losses differ, the tape is not
            persistent, or the recipe has a gradient penalty, which needs the
            inputs: use `gd.MultiLossModel`.

    Example:
        >>> state = gd.Recipe.parse("graddrop").build(num_losses=2)
        >>> with tf.GradientTape(persistent=True) as tape:
        ...     activations = trunk(x, training=True)
        ...     losses = [loss_a(activations), loss_b(activations)]
        >>> grads = gd.compute_gradients(
        ...     tape, losses, activations, variables, state
        ... )
        >>> optimizer.apply_gradients(zip(grads, variables))
    """
    if state.recipe.gradient_penalty:
        raise ValueError(
            "A gradient penalty needs the inputs: use `gd.MultiLossModel`. "
            f"Received: the recipe {state.recipe}."
        )
    if not getattr(tape, "_persistent", True):
        raise ValueError(
            "Per-loss gradients need a persistent tape. Use "
            "`tf.GradientTape(persistent=True)`."
        )
    state.set_losses(num_losses_of(losses), state.combiner.loss_names)
    variables = [getattr(v, "value", v) for v in variables]
    factors = weights_of(state, losses)
    combined, norms = combine_gradients(
        state, tape, losses, activations, factors
    )
    trunk = tape.gradient(activations, variables, output_gradients=combined)
    heads = gradients_of_sum(tape, losses, variables, factors)
    grads = [
        head if through is None else through
        for through, head in zip(trunk, heads, strict=True)
    ]
    update_weighting(state, losses, norms, factors)
    if state.recipe.global_clipnorm is not None:
        grads = clipping.clip_unreduced(grads, state.recipe.global_clipnorm)
    return grads


def weights_of(state: RecipeState, losses: Losses) -> tf.Tensor:
    """Returns the weights `[T]` of this step, 1 without a weighting."""
    if state.weighting is None:
        return tf.ones([num_losses_of(losses)])
    return state.weighting.current_weights()
