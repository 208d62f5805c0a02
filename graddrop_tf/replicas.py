"""The one module that knows of replicas.

Its meaning in a sentence: sign purity, inner products, norms and losses are
those of the *global* batch, the one that all replicas share.

Everything here is the identity (and adds no operation) outside of
`tf.distribute`, with one replica, and in a cross-replica context.
"""

from __future__ import annotations

import tensorflow as tf


def num_replicas() -> int:
    """Returns the number of replicas that run this step together."""
    if tf.distribute.get_replica_context() is None:
        return 1
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_index() -> tf.Tensor | int:
    """Returns the index of this replica among `num_replicas()`."""
    if num_replicas() == 1:
        return 0
    return tf.distribute.get_replica_context().replica_id_in_sync_group


def sum_over_replicas(value):
    """Sums a tensor, or a structure of tensors, over all replicas.

    Every replica has to call this in the same order and outside of
    `tf.cond` and `tf.while_loop`.

    Args:
        value: A tensor or a nested structure of tensors.

    Returns:
        The same structure, equal on every replica.
    """
    if num_replicas() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def identity(value):
    """Returns `value`: a sum over this replica alone."""
    return value


def scale_loss(loss: tf.Tensor) -> tf.Tensor:
    """Divides a local mean by the replicas, so that the sum is the mean.

    Keras' optimizers sum gradients over replicas; Keras' own losses are
    divided already.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss / tf.cast(replicas, loss.dtype)


def unscale_loss(loss: tf.Tensor) -> tf.Tensor:
    """Undoes `scale_loss`, for what is shown to the user."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return loss if replicas == 1 else loss * tf.cast(replicas, loss.dtype)
