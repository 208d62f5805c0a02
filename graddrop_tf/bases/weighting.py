"""The shape that all weighting methods share: losses, norms -> weights."""

from __future__ import annotations

import abc

import tensorflow as tf

from graddrop_tf.bases.configuration import Configurable
from graddrop_tf.bases.state import State, Stateful


class Weighting(Configurable, Stateful):
    """Base class of the methods that weight losses.

    The mathematics is in three functions of a state; the layer keeps that
    state in variables, which are saved with the model.

    A class attribute `search_space` declares ranges, as in `gd.Combiner`.

    Args:
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If the number of losses changes.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class ByNorm(gd.Weighting):
        ...     def initial_state(self, num_losses):
        ...         return {"weights": tf.ones([num_losses])}
        ...     def weights_of(self, state):
        ...         return state["weights"]
        ...     def next_state(self, state, losses, norms):
        ...         return {"weights": tf.reduce_mean(norms) / norms}
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.num_losses: int | None = None

    @abc.abstractmethod
    def initial_state(self, num_losses: int) -> State:
        """Returns the state before the first step, a dict of tensors."""

    @abc.abstractmethod
    def weights_of(self, state: State) -> tf.Tensor:
        """Returns the weights of a state, `float32` of shape `[T]`."""

    @abc.abstractmethod
    def next_state(
        self, state: State, losses: tf.Tensor, norms: tf.Tensor
    ) -> State:
        """Returns the state after a step.

        Args:
            state: The state before.
            losses: `[T]`, unweighted, of the global batch.
            norms: `[T]`, the L2 norms of the unweighted losses' gradients
                with respect to the activations, of the global batch.

        Returns:
            A state with the same keys, shapes and dtypes.
        """

    def build(self, num_losses: int) -> None:
        """Creates the variables for T losses.

        Raises:
            ValueError: If variables exist for another number of losses.
        """
        if self.num_losses not in (None, num_losses):
            raise ValueError(
                f"{type(self).__name__} has weights for "
                f"{self.num_losses} losses. Received: {num_losses}."
            )
        self.num_losses = num_losses
        self.make_state(num_losses)
        self.built = True

    def current_weights(self) -> tf.Tensor:
        """Returns the weights to use in this step, `[T]`."""
        return self.weights_of(self.state)

    def update(self, losses: tf.Tensor, norms: tf.Tensor) -> None:
        """Advances the variables by a step, unless it is not finite."""
        self.keep(**self.next_state(self.state, losses, norms))

    def get_build_config(self):
        """Returns the number of losses, to rebuild the variables."""
        return {"num_losses": self.num_losses}

    def build_from_config(self, config):
        """Rebuilds the variables of a saved model."""
        if config.get("num_losses") is not None:
            self.build(config["num_losses"])
