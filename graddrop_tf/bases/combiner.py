"""The shape that all combining methods share: T gradients in, T out."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import places, random, reached, replicas
from graddrop_tf.bases.configuration import Configurable
from graddrop_tf.bases.draws import RandomDraws
from graddrop_tf.bases.streaming import Streaming
from graddrop_tf.checks import check_count
from graddrop_tf.places import Place, Structure


class Combiner(Configurable):
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
            returns its inputs and adds no operation.

    Input shape:
        `[batch, ...]`, or a structure of such tensors; a list of T of them
        where the losses are batch separated.

    Output shape:
        A list of T tensors or structures.

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
        super().__init__(**kwargs)
        if num_losses is not None:
            check_count("num_losses", num_losses)
        self.num_losses = num_losses
        self.sync_replicas = bool(sync_replicas)
        self.separate = separate
        self.nested = False
        self._known_losses = num_losses
        self.supports_masking = True

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

    def set_losses(
        self, num_losses: int, names: Sequence[str] | None = None
    ) -> None:
        """Sets the number and names of the losses, before the first step.

        Raises:
            ValueError: Where the number is not the one it was made for.
        """
        if self.num_losses not in (None, num_losses):
            raise ValueError(
                f"{type(self).__name__} was made for num_losses="
                f"{self.num_losses}. Received: {num_losses} losses."
            )
        self.check_numbers(num_losses, names)
        self.loss_names = None if names is None else tuple(names)
        self._known_losses = num_losses

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

    def call(self, inputs, training=False):
        """Returns a branch of the activations for each loss."""
        num_losses, place = self._count(inputs), self.place_of(inputs)
        branches = place.of_each(num_losses)
        if not training:
            return branches
        return _branch_off(self, place, branches, self.next_step())

    def place_of(self, inputs: Structure) -> Place:
        """Returns the place of the activations that the layer is given."""
        return places.of(inputs, self.separate)

    def _combine_block(self, gradients, place: Place) -> list[tf.Tensor]:
        combined = self.combine(gradients, place.activations)
        return _as_many(combined, gradients, self)

    def _count(self, inputs: Structure) -> int:
        """Sets and returns the number of losses."""
        num_losses = self.place_of(inputs).num_losses or self.num_losses
        if num_losses is None:
            raise ValueError(
                f"{type(self).__name__} needs `num_losses` where the losses "
                "share their activations. Received: num_losses=None and "
                f"{inputs}."
            )
        self.set_losses(num_losses, self.loss_names)
        return num_losses

    def compute_output_spec(self, inputs, training=False):
        """Returns the specification of every branch."""
        branches = self.place_of(inputs).of_each(self._count(inputs))
        if any(not t.shape for t in tf.nest.flatten(branches)):
            raise ValueError(
                f"{type(self).__name__} needs a batch axis. Received: a "
                "tensor of rank 0."
            )
        what = "Batch-separated activations, a list without `separate=False`,"
        places.check_features(branches, what)
        return tf.nest.map_structure(
            lambda t: keras.KerasTensor(t.shape, self.compute_dtype), branches
        )

    def compute_mask(self, inputs, previous_mask=None):
        """Passes a mask on to every branch."""
        if previous_mask is None:
            return None
        place = self.place_of(inputs)
        return place.spread(previous_mask, self._count(inputs))


def _branch_off(combiner: Combiner, place: Place, branches, step) -> list:
    """Copies the branches; their gradients are combined going backward."""
    arrivals = reached.Arrivals(combiner.name)

    @tf.custom_gradient
    def branch(*blocks):
        here = place.with_blocks(blocks)

        def grad(*gradients):
            arrivals.check(len(branches))
            arrived = tf.nest.pack_sequence_as(branches, gradients)
            with random.drawing(step):
                return tf.nest.flatten(combiner.combine_to_sum(arrived, here))

        copies = tf.nest.flatten(here.of_each(len(branches)))
        return [tf.identity(copy) for copy in copies], grad

    copies = tf.nest.pack_sequence_as(branches, branch(*place.blocks))
    return arrivals.watch(copies)


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
