"""The shape that all combining methods share: T gradients in, T out."""

from __future__ import annotations

import abc

import keras
import tensorflow as tf

from graddrop_tf import replicas
from graddrop_tf.bases.branching import Branching
from graddrop_tf.bases.draws import RandomDraws
from graddrop_tf.bases.streaming import Streaming
from graddrop_tf.places import Place, Structure


class Combiner(Branching):
    """Base class of the methods that rewrite per-loss gradients.

    A combiner is the identity going forward and rewrites the gradients of
    the losses going backward. As a layer it gives every loss its own branch
    of the activations; terms computed after a branch (a penalty on it, a
    regulariser with `add_loss`) are part of that branch's gradient.
    In a `MultiLossModel` it comes with the model's recipe.

    A method implements `combine` alone; `replica_sum` sums over replicas.
    Where the losses share several tensors, `combine` is called for each.
    A method that draws derives from `RandomCombiner`, one that acts on all
    tensors at once from `JointCombiner`, one that needs nothing but inner
    products of the gradients from `GramianCombiner`. A method that remembers
    names its state in `initial_state`, reads it from `state`, and replaces it
    by `keep`; under a loss scale its gradients are scaled.

    `search_space`, a class attribute, maps each argument worth tuning to the
    text of its range, such as `{"k": "uniform(0.0, 2.0)"}`; it is empty by
    default. `launch.tune` reads it.

    Args:
        num_losses: T. Needed where the losses share one tensor and the layer
            is called in a model.
        sync_replicas: Whether quantities of the batch are those of the global
            batch of all replicas.
        separate: Whether the inputs of the layer are a list with the
            activations of each loss, batch separated, and no structure that
            the losses share; None: whether they are a list.
        **kwargs: `name`, `dtype`.

    Attributes:
        nested: Whether the layer acts inside of a chain, which counts the
            steps.

    Call arguments:
        inputs: The activations.
        training: Whether gradients are rewritten. Without training the layer
            returns its inputs and adds no operation. It warns where a model
            is trained whose `call` takes no `training`.

    Input shape:
        `[batch, ...]`, or a structure of such tensors; a list of T of them
        where the losses are batch separated.

    Output shape:
        A list of T tensors or structures; the one itself where one loss shares
        them with no other.

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
        separate: bool | None = None,
        **kwargs,
    ):
        super().__init__(num_losses, separate, **kwargs)
        self.sync_replicas = bool(sync_replicas)
        self.nested = False

    @abc.abstractmethod
    def combine(
        self, gradients: list[tf.Tensor], activations
    ) -> list[tf.Tensor]:
        """Rewrites the gradients of the losses at one tensor.

        Args:
            gradients: T tensors, dL_i/dA (batch separated: dL_i/dA_i).
            activations: A; a list of T tensors where batch separated.

        Returns:
            T tensors of the same shapes and dtypes. Where the activations
            are shared, their sum is the gradient that the trunk receives.
        """

    def combine_at(
        self, gradients: list[Structure], place: Place
    ) -> list[Structure]:
        """Rewrites the gradients of the losses at all tensors of a place.

        Args:
            gradients: T gradients, each in the form of its activations.
            place: Where they meet.

        Returns:
            T gradients of the same shapes and dtypes.

        Raises:
            ValueError: If `combine` returns another number, or the method
                remembers and there are several tensors.
        """
        count = len(place.split(gradients))
        if self._own_names and count > 1:
            raise ValueError(
                f"{type(self).__name__} remembers, once for each tensor: derive"
                f" it from gd.JointCombiner. Received: {count} shared tensors."
            )
        return place.of_blocks(self._combine_block, gradients)

    def checked(
        self, gradients: list[Structure], place: Place
    ) -> list[Structure]:
        """Returns what `combine_at` returns, T gradients of the same shapes.

        Raises:
            ValueError: If it returns another number or other shapes.
        """
        combined = _as_many(self.combine_at(gradients, place), gradients, self)
        place.check_shapes(combined)
        return combined

    def combine_to_sum(
        self, gradients: list[Structure], place: Place
    ) -> Structure:
        """Combines gradients to what the trunk receives.

        A method that gets the sum cheaper than its T parts may say how.

        Args:
            gradients: As in `combine_at`.
            place: As in `combine_at`.

        Returns:
            The sum of what `combine_at` returns; batch separated, all of it.
        """
        return place.sum(self.checked(gradients, place))

    def streaming(self) -> Streaming | None:
        """Returns the method's streaming form.

        None stands for a method that needs all gradients at once.
        """
        return None

    def replica_sum(self, value: tf.Tensor) -> tf.Tensor:
        """Sums a tensor over replicas, if they are to be synchronized."""
        if not self.sync_replicas:
            return value
        return replicas.sum_over_replicas(value)

    def build(self, input_shape=None):
        """Creates the state, as far as the number of losses is known."""
        # A list of shapes, and not the shape of one tensor.
        if isinstance(input_shape, (list, tuple)) and not all(
            size is None or isinstance(size, int) for size in input_shape
        ):
            self._count(input_shape)
        self.make_state(self._known_losses)
        self.built = True

    def get_build_config(self):
        """Returns the input shape; a chain or recipe builds its combiners."""
        return super().get_build_config() if self._build_shapes_dict else None

    def _hidden_state(self):
        """A layer on its own counts its steps; in a chain the chain does."""
        step = {} if self.nested else {"step": tf.zeros([], tf.int64)}
        return {**step, **super()._hidden_state()}

    @property
    def step(self) -> keras.Variable:
        """The number of steps taken, from which draws are derived."""
        return self._kept["step"]

    def next_step(self) -> tf.Tensor:
        """Returns the number of this step and counts it."""
        step = tf.identity(self.step.value)
        self.step.assign_add(1)
        return step

    def _combine_block(self, gradients, place: Place) -> list[tf.Tensor]:
        combined = self.combine(gradients, place.activations)
        return _as_many(combined, gradients, self)


def _as_many(combined, gradients, combiner: Combiner) -> list:
    is_list = isinstance(combined, (list, tuple))
    if not is_list or len(combined) != len(gradients):
        raise ValueError(
            f"`{type(combiner).__name__}.combine` must return one gradient "
            f"for each of {len(gradients)} losses. Received: {combined}."
        )
    return list(combined)


class RandomCombiner(RandomDraws, Combiner):
    """Base class of the combiners that draw.

    Args:
        num_losses: T, as in `Combiner`.
        seed: Integer seed of the draws; drawn where it is None.
        **kwargs: `sync_replicas`, `name`, `dtype`.

    Raises:
        ValueError: If the seed is not an integer from 0 to 2**31 - 1.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class KeepHalf(gd.RandomCombiner):
        ...     def combine(self, gradients, activations):
        ...         keep = self.uniform(tf.shape(gradients[0])[1:]) < 0.5
        ...         return [tf.where(keep, g, 0.0) for g in gradients]
    """

    def __init__(
        self,
        num_losses: int | None = None,
        *,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(num_losses=num_losses, seed=seed, **kwargs)
