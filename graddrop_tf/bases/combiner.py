"""The shape that all combining methods share: T gradients in, T out."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import linalg, random, replicas
from graddrop_tf.bases.configuration import Configurable, check_count


class Streaming(abc.ABC):
    """A combination accumulated loss by loss: start, add chunks, finish.

    The start is the constructor, called by `Combiner.streaming`.
    """

    @abc.abstractmethod
    def add(
        self, indices: Sequence[int], gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """Adds the gradients of some losses.

        Args:
            indices: Which losses they are, in ascending order.
            gradients: Their gradients.

        Returns:
            The accumulators, which the next chunk has to wait for.
        """

    @abc.abstractmethod
    def finish(self) -> tf.Tensor:
        """Returns the sum of all combined gradients."""


class Combiner(Configurable, keras.layers.Layer):
    """Base class of the methods that rewrite per-loss gradients.

    A combiner is the identity going forward and rewrites the gradients of
    the losses going backward. As a layer it gives every loss its own branch
    of the activations; terms computed after a branch (a penalty on it, a
    regulariser with `add_loss`) are part of that branch's gradient.
    In a `MultiLossModel` it comes with the model's recipe.

    A method implements `combine` alone. `replica_sum` and `uniform` are there
    for it.

    Args:
        num_losses: T. Needed where the losses share one tensor and the layer
            is called in a model.
        sync_replicas: Whether what is computed over the batch is computed
            over the global batch of all replicas.
        seed: Integer seed of random draws; drawn where it is None.
        **kwargs: `name`, `dtype`.

    Input shape:
        `[batch, ...]`, or a list of T such tensors where the losses are
        batch separated.

    Output shape:
        A list of T tensors.

    Raises:
        ValueError: Where the number of losses is unknown or does not match.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class Halve(gd.Combiner):
        ...     def combine(self, gradients, activations):
        ...         return [0.5 * g for g in gradients]
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        sync_replicas: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_losses is not None:
            check_count("num_losses", num_losses)
        if seed is not None and (
            isinstance(seed, bool)
            or not isinstance(seed, int)
            or not 0 <= seed < 2**31
        ):
            raise ValueError(
                "`seed` must be an integer from 0 to 2**31 - 1. Received: "
                f"seed={seed!r}."
            )
        self.num_losses = num_losses
        self.sync_replicas = bool(sync_replicas)
        self.seed = random.new_seed() if seed is None else seed
        self.loss_names: tuple[str, ...] | None = None
        self.supports_masking = True

    @abc.abstractmethod
    def combine(
        self, gradients: list[tf.Tensor], activations
    ) -> list[tf.Tensor]:
        """Rewrites per-loss gradients.

        Args:
            gradients: T tensors, dL_i/dA (batch separated: dL_i/dA_i).
            activations: A; a list of T tensors where batch separated.

        Returns:
            T tensors of the same shapes and dtypes. Where the activations
            are shared, their sum is the gradient that the trunk receives.
        """

    def combine_to_sum(
        self, gradients: list[tf.Tensor], activations: tf.Tensor
    ) -> tf.Tensor:
        """Combines gradients of shared activations and sums the result.

        A method that gets the sum cheaper than its T parts may say how.

        Args:
            gradients: T tensors.
            activations: A.

        Returns:
            The sum of what `combine` returns.
        """
        return tf.add_n(self._checked(gradients, activations))

    @property
    def can_stream(self) -> bool:
        """Whether the method has a streaming form."""
        return False

    def streaming(self, num_losses: int, activations) -> Streaming:
        """Starts the streaming form of this method, where it has one.

        Args:
            num_losses: T.
            activations: A.

        Returns:
            A `Streaming`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs all gradients at once."
        )

    def replica_sum(self, value: tf.Tensor) -> tf.Tensor:
        """Sums a tensor over replicas, if they are to be synchronized."""
        if not self.sync_replicas:
            return value
        return replicas.sum_over_replicas(value)

    def uniform(self, shape, per_example: bool = False) -> tf.Tensor:
        """Draws from (0, 1), the same on all replicas at the same step.

        Args:
            shape: Shape of the draw.
            per_example: Whether the first axis is the batch: then each
                replica gets its slice of the global batch's draw.

        Returns:
            A `float32` tensor.
        """
        lane = None
        if per_example and replicas.num_replicas() > 1:
            lane = (replicas.replica_index(), replicas.num_replicas())
        return random.uniform(shape, self.seed, lane)

    def set_losses(
        self, num_losses: int, names: Sequence[str] | None = None
    ) -> None:
        """Tells the method its losses, before the first step.

        Raises:
            ValueError: Where the number is not the one it was made for.
        """
        if self.num_losses not in (None, num_losses):
            raise ValueError(
                f"{type(self).__name__} was made for num_losses="
                f"{self.num_losses}. Received: {num_losses} losses."
            )
        self.loss_names = None if names is None else tuple(names)

    def build(self, input_shape=None):
        """Creates the counter from which draws of each step are derived."""
        self.step = self.add_weight(
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            name="step",
            aggregation="only_first_replica",
        )
        self.built = True

    def next_step(self) -> tf.Tensor:
        """Returns the number of this step and counts it."""
        step = tf.identity(self.step.value)
        self.step.assign_add(1)
        return step

    def call(self, inputs, training=False):
        """Gives each loss its branch of the activations."""
        num_losses = self._count(inputs)
        separate = linalg.is_separate(inputs)
        if not training:
            return list(inputs) if separate else [inputs] * num_losses
        step = self.next_step()

        @tf.custom_gradient
        def shared(activations):
            def grad(*gradients):
                with random.drawing(step):
                    return self.combine_to_sum(list(gradients), activations)

            return [tf.identity(activations)] * num_losses, grad

        @tf.custom_gradient
        def separated(*activations):
            def grad(*gradients):
                with random.drawing(step):
                    return self._checked(gradients, list(activations))

            return [tf.identity(a) for a in activations], grad

        return list(separated(*inputs) if separate else shared(inputs))

    def _checked(self, gradients, activations) -> list[tf.Tensor]:
        combined = self.combine(list(gradients), activations)
        if not isinstance(combined, (list, tuple)) or len(combined) != len(
            gradients
        ):
            raise ValueError(
                f"`{type(self).__name__}.combine` must return one gradient "
                f"for each of {len(gradients)} losses. Received: {combined}."
            )
        linalg.check_shapes(combined, activations)
        return list(combined)

    def _count(self, inputs) -> int:
        if linalg.is_separate(inputs):
            self.set_losses(len(inputs), self.loss_names)
            return len(inputs)
        if self.num_losses is None:
            raise ValueError(
                f"{type(self).__name__} needs `num_losses` where the losses "
                "share one tensor. Received: num_losses=None and a tensor of "
                f"shape {inputs.shape}."
            )
        self.set_losses(self.num_losses, self.loss_names)
        return self.num_losses

    def compute_output_spec(self, inputs, training=False):
        """Returns the specification of every branch."""
        num_losses = self._count(inputs)
        tensors = list(inputs) if linalg.is_separate(inputs) else [inputs]
        if any(not t.shape for t in tensors):
            raise ValueError(
                f"{type(self).__name__} needs a batch axis. Received: a "
                "tensor of rank 0."
            )
        if len({tuple(t.shape[1:]) for t in tensors}) > 1:
            raise ValueError(
                "Batch-separated activations may differ in their batch size "
                f"only. Received shapes {[tuple(t.shape) for t in tensors]}."
            )
        specs = [
            keras.KerasTensor(t.shape, self.compute_dtype) for t in tensors
        ]
        if linalg.is_separate(inputs):
            return specs
        return [
            keras.KerasTensor(specs[0].shape, self.compute_dtype)
            for _ in range(num_losses)
        ]

    def compute_mask(self, inputs, previous_mask=None):
        """Passes a mask on to every branch."""
        if linalg.is_separate(inputs):
            return previous_mask
        return [previous_mask] * self._count(inputs)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "num_losses": self.num_losses,
            "sync_replicas": self.sync_replicas,
            "seed": self.seed,
        }


class _StreamingSum(Streaming):
    """The plain sum."""

    def __init__(self):
        self._total = None

    def add(self, indices, gradients):
        if self._total is not None:
            gradients = [self._total, *gradients]
        self._total = tf.add_n(gradients)
        return [self._total]

    def finish(self):
        return self._total


@keras.saving.register_keras_serializable("graddrop_tf")
class Chain(Combiner):
    """Several combiners in one place, in order.

    Args:
        combiners: Combiners; none of them: the plain sum.
        num_losses: T, as in `Combiner`.
        **kwargs: `name`, `dtype`.

    Example:
        >>> layer = gd.Chain([gd.MGDA(), gd.GradDrop()], num_losses=2)
    """

    def __init__(
        self,
        combiners: Sequence[Combiner],
        num_losses: int | None = None,
        **kwargs,
    ):
        # A chain draws nothing itself.
        super().__init__(num_losses, seed=0, **kwargs)
        for combiner in combiners:
            if not isinstance(combiner, Combiner):
                raise ValueError(
                    "A chain is made of combiners. Received: "
                    f"{combiner!r} of type {type(combiner).__name__}."
                )
        self.combiners = list(combiners)
        if num_losses is not None:
            self.set_losses(num_losses)

    def set_losses(self, num_losses, names=None):
        """See base class."""
        super().set_losses(num_losses, names)
        for combiner in self.combiners:
            combiner.set_losses(num_losses, names)

    def build(self, input_shape=None):
        """Creates the chain's counter, which serves its combiners too."""
        super().build(input_shape)
        for combiner in self.combiners:
            combiner.built = True

    def combine(self, gradients, activations):
        """See base class."""
        for combiner in self.combiners:
            gradients = combiner._checked(gradients, activations)
        return gradients

    def combine_to_sum(self, gradients, activations):
        """See base class."""
        if not self.combiners:
            return tf.add_n(gradients)
        for combiner in self.combiners[:-1]:
            gradients = combiner._checked(gradients, activations)
        return self.combiners[-1].combine_to_sum(gradients, activations)

    @property
    def can_stream(self):
        """See base class; what precedes the last method would need all."""
        return len(self.combiners) < 2 and all(
            combiner.can_stream for combiner in self.combiners
        )

    def streaming(self, num_losses, activations):
        """See base class."""
        if not self.combiners:
            return _StreamingSum()
        return self.combiners[0].streaming(num_losses, activations)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["seed"], config["sync_replicas"]
        serialize = keras.saving.serialize_keras_object
        return {**config, "combiners": [serialize(c) for c in self.combiners]}

    @classmethod
    def from_config(cls, config):
        """Rebuilds the chain from `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        combiners = [deserialize(c) for c in config["combiners"]]
        return cls(**{**config, "combiners": combiners})
