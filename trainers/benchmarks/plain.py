"""The same network without this library: in Keras and in plain TensorFlow."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from trainers.benchmarks import measuring, methods

KERAS = "plain Keras"
TENSORFLOW = "GradDrop in plain TensorFlow"


def keras_step(trunk: keras.Model, heads: keras.Model) -> measuring.Step:
    """Makes a step of `keras.Model.fit` on random images.

    Args:
        trunk: The trunk.
        heads: The heads.

    Returns:
        The step.
    """
    model = keras.Model(trunk.inputs, heads(trunk.output))
    model.compile(
        keras.optimizers.Adam(1e-3), loss=methods.loss(), jit_compile=False
    )
    return measuring.training_step(model, *methods.random_batch(trunk, heads))


def tensorflow_step(trunk: keras.Model, heads: keras.Model) -> measuring.Step:
    """Makes a GradDrop step of a loop written for this network alone.

    What a general library may cost over it is seen against this step: it has
    no options, and computes the gradients of all losses by
    `tf.GradientTape.jacobian`.

    Args:
        trunk: The trunk.
        heads: The heads.

    Returns:
        The step.
    """
    x, y = map(tf.constant, methods.random_batch(trunk, heads))
    of_trunk, of_heads = trunk.trainable_variables, heads.trainable_variables
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build([*of_trunk, *of_heads])

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as trunk_tape:
            activations = trunk(x, training=True)
        shared_tape = tf.GradientTape(watch_accessed_variables=False)
        with tf.GradientTape() as heads_tape, shared_tape:
            shared_tape.watch(activations)
            logits = heads(activations, training=True)
            values = tf.nn.sigmoid_cross_entropy_with_logits(y, logits)
            losses = tf.reduce_mean(values, axis=0)
            total = tf.reduce_sum(losses)
        heads_gradients = heads_tape.gradient(total, _values(of_heads))
        jacobian = shared_tape.jacobian(losses, activations)
        combined = graddrop(jacobian, activations)
        trunk_gradients = trunk_tape.gradient(
            activations, _values(of_trunk), output_gradients=combined
        )
        pairs = zip(
            [*trunk_gradients, *heads_gradients],
            [*of_trunk, *of_heads],
            strict=True,
        )
        optimizer.apply_gradients(pairs)
        return total

    return step


def graddrop(jacobian: tf.Tensor, activations: tf.Tensor) -> tf.Tensor:
    """Computes Algorithm 1 of Chen et al., NeurIPS 2020, with f(p) = p.

    Args:
        jacobian: `[T, batch, ...]`, dL_i/dA.
        activations: A, `[batch, ...]`.

    Returns:
        What the trunk receives, `[batch, ...]`.
    """
    signed = tf.reduce_sum(tf.sign(activations) * jacobian, axis=1)
    size = tf.reduce_sum(tf.abs(signed), axis=0)
    agreement = tf.math.divide_no_nan(tf.reduce_sum(signed, axis=0), size)
    drawn = tf.random.uniform(tf.shape(size))
    positive = (1.0 + agreement) / 2.0 > drawn
    kept = tf.where(positive, signed > 0, signed < 0)
    masked = tf.where(kept[:, None], jacobian, 0.0)
    return tf.reduce_sum(masked, axis=0)


def _values(variables: Sequence[keras.Variable]) -> list[tf.Variable]:
    return [variable.value for variable in variables]
