"""The shape that all weighting methods share: losses -> weights."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import tensorflow as tf

from graddrop_tf.bases import means
from graddrop_tf.bases.configuration import Configurable
from graddrop_tf.bases.state import State, all_finite


class Weighting(Configurable):
    """Base class of the methods that weight losses.

    A method implements `weights_of`, and `next_state` if it remembers. Both
    are pure functions of a state that `initial_state` names; the layer keeps
    it in variables, which are saved with the model. A method that draws
    derives from `gd.RandomDraws` as well. What else it needs, it declares;
    what it does not declare costs nothing:

    - `needs_norms`: the norms of the losses' gradients, for `next_state`; a
      backward pass through the heads for each loss. Without them a weighting
      costs one backward pass, as the plain sum does.
    - `needs_means`: `next_window`, called with the mean losses of each epoch,
      or of each `window` steps where that is a number.
    - `needs_losses_after`: `next_state_after`, called with the losses of the
      same batch after the update; a forward pass more.

    `search_space` declares ranges, as in `gd.Combiner`. Numbers declared as
    `gd.Number` may change while it trains.

    Args:
        **kwargs: `name`, `dtype`.

    Attributes:
        window: Number of steps of a window of means; None: an epoch.

    Example:
        >>> @keras.saving.register_keras_serializable()
        ... class Inverse(gd.Weighting):
        ...     def weights_of(self, state, losses):
        ...         return 1.0 / losses
    """

    needs_norms: ClassVar[bool] = False
    needs_means: ClassVar[bool] = False
    needs_losses_after: ClassVar[bool] = False
    window: int | None = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.num_losses: int | None = None

    @abc.abstractmethod
    def weights_of(self, state: State, losses: tf.Tensor) -> tf.Tensor:
        """Returns the weights of this step, `float32` of shape `[T]`.

        Args:
            state: The state before this step.
            losses: `[T]`, of this step, unweighted, of the global batch.
        """

    def next_state(
        self, state: State, losses: tf.Tensor, norms: tf.Tensor | None
    ) -> State:
        """Returns what a step changes in the state.

        Args:
            state: The state before.
            losses: As in `weights_of`.
            norms: `[T]`, the L2 norms of the unweighted losses' gradients
                with respect to the activations, of the global batch; None
                unless `needs_norms`.

        Returns:
            New values by name, of the same shapes and dtypes.
        """
        return {}

    def next_window(self, state: State, means: tf.Tensor) -> State:
        """Returns what the end of a window changes in the state.

        Args:
            state: The state before.
            means: `[T]`, the mean of each loss over the steps of the window.
        """
        return {}

    def next_state_after(
        self, state: State, losses: tf.Tensor, losses_after: tf.Tensor
    ) -> State:
        """Returns what the losses after the update change in the state.

        Args:
            state: The state, after `next_state`.
            losses: As in `weights_of`.
            losses_after: The losses of the same batch by the new weights.
        """
        return {}

    def start(self, num_losses):
        """See base class; with the window of means, if it is needed."""
        window = means.start(num_losses) if self.needs_means else {}
        return {**super().start(num_losses), **window}

    def advance(
        self, state: State, losses: tf.Tensor, norms: tf.Tensor | None = None
    ) -> State:
        """Returns the state after a step.

        Args:
            state: The state before, at first that of `start`.
            losses: As in `next_state`.
            norms: As in `next_state`.
        """
        after = {**state, **self.next_state(state, losses, norms)}
        if not self.needs_means:
            return after
        after.update(means.add(after, losses))
        if self.window is None:
            return after
        return self._end_window(after, means.count(after) >= self.window)

    def end_epoch(self, state: State) -> State:
        """Returns the state after an epoch.

        Args:
            state: The state after its last step.
        """
        if not self.needs_means or self.window is not None:
            return state
        return self._end_window(state, means.count(state) > 0)

    def _end_window(self, state: State, ends: tf.Tensor) -> State:
        mean = means.mean(state)
        changes = {
            **self.next_window(state, mean),
            **means.start(mean.shape[0]),
        }
        changes = {k: tf.where(ends, v, state[k]) for k, v in changes.items()}
        return {**state, **changes}

    def set_losses(
        self, num_losses: int, names: Sequence[str] | None = None
    ) -> None:
        """Sets the number and names of the losses; creates the variables.

        Raises:
            ValueError: If the method does not fit them.
        """
        names = None if names is None else tuple(names)
        self.check_numbers(num_losses, names)
        self.check_losses(num_losses, names)
        self.loss_names = names
        self.build(num_losses)

    def check_losses(
        self, num_losses: int, names: Sequence[str] | None
    ) -> None:
        """Checks that the method's arguments fit the losses.

        Its numbers are checked without this.

        Args:
            num_losses: T.
            names: Their names, None if they have none.

        Raises:
            ValueError: If they do not.
        """

    def build(self, num_losses: int) -> None:
        """Creates the variables for T losses; those for others are gone."""
        self.num_losses = num_losses
        self.make_state(num_losses)
        self.built = True

    def current_weights(self, losses: tf.Tensor | None = None) -> tf.Tensor:
        """Returns the weights to use in this step, `[T]`.

        Args:
            losses: As in `weights_of`; None for a method that does not look
                at them.
        """
        return tf.cast(self.weights_of(self.state, losses), tf.float32)

    def update(self, losses: tf.Tensor, norms: tf.Tensor | None = None) -> None:
        """Advances the variables by a step, unless it is not finite."""
        state = self.state
        after = self.advance(state, losses, norms)
        self._keep_if_finite([losses, norms], state, after)

    def update_after(
        self,
        losses: tf.Tensor,
        losses_after: tf.Tensor,
        updated: tf.Tensor | bool = True,
    ) -> None:
        """Shows the method the losses of the same batch after the update.

        Args:
            losses: As in `weights_of`.
            losses_after: As in `next_state_after`.
            updated: Whether there was an update; if not, nothing is shown.
        """
        state = self.state
        after = {**state, **self.next_state_after(state, losses, losses_after)}
        self._keep_if_finite([losses, losses_after], state, after, updated)

    def _keep_if_finite(
        self,
        seen,
        state: State,
        after: State,
        updated: tf.Tensor | bool = True,
    ) -> None:
        finite = all_finite([value for value in seen if value is not None])
        kept = {
            k: tf.where(finite & updated, after[k], state[k]) for k in state
        }
        self.keep(**kept)

    def update_epoch(self) -> None:
        """Ends an epoch."""
        self.keep(**self.end_epoch(self.state))

    def get_build_config(self):
        """Returns the number of losses, to rebuild the variables."""
        return {"num_losses": self.num_losses}

    def build_from_config(self, config):
        """Rebuilds the variables of a saved model."""
        if config.get("num_losses") is not None:
            self.build(config["num_losses"])
