"""Several combiners in one place, in order."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.joint import JointCombiner
from graddrop_tf.bases.streaming import Streaming


class _StreamingSum(Streaming):
    """The plain sum."""

    def start(self, num_losses, place):
        self._place, self._totals = place, []

    def add(self, indices, gradients):
        self._totals = [self._place.sum([*self._totals, *gradients])]
        return tf.nest.flatten(self._totals)

    def finish(self):
        return self._totals[0]


@keras.saving.register_keras_serializable("graddrop_tf")
class Chain(JointCombiner):
    """Several combiners in one place, in order.

    Args:
        combiners: Combiners; none of them: the plain sum.
        num_losses: T, as in `Combiner`.
        **kwargs: `separate`, `name`, `dtype`.

    Example:
        >>> layer = gd.Chain([gd.MGDA(), gd.GradDrop()], num_losses=2)
    """

    def __init__(
        self,
        combiners: Sequence[Combiner],
        num_losses: int | None = None,
        **kwargs,
    ):
        if "sync_replicas" in kwargs:
            raise ValueError(
                "A chain synchronizes nothing itself: give `sync_replicas` to "
                "its combiners. Received: sync_replicas="
                f"{kwargs['sync_replicas']!r}."
            )
        super().__init__(num_losses, **kwargs)
        for combiner in combiners:
            if not isinstance(combiner, Combiner):
                raise ValueError(
                    "A chain is made of combiners. Received: "
                    f"{combiner!r} of type {type(combiner).__name__}."
                )
            if combiner.separate is not None:
                raise ValueError(
                    "The combiners of a chain or a recipe act where it does: "
                    "give `separate` to the layer or model that holds them. "
                    f"Received: separate={combiner.separate!r} in "
                    f"{type(combiner).__name__}."
                )
            combiner.nested = True
        self.combiners = list(combiners)
        for i, combiner in enumerate(self.combiners):
            # For `tf.train.Checkpoint`, which does not see into lists.
            self._track_trackable(combiner, f"combiner_{i}")
        if num_losses is not None:
            self.set_losses(num_losses)

    def set_losses(self, num_losses, names=None):
        """See base class."""
        super().set_losses(num_losses, names)
        for combiner in self.combiners:
            combiner.set_losses(num_losses, names)

    def make_state(self, num_losses):
        """Creates the chain's counter and the state of its combiners."""
        super().make_state(num_losses)
        if num_losses is None:
            return
        for combiner in self.combiners:
            if not combiner.built:
                combiner.build()
            combiner.make_state(num_losses)

    def combine_at(self, gradients, place):
        """See base class."""
        for combiner in self.combiners:
            gradients = combiner.checked(gradients, place)
        return gradients

    def combine_to_sum(self, gradients, place):
        """See base class."""
        if not self.combiners:
            return place.sum(gradients)
        for combiner in self.combiners[:-1]:
            gradients = combiner.checked(gradients, place)
        return self.combiners[-1].combine_to_sum(gradients, place)

    def streaming(self):
        """See base class; two methods in a row need all gradients at once."""
        if not self.combiners:
            return _StreamingSum()
        if len(self.combiners) > 1:
            return None
        return self.combiners[0].streaming()

    def get_config(self):
        """See base class."""
        config = super().get_config()
        del config["sync_replicas"]
        return config

    @classmethod
    def from_config(cls, config):
        """See base class; older files hold a `sync_replicas` of the chain."""
        config = {k: v for k, v in config.items() if k != "sync_replicas"}
        return super().from_config(config)
