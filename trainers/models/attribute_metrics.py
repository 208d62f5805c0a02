"""Metrics of binary attributes, accumulated over batches and replicas.

Their state consists of counts, which Keras can sum over replicas.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

_LARGEST_LOGIT = 10.0


class ErrorRate(keras.metrics.Metric):
    """Share of wrong predictions at logit 0, averaged over the attributes.

    Unlike Keras' `BinaryAccuracy` it counts each attribute by itself.

    Args:
        num_attributes: T.
        name: Name of the metric.

    Input:
        Labels `[batch, T]`: 0, 1, or less than 0 for one that does not count;
        logits `[batch, T]`; weights None, `[batch]` or `[batch, T]`.
    """

    def __init__(self, num_attributes: int, name: str = "error_rate"):
        super().__init__(name=name)
        self._wrong, self._seen = (
            self.add_variable((num_attributes,), "zeros", name=name)
            for name in ("wrong", "seen")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch."""
        wrong = tf.not_equal(y_true > 0.5, y_pred > 0)
        weight = _weight(sample_weight, y_true)
        self._wrong.assign_add(
            tf.reduce_sum(weight * tf.cast(wrong, weight.dtype), axis=0)
        )
        self._seen.assign_add(tf.reduce_sum(weight, axis=0))

    def per_attribute(self) -> tf.Tensor:
        """Returns the error rate of each attribute, `[T]`; 0 before data."""
        return tf.math.divide_no_nan(
            tf.convert_to_tensor(self._wrong), tf.convert_to_tensor(self._seen)
        )

    def result(self):
        """Returns the mean of `per_attribute`."""
        return tf.reduce_mean(self.per_attribute())


class MaxF1(keras.metrics.Metric):
    """Best F1 over decision thresholds, averaged over the attributes.

    Each attribute uses the best of `num_thresholds` thresholds. They are
    evenly spaced over logits from -10 to 10, which covers rare attributes with
    low probabilities. F1 is 0 if an attribute is neither present nor
    predicted.

    Args:
        num_attributes: T.
        num_thresholds: Number of thresholds.
        name: Name of the metric.

    Input:
        As for `ErrorRate`.
    """

    def __init__(
        self,
        num_attributes: int,
        num_thresholds: int = 1001,
        name: str = "max_f1",
    ):
        super().__init__(name=name)
        self.thresholds = np.linspace(
            -_LARGEST_LOGIT, _LARGEST_LOGIT, num_thresholds, dtype=np.float32
        )
        # Number of logits between two thresholds, for labels 0 and 1.
        self._shape = (2, num_thresholds + 1, num_attributes)
        self._counts = self.add_variable(self._shape, "zeros", name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch."""
        positive = y_true > 0.5
        weight = _weight(sample_weight, y_true)
        num_classes, num_buckets, num_attributes = self._shape
        logits = tf.cast(y_pred, tf.float32)
        bucket = tf.searchsorted(
            self.thresholds, tf.reshape(logits, [-1]), side="right"
        )
        segment = (
            tf.cast(tf.reshape(positive, [-1]), tf.int32) * num_buckets + bucket
        ) * num_attributes
        segment += tf.reshape(
            tf.range(num_attributes) + tf.zeros_like(logits, tf.int32), [-1]
        )
        counts = tf.math.unsorted_segment_sum(
            tf.reshape(weight, [-1]),
            segment,
            num_classes * num_buckets * num_attributes,
        )
        self._counts.assign_add(tf.reshape(counts, self._shape))

    def per_attribute(self) -> tf.Tensor:
        """Returns the best F1 of each attribute, `[T]`; 0 before data."""
        counts = tf.convert_to_tensor(self._counts)
        # All logits above a threshold are predicted to be positive.
        predicted = tf.cumsum(counts, axis=1, exclusive=True, reverse=True)
        false_positive, true_positive = tf.unstack(predicted[:, :-1])
        num_positive = tf.reduce_sum(counts[1], axis=0)
        f1 = tf.math.divide_no_nan(
            2.0 * true_positive, true_positive + false_positive + num_positive
        )
        return tf.reduce_max(f1, axis=0)

    def result(self):
        """Returns the mean of `per_attribute`."""
        return tf.reduce_mean(self.per_attribute())


def _weight(
    sample_weight: tf.Tensor | Sequence[float] | None, labels: tf.Tensor
) -> tf.Tensor:
    """Broadcasts the weights to `[batch, T]`; 0 for a missing label."""
    known = tf.cast(labels >= 0, tf.float32)
    if sample_weight is None:
        return known
    weight = tf.cast(sample_weight, tf.float32)
    if weight.shape.rank == 1:
        weight = weight[:, None]
    return weight * known
