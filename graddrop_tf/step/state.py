"""The layers and variables that carry out a recipe."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from graddrop_tf import places, random, replicas
from graddrop_tf.bases.chain import Chain
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.streaming import Streaming
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.checks import check_count
from graddrop_tf.step import losses as losses_lib
from graddrop_tf.step.gradients import KnownGradients, LossGradients
from graddrop_tf.step.losses import Values

_STAGES = ("combiner", "weighting", "global_clipnorm", "gradient_penalty")


@keras.saving.register_keras_serializable("graddrop_tf")
class RecipeState(keras.layers.Layer):
    """The stages of a step: weights of the losses, then combined gradients.

    `gd.Recipe.build` makes it. Save it with the model: it holds the step from
    which masks are drawn and the variables of the weighting.

    Attributes:
        combiner: A `gd.Chain` of the recipe's combiners.
        weighting: A `gd.Weighting`, or None.
        global_clipnorm: Norm at which the final gradient is clipped, or None.
        gradient_penalty: Factor of the gradient penalty.
    """

    def __init__(
        self,
        combiner: Chain,
        weighting: Weighting | None = None,
        global_clipnorm: float | None = None,
        gradient_penalty: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.combiner = combiner
        self.weighting = weighting
        self.global_clipnorm = global_clipnorm
        self.gradient_penalty = gradient_penalty
        self._num_losses: int | None = None
        if not combiner.built:
            combiner.build()
        self.built = True

    def __setattr__(self, name: str, value):
        """Sets an attribute; refuses another stage of the recipe."""
        if name in _STAGES and vars(self).get(name, value) != value:
            raise AttributeError(
                f"`{name}` of a recipe cannot change: assign a new recipe, "
                "`model.recipe = ...`, or build a new state. Received: "
                f"{name}={value!r}."
            )
        super().__setattr__(name, value)

    @property
    def weights(self) -> list[keras.Variable]:
        """All of the state; none of it is a weight of a model."""
        return self.variables

    # No property: Keras would save the methods in this place as well.
    def list_methods(self) -> list[Weighting | Combiner]:
        """Returns the weighting, if there is one, and the combiners."""
        weighting = [] if self.weighting is None else [self.weighting]
        return [*weighting, *self.combiner.combiners]

    @property
    def num_losses(self) -> int | None:
        """T, None before it was set."""
        return self._num_losses

    @property
    def loss_names(self) -> tuple[str, ...] | None:
        """The names of the losses that were set, None before."""
        return None if self._num_losses is None else self.combiner.loss_names

    @property
    def needs_per_loss_gradients(self) -> bool:
        """Whether the gradients of the losses are needed one by one."""
        return bool(self.combiner.combiners) or self._needs_norms

    @property
    def needs_losses_after(self) -> bool:
        """Whether `update_after` wants the losses after the update."""
        return self.weighting is not None and self.weighting.needs_losses_after

    @property
    def needs_epochs(self) -> bool:
        """Whether `end_epoch` has to be called."""
        weighting = self.weighting
        return (
            weighting is not None
            and weighting.needs_means
            and weighting.window is None
        )

    @property
    def state_variables(self) -> list[keras.Variable]:
        """What the methods remember, without the step and the seeds."""
        return [
            v for m in self.list_methods() for v in m.state_variables.values()
        ]

    def set_losses(
        self, num_losses: int, names: Sequence[str] | None = None
    ) -> None:
        """Sets the losses of the methods and creates their variables.

        Raises:
            ValueError: If a method does not fit them.
        """
        check_count("num_losses", num_losses)
        # Those of a method that refuses them are not set.
        self._num_losses = None
        self.combiner.set_losses(num_losses, names)
        self.combiner.make_state(num_losses)
        if self.weighting is not None:
            self.weighting.set_losses(num_losses, names)
        self._num_losses = num_losses
        self.built = True

    @contextlib.contextmanager
    def drawing(self):
        """Counts a step; what is drawn inside belongs to it.

        Yields:
            The `random.Scope` of the step.
        """
        has_methods = self.combiner.combiners or self.weighting is not None
        step = self.combiner.next_step() if has_methods else 0
        with random.drawing(step) as scope:
            yield scope

    def global_losses(self, losses: Values) -> tf.Tensor:
        """Returns the losses of the global batch, `[T]`, for a weighting.

        Args:
            losses: The losses, divided by the number of replicas.
        """
        values = losses_lib.of(losses).vector
        if self.weighting is None:
            return values
        return replicas.sum_over_replicas(values)

    def loss_weights(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns the weights `[T]` of this step, 1 without a weighting.

        Args:
            losses: Those that `global_losses` returns.
        """
        if self.weighting is None:
            return tf.ones_like(losses)
        return self.weighting.current_weights(losses)

    def combine(
        self,
        gradients: LossGradients | KnownGradients,
        chunk_size: int | None = None,
    ):
        """Computes the gradient that the trunk receives.

        Args:
            gradients: The gradients of the weighted losses.
            chunk_size: How many of them may exist at once.

        Returns:
            The gradient in the form of the activations, None for the plain
            sum of the gradients; and the norms `[T]` of the unweighted
            losses' gradients, None unless the weighting needs them.
        """
        if not self.needs_per_loss_gradients:
            return None, None
        needs_norms = self._needs_norms
        if chunk_size is None:
            indices = range(gradients.num_losses)
            parts = gradients.of(indices)
            norms = gradients.norms(parts, indices) if needs_norms else None
            total = self.combiner.combine_to_sum(parts, gradients.place)
        else:
            stream = self.combiner.streaming()
            total, norms = _stream(stream, gradients, chunk_size, needs_norms)
        gradients.check_reached(self.loss_names)
        return total, norms

    @property
    def _needs_norms(self) -> bool:
        return self.weighting is not None and self.weighting.needs_norms

    def update(self, losses: tf.Tensor, norms: tf.Tensor | None) -> None:
        """Advances the weighting, after its weights were used.

        Args:
            losses: Those that `global_losses` returned.
            norms: Those that `combine` returned.
        """
        if self.weighting is not None:
            self.weighting.update(losses, norms)

    def update_after(
        self,
        losses: Values,
        losses_after: Values,
        updated: tf.Tensor | bool = True,
    ) -> None:
        """Shows the weighting the losses of the same batch after the update.

        Does nothing unless `needs_losses_after`.

        Args:
            losses: The losses, divided by the number of replicas.
            losses_after: The losses by the new variables, in the same way.
            updated: Whether there was an update.
        """
        if self.needs_losses_after:
            before = self.global_losses(losses)
            after = self.global_losses(losses_after)
            self.weighting.update_after(before, after, updated)

    def end_epoch(self) -> None:
        """Tells the weighting that an epoch has ended, if `needs_epochs`."""
        if self.needs_epochs:
            with random.drawing(self.combiner.step.value):
                self.weighting.update_epoch()

    def get_build_config(self):
        """Returns the losses, to rebuild the variables."""
        return {"num_losses": self._num_losses, "names": self.loss_names}

    def build_from_config(self, config):
        """Rebuilds the variables of a saved state."""
        if config.get("num_losses") is not None:
            self.set_losses(config["num_losses"], config["names"])
        self.built = True

    def get_config(self):
        """Returns the layers as built, with their seeds."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "combiner": serialize(self.combiner),
            "weighting": serialize(self.weighting),
            "global_clipnorm": self.global_clipnorm,
            "gradient_penalty": self.gradient_penalty,
        }

    @classmethod
    def from_config(cls, config):
        """Rebuilds the layers from `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        layers = {k: deserialize(config[k]) for k in ("combiner", "weighting")}
        state = cls(**{**config, **layers})
        # So that Keras calls `build_from_config`.
        state.built = False
        return state


def _stream(
    stream: Streaming,
    gradients: LossGradients,
    chunk_size: int,
    needs_norms: bool,
) -> tuple[places.Structure, tf.Tensor | None]:
    """Combines chunk by chunk, each after the one before."""
    count = gradients.num_losses
    stream.start(count, gradients.place)
    norms, accumulators = [], []
    for first in range(0, count, chunk_size):
        indices = range(first, min(first + chunk_size, count))
        parts = gradients.of(indices, accumulators)
        if needs_norms:
            norms.append(gradients.norms(parts, indices))
        accumulators = stream.add(indices, parts)
    return stream.finish(), tf.concat(norms, 0) if needs_norms else None
