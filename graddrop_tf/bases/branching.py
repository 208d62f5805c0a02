"""The layer that gives each loss a branch of the activations."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import places, random, reached
from graddrop_tf.bases.configuration import Configurable
from graddrop_tf.checks import check_count
from graddrop_tf.places import Place, Structure


class Branching(Configurable):
    """A layer that gives each loss a branch of the activations.

    It is the identity going forward. Going backward, `combine_to_sum` makes
    one gradient of those of the branches.

    Args:
        num_losses: As in `Combiner`.
        separate: As in `Combiner`.
        **kwargs: `name`, `dtype`.
    """

    def __init__(
        self,
        num_losses: int | None = None,
        separate: bool | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_losses is not None:
            check_count("num_losses", num_losses)
        self.num_losses = num_losses
        self.separate = separate
        self._known_losses = num_losses
        self.supports_masking = True

    @abc.abstractmethod
    def combine_to_sum(
        self, gradients: list[Structure], place: Place
    ) -> Structure:
        """Combines gradients to what the trunk receives."""

    @abc.abstractmethod
    def next_step(self) -> tf.Tensor:
        """Returns the number of this step and counts it."""

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

    def call(self, inputs, training=None):
        """Returns a branch of the activations for each loss."""
        num_losses, place = self._count(inputs), self.place_of(inputs)
        branches = place.of_each(num_losses)
        if training:
            branches = _branch_off(self, place, branches, self.next_step())
        elif (model := reached.untold(training)) is not None:
            branches = reached.warn_on_gradient(
                branches,
                f"{self.name!r} passes all gradients, as it is not told "
                f"whether it is trained. To train by it, give `call` of "
                f"{model.name!r} the argument `training=None`, which Keras "
                "hands on to all layers.",
            )
        return self._packed(branches, place)

    def branches_of(self, inputs: Structure, outputs: Structure) -> list:
        """Returns what a call gave as a list of T.

        Args:
            inputs: What the layer was given.
            outputs: What it returned.
        """
        is_one = self._is_one(self._count(inputs), self.place_of(inputs))
        return [outputs] if is_one else outputs

    def _packed(self, branches: list, place: Place) -> Structure:
        """Returns what a call gives for T branches."""
        return branches[0] if self._is_one(len(branches), place) else branches

    @staticmethod
    def _is_one(num_losses: int, place: Place) -> bool:
        return num_losses == 1 and place.is_shared

    def place_of(self, inputs: Structure) -> Place:
        """Returns the place of the activations that the layer is given."""
        return places.of(inputs, self.separate)

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
        place = self.place_of(inputs)
        branches = place.of_each(self._count(inputs))
        if any(not t.shape for t in tf.nest.flatten(branches)):
            raise ValueError(
                f"{type(self).__name__} needs a batch axis. Received: a "
                "tensor of rank 0."
            )
        what = "Batch-separated activations, a list without `separate=False`,"
        places.check_features(branches, what)
        specs = tf.nest.map_structure(
            lambda t: keras.KerasTensor(t.shape, self.compute_dtype), branches
        )
        return self._packed(specs, place)

    def compute_output_shape(self, input_shape):
        """Returns the shape of every branch."""
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        outputs = self.compute_output_spec(inputs)
        return keras.tree.map_structure(lambda t: t.shape, outputs)

    def compute_mask(self, inputs, previous_mask=None):
        """Passes a mask on to every branch."""
        if previous_mask is None:
            return None
        place = self.place_of(inputs)
        masks = place.spread(previous_mask, self._count(inputs))
        return self._packed(masks, place)


def _branch_off(combiner: Branching, place: Place, branches, step) -> list:
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
