"""Keras' `fit` and `evaluate` on several replicas and machines.

Keras' own trainer builds models from the mean of all replicas' batches and
averages logs along an axis that scalars do not have, so that it fails under
`MultiWorkerMirroredStrategy` (Keras issue 20585) and where a first batch does
not divide; on several replicas it can neither run several steps in one
execution nor accumulate gradients, and `LossScaleOptimizer` looks for NaN on
the first of them alone. This module puts its own in the place of these parts.
With one replica everything stays as Keras has it.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from graddrop_tf import replicas


def train_on_replicas(
    model: keras.Model, before_training: Callable[[], None] | None = None
) -> keras.Model:
    """Makes `fit` and `evaluate` of a Keras model correct on all replicas.

    A `gd.MultiLossModel` has it already. For another model call it once,
    before `fit`; it also attends to the optimizer of `compile`.

    Args:
        model: A Keras model made in the scope of its strategy.
        before_training: Called by `fit` once the model is built, where
            variables may still be created.

    Returns:
        The same model.

    Raises:
        ValueError: From `fit`, where XLA is asked for on several replicas.

    Example:
        >>> with tf.distribute.MultiWorkerMirroredStrategy().scope():
        ...     model = gd.train_on_replicas(keras.Model(inputs, outputs))
        ...     model.compile("adam", loss="mse")
        >>> model.fit(x, y)
    """
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return model

    def make_train_function(force=False):
        if model.train_function is None or force:
            _refuse_xla(model)
            synchronize_optimizer(model.optimizer)
            if before_training is not None:
                before_training()
            build_optimizer(model)
            model.train_function = _execution(model, model.train_step)
        return model.train_function

    def make_test_function(force=False):
        if model.test_function is None or force:
            _refuse_xla(model)
            model.test_function = _execution(model, model.test_step)
        return model.test_function

    # Not tracked as parts of the model.
    object.__setattr__(model, "_maybe_symbolic_build", _builder(model))
    object.__setattr__(model, "make_train_function", make_train_function)
    object.__setattr__(model, "make_test_function", make_test_function)
    return model


def build_optimizer(model: keras.Model) -> None:
    """Creates the optimizer's variables, unless the model has none yet.

    Keras creates them in the graph of the first step, and `tf.function` traces
    a step that creates variables a second time.

    Args:
        model: A compiled model.
    """
    if model.built and not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def _builder(model: keras.Model):
    """Returns a symbolic build that does not look at the data.

    A second pass over them might shuffle in another way.
    """

    def build(iterator=None, data_batch=None):
        if iterator is not None:
            data_batch = keras.tree.map_structure(
                _spec_of_one, iterator._distributed_dataset.element_spec
            )
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=data_batch)

    return build


def _spec_of_one(spec) -> tf.TensorSpec | None:
    """Returns what a replica gets; None for a part that is not there."""
    specs = getattr(spec, "_value_specs", [spec])
    return specs[0] if hasattr(specs[0], "shape") else None


def _refuse_xla(model: keras.Model) -> None:
    if model.jit_compile:
        raise ValueError(
            "`jit_compile=True` works with one replica only: leave it at "
            "'auto' under a strategy of "
            f"{model.distribute_strategy.num_replicas_in_sync} replicas."
        )


def _execution(model: keras.Model, step):
    """Makes what `fit` calls: some steps, unrolled, then the mean logs."""
    strategy = model.distribute_strategy
    step = model._autoconvert_optionals(step)
    like = {}

    def flat_step(data):
        logs = step(data)
        like["logs"] = logs
        # One reduction for all logs.
        return tf.concat(
            [
                tf.reshape(tf.cast(value, tf.float32), [-1])
                for value in keras.tree.flatten(logs)
            ],
            axis=0,
        )

    def run(batches):
        for data in batches:
            flat = strategy.run(flat_step, args=(data,))
        # All workers have to see the same, a NaN for example.
        flat = strategy.reduce("MEAN", flat, axis=None)
        shapes = [value.shape for value in keras.tree.flatten(like["logs"])]
        parts = tf.split(flat, [shape.num_elements() for shape in shapes])
        parts = [tf.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]
        return keras.tree.pack_sequence_as(like["logs"], parts)

    functions = {}

    def execute(iterator):
        batches = _take(iterator, model.steps_per_execution)
        if model.run_eagerly:
            return run(batches)
        # The last batch of an epoch may be smaller, its shape is the same.
        spec = getattr(iterator, "element_spec", None)
        key = len(batches), repr(spec)
        if key not in functions:
            functions[key] = tf.function(
                run,
                input_signature=spec and [(spec,) * len(batches)],
                autograph=False,
            )
        return functions[key](batches)

    return execute


def _take(iterator, count: int) -> tuple:
    """Returns up to `count` batches, fewer at the end of the data."""
    batches = []
    for _ in range(count):
        try:
            batches.append(next(iterator))
        except (StopIteration, tf.errors.OutOfRangeError):
            if not batches:
                raise StopIteration from None
            break
    return tuple(batches)


def synchronize_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer decide for all replicas together.

    A `LossScaleOptimizer` skips a step on all replicas where one of them has
    a gradient that is not finite (a float is summed in each step), and
    accumulated gradients are summed over replicas once for each update.

    Args:
        optimizer: A Keras optimizer; a `LossScaleOptimizer` is looked into.

    Raises:
        ValueError: Where it accumulates and keeps moving averages.

    Example:
        >>> optimizer = keras.optimizers.Adam(gradient_accumulation_steps=4)
        >>> gd.synchronize_optimizer(optimizer)
    """
    while hasattr(optimizer, "inner_optimizer"):
        object.__setattr__(optimizer, "check_finite", _check_finite)
        optimizer = optimizer.inner_optimizer
    if optimizer.gradient_accumulation_steps:
        if optimizer.use_ema:
            raise ValueError(
                "Moving averages of accumulated steps work with one replica "
                "only. Received: use_ema=True, gradient_accumulation_steps="
                f"{optimizer.gradient_accumulation_steps}; leave out one."
            )
        object.__setattr__(
            optimizer,
            "_backend_apply_gradients",
            lambda grads, variables: _accumulate(optimizer, grads, variables),
        )


