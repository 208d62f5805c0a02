"""Batch normalization with separate statistics for each data set.

If one network learns from several data sets at once, its layers see a mixed
batch in which the examples of each set, its *domain*, are contiguous.
`DomainConcatenation` makes that batch, convolutions and dense layers use it
unchanged, `DomainBatchNormalization` normalizes each domain separately, and
`DomainSplit` splits it into the domains again.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import replicas


@keras.saving.register_keras_serializable("trainers")
class DomainConcatenation(keras.layers.Layer):
    """Concatenates the batches of D domains.

    Input shape:
        A list of D tensors `[batch_d, ...]` that differ only in the batch;
        batches may be empty.

    Output shape:
        The mixed batch `[sum of batch_d, ...]`, and the domains' sizes in
        it, `int32` of shape `[D]`.

    Raises:
        ValueError: If the domains' examples differ in shape.

    Example:
        >>> mixed, sizes = DomainConcatenation()([source, target])
    """

    def call(self, inputs: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Concatenates."""
        # XLA needs static sizes.
        sizes = [x.shape[0] or tf.shape(x)[0] for x in inputs]
        return tf.concat(list(inputs), axis=0), tf.stack(sizes)

    def compute_output_spec(
        self, inputs: Sequence[keras.KerasTensor]
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Returns the specification of the mixed batch and of the sizes."""
        examples = [tuple(x.shape[1:]) for x in inputs]
        if len(set(examples)) > 1:
            raise ValueError(
                "The domains of a mixed batch must have examples of one "
                f"shape. Received: {', '.join(map(str, examples))}."
            )
        sizes = [x.shape[0] for x in inputs]
        total = None if None in sizes else sum(sizes)
        return (
            keras.KerasTensor((total, *examples[0]), self.compute_dtype),
            keras.KerasTensor((len(inputs),), "int32"),
        )


@keras.saving.register_keras_serializable("trainers")
class DomainSplit(keras.layers.Layer):
    """Splits a mixed batch; the inverse of `DomainConcatenation`.

    Args:
        num_domains: D.
        **kwargs: `name`, `dtype`.

    Input shape:
        The mixed batch `[batch, ...]`, and the domains' sizes in it, `int32`
        of shape `[D]`.

    Output shape:
        A list of D tensors `[batch_d, ...]`.

    Example:
        >>> source, target = DomainSplit(num_domains=2)(mixed, sizes)
    """

    def __init__(self, num_domains: int, **kwargs):
        super().__init__(**kwargs)
        self.num_domains = num_domains

    def call(self, inputs: tf.Tensor, sizes: tf.Tensor) -> list[tf.Tensor]:
        """Splits."""
        return tf.split(inputs, sizes, num=self.num_domains)

    def compute_output_spec(
        self, inputs: keras.KerasTensor, sizes: keras.KerasTensor
    ) -> list[keras.KerasTensor]:
        """Returns the specification of each domain."""
        return [
            keras.KerasTensor((None, *inputs.shape[1:]), self.compute_dtype)
            for _ in range(self.num_domains)
        ]

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "num_domains": self.num_domains}


@keras.saving.register_keras_serializable("trainers")
class DomainBatchNormalization(keras.layers.Layer):
    """Normalizes each domain of a mixed batch separately.

    It equals one `keras.layers.BatchNormalization` per domain: mean and
    variance over the domain's examples and positions in training, their
    moving averages at inference, then scale and offset. A domain without
    examples in a batch keeps its moving averages.

    Reference: Ioffe and Szegedy, ICML 2015, Algorithm 1, for each domain as
    in Chen et al., "Just Pick a Sign", NeurIPS 2020, section 4.3.

    Args:
        num_domains: D.
        momentum: Momentum of the moving averages, in [0, 1].
        epsilon: Added to variances; at least 1.001e-5, as cuDNN requires.
        synchronized: Whether mean and variance are those of the domain in
            the global batch of all replicas.
        **kwargs: `name`, `dtype`.

    Input shape:
        The mixed batch `[batch, height, width, channels]`, and the domains'
        sizes in it, `int32` of shape `[D]`, as `DomainConcatenation` returns
        them.

    Output shape:
        That of the mixed batch.

    Example:
        >>> mixed, sizes = DomainConcatenation()([source, target])
        >>> mixed = keras.layers.Conv2D(24, 3)(mixed)
        >>> mixed = DomainBatchNormalization(num_domains=2)(mixed, sizes)
    """

    def __init__(
        self,
        num_domains: int,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        synchronized: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_domains = num_domains
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

    def build(self, inputs_shape, sizes_shape):
        """Creates a row for each domain in every variable."""

        def add(name: str, initializer: str, trainable: bool):
            return self.add_weight(
                shape=(self.num_domains, inputs_shape[-1]),
                initializer=initializer,
                trainable=trainable,
                # Statistics are float32 in half precision too.
                autocast=False,
                name=name,
            )

        self.gamma = add("gamma", "ones", True)
        self.beta = add("beta", "zeros", True)
        self.moving_mean = add("moving_mean", "zeros", False)
        self.moving_variance = add("moving_variance", "ones", False)

    def call(
        self, inputs: tf.Tensor, sizes: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Normalizes."""
        parts = tf.split(inputs, sizes, num=self.num_domains)
        if not (training and self.trainable):
            outputs = self._by_averages(parts)
        elif self.synchronized and replicas.num_replicas() > 1:
            outputs = self._by_global_batch(parts)
        else:
            outputs = self._by_batch(parts)
        return tf.ensure_shape(tf.concat(outputs, axis=0), inputs.shape)

    def _by_averages(self, parts):
        averages = _rows(self.moving_mean, self.moving_variance)
        return [
            self._kernel(*domain, is_training=False).y
            for domain in zip(*self._domains(parts), *averages, strict=True)
        ]

    def _by_batch(self, parts):
        results = [
            self._kernel(*domain, [], [], is_training=True)
            for domain in zip(*self._domains(parts), strict=True)
        ]
        counts = _counts(parts)
        # The kernel divides by n - 1.
        biased = tf.maximum(counts - 1.0, 0.0) / counts
        self._update(
            counts,
            tf.stack([result.batch_mean for result in results]),
            tf.stack([result.batch_variance for result in results]) * biased,
        )
        return [result.y for result in results]

    def _by_global_batch(self, parts):
        x = [tf.cast(part, tf.float32) for part in parts]
        counts, totals = replicas.sum_over_replicas(
            (_counts(x), _channel_sums(x))
        )
        mean = tf.math.divide_no_nan(totals, counts)
        # The difference of two large means would be all rounding error.
        x = [part - row for part, row in zip(x, tf.unstack(mean), strict=True)]
        squares = replicas.sum_over_replicas(
            _channel_sums([tf.square(part) for part in x])
        )
        variance = tf.math.divide_no_nan(squares, counts)
        self._update(counts, mean, variance)
        factors = tf.unstack(tf.math.rsqrt(variance + self.epsilon))
        return [
            tf.cast(part * (factor * scale) + offset, self.compute_dtype)
            for part, scale, offset, factor in zip(
                *self._domains(x), factors, strict=True
            )
        ]

    def _domains(self, parts):
        """Returns examples, scale and offset of each domain."""
        return parts, *_rows(self.gamma, self.beta)

    def _kernel(self, x, scale, offset, mean, variance, is_training):
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=is_training,
        )

    def _update(self, counts, mean, variance) -> None:
        """Updates the averages of the domains that have examples."""
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            step = (1.0 - self.momentum) * (value - moving.value)
            moving.assign_add(tf.where(counts > 0, step, 0.0))

    def compute_output_shape(self, inputs_shape, sizes_shape):
        """Returns the shape of the mixed batch."""
        return inputs_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_domains": self.num_domains,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }


def _rows(*variables: keras.Variable) -> list[list[tf.Tensor]]:
    return [tf.unstack(variable.value) for variable in variables]


def _counts(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Counts the positions of each domain: `[D, 1]`, `float32`."""
    sizes = [[tf.size(part) // part.shape[-1]] for part in parts]
    return tf.cast(sizes, tf.float32)


def _channel_sums(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Sums over examples and positions: `[D, channels]`."""
    return tf.stack([tf.reduce_sum(part, axis=[0, 1, 2]) for part in parts])
