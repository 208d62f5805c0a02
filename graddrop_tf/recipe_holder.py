"""A model that holds a recipe, and the layers that carry it out."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable

import keras
import tensorflow as tf

from graddrop_tf import parts, reached
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.recipe import Recipe
from graddrop_tf.step import clipping, epochs
from graddrop_tf.step.state import RecipeState


class RecipeHolder(keras.Model):
    """The part of a `MultiLossModel` that holds its recipe.

    Attributes:
        recipe_state: The layers and variables that carry it out.
    """

    recipe_state: RecipeState

    # The optimizer to which the recipe's clip is attached, if any.
    _clipped_optimizer: Callable = staticmethod(lambda: None)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the model trains by.

        A new one may be assigned; it acts from the next step on, with methods
        that remember nothing yet. The weights and the optimizer stay.
        """
        return Recipe.from_state(self.recipe_state)

    @recipe.setter
    def recipe(self, value: Recipe | Combiner | Weighting | str | None):
        before = self.recipe_state
        with self.distribute_strategy.scope():
            state = Recipe.of(value).make_state()
        try:
            self._exchange(state)
        except ValueError:
            self._exchange(before)
            raise

    def method(self, name: str, index: int = 0) -> Weighting | Combiner:
        """Returns a method of the recipe, whose numbers may be assigned.

        Args:
            name: Its name in a recipe, such as "graddrop".
            index: Which of several of that name.

        Raises:
            ValueError: If there is none.

        Example:
            >>> model.method("graddrop").leak = 0.5
        """
        return self.recipe.find(name, self.recipe_state.list_methods(), index)

    def watch_outputs(self, outputs, training):
        """Returns the outputs of a call; in training they may warn.

        The model's own step calls trunk and heads, not the model.

        Args:
            outputs: What the model gives.
            training: Whether it is trained, not by its own step.
        """
        is_trained = training or reached.untold(training) is not None
        has_recipe = self.trainable_variables and self.recipe != Recipe()
        if not (is_trained and has_recipe):
            return outputs
        return reached.warn_on_gradient(
            outputs,
            f"A gradient reaches {self.name!r} from outside, where its recipe "
            f"'{self.recipe}' takes no part. To train by it, call `fit` of "
            f"{self.name!r} itself, or cut the outer model by "
            "`gd.MultiLossModel.from_model`.",
        )

    def save(self, filepath, *args, **kwargs):
        """Saves the model, as Keras does; see `keras.Model.save`."""
        is_legacy = str(filepath).endswith((".h5", ".hdf5"))
        if is_legacy and self.recipe != Recipe():
            warnings.warn(
                "A legacy .h5 file holds the weights and the recipe, but not "
                "the steps and the state of its methods: save a .keras file to "
                f"go on training. Received: {str(filepath)!r}.",
                stacklevel=2,
            )
        super().save(filepath, *args, **kwargs)

    @property
    def loss_chunk_size(self) -> int | None:
        """How many per-loss gradients may exist at once, None for all.

        Another number may be assigned; it acts from the next step on.
        """
        return self._loss_chunk_size

    @loss_chunk_size.setter
    def loss_chunk_size(self, value: int | None):
        self._check_chunks(value, self.recipe_state)
        self._loss_chunk_size = value
        self.train_function = None

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the recipe too."""
        # A functional model of Keras before 3.15 leaves the recipe's out.
        known = super().variables
        ids = {id(v) for v in known}
        state = self.recipe_state.variables
        return [*known, *(v for v in state if id(v) not in ids)]

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights of trunk and heads, which a plain model has too."""
        state = {id(v) for v in self.recipe_state.variables}
        return [w for w in super().weights if id(w) not in state]

    def _exchange(self, state: RecipeState) -> None:
        """Goes on by the state of another recipe."""
        self._hold(state)
        # It would take the steps of the recipe before.
        self.train_function = None
        if self.compiled:
            self._set_losses()
            self._clip()

    def _hold(self, state: RecipeState) -> None:
        """Takes the state of a recipe in place of the one before."""
        self._check_chunks(self.loss_chunk_size, state)
        tracker = self._tracker
        locked = tracker.locked
        tracker.unlock()
        tracker.untrack(getattr(self, "recipe_state", None))
        self.recipe_state = state
        if locked:
            tracker.lock()
        epochs.end_in_fit(self, state)

    def _check_chunks(self, size: int | None, state: RecipeState) -> None:
        if size is not None:
            parts.check_chunks(size, self.separate, state)

    def _set_losses(self) -> None:
        """Tells the recipe of the losses, once their number is known."""
        state = self.recipe_state
        names = self._compile_loss and self._compile_loss.loss_names
        if names is None or state.loss_names == names:
            return
        # The first batch may tell it, in the trace of a step.
        with tf.init_scope(), self.distribute_strategy.scope():
            state.set_losses(len(names), names)

    def _clip(self) -> None:
        """Attaches the recipe's clipping to the optimizer, if it can clip.

        Raises:
            ValueError: If no gradient comes by where the model clips itself.
        """
        clipnorm = self.recipe_state.global_clipnorm
        if self._clipnorm_of_step() is not None:
            if self._compile_loss is None:
                raise ValueError(
                    "The recipe's `clip` needs a `loss` with an optimizer that "
                    "has an `apply` of its own. Received: loss=None and "
                    f"{type(self.optimizer).__name__}."
                )
            clipnorm = None
        # A clip that a user attached stays.
        if clipnorm is not None or self._clipped_optimizer() is self.optimizer:
            clipping.clip_after_reduction(self.optimizer, clipnorm)
            self._clipped_optimizer = weakref.ref(self.optimizer)

    def _clipnorm_of_step(self) -> float | None:
        """Returns the norm at which the step clips, None where it does not."""
        if not clipping.has_own_apply(self.optimizer):
            return None
        return self.recipe_state.global_clipnorm