def _check_finite(grads) -> tf.Tensor:
    """Whether the gradients of all replicas are finite."""
    finite = [
        tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(gradient)))
        for gradient in grads
        if gradient is not None
    ]
    bad = 1.0 - tf.cast(tf.reduce_all(finite), tf.float32)
    return tf.equal(replicas.sum_over_replicas(bad), 0.0)


def _accumulate(optimizer, grads, variables) -> None:
    """Adds gradients up on each replica; every few steps, updates by them."""
    steps = optimizer.gradient_accumulation_steps
    sums = [
        optimizer._accumulated_gradients[optimizer._get_variable_index(v)]
        for v in variables
    ]

    def update(grads):
        means = [(g + s) / steps for g, s in zip(grads, sums, strict=True)]
        optimizer._apply_weight_decay(variables)
        optimizer._backend_update_step(
            optimizer._clip_gradients(means), variables, optimizer.learning_rate
        )

    def add(grads):
        optimizer._backend_increment_gradient_accumulators(grads, sums)

    # Replicas cannot communicate inside a conditional.
    def on_all_replicas(strategy, grads):
        def finish():
            strategy.extended.call_for_each_replica(update, args=(grads,))
            optimizer._backend_reset_gradient_accumulators()

        tf.cond(
            tf.equal((optimizer._iterations + 1) % steps, 0),
            finish,
            lambda: strategy.extended.call_for_each_replica(add, args=(grads,)),
        )

    tf.distribute.get_replica_context().merge_call(
        on_all_replicas, args=(list(grads),)
    )
