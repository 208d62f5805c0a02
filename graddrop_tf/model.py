"""A Keras model whose train step has a gradient for each loss."""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import conversion, fitting, parts, places, replicas
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.bases.weighting import Weighting
from graddrop_tf.recipe import Recipe
from graddrop_tf.recipe_holder import RecipeHolder
from graddrop_tf.step import clipping
from graddrop_tf.step.compiled_loss import PerLossCompileLoss
from graddrop_tf.step.forward import forward
from graddrop_tf.step.second_pass import SecondPass
from graddrop_tf.step.state import RecipeState
from graddrop_tf.step.vector_loss import weights_by_output
from graddrop_tf.trunk_and_heads import TrunkAndHeads


@keras.saving.register_keras_serializable("graddrop_tf")
class MultiLossModel(RecipeHolder, TrunkAndHeads):
    """A Keras model in two halves, trained on several losses by a recipe.

    `fit`, `evaluate`, `predict`, saving and export are Keras' own. The train
    step differs: it computes the gradient of each loss with respect to the
    shared activations, and the recipe's methods combine them into the gradient
    of the trunk. The heads receive the gradient of the sum of their losses.
    Terms from `add_loss` and regularisers do not count as losses: their
    gradients are added, unmasked, after the combination.

    Args:
        trunk: Any Keras model or layer from the inputs to the activations A
            that the losses share: a tensor, or lists and dicts of tensors,
            such as a feature pyramid or all skips of a U-Net. Where it does
            not know its inputs, the first batch builds the model.
        heads: Any Keras model or layer from A to the outputs: a tensor, or
            lists and dicts of tensors.
        recipe: A `gd.Recipe`, its text, or a single method such as
            `gd.GradDrop()`; the plain sum by default.
        loss_chunk_size: How many per-loss gradients may exist at once, to
            bound memory; all of them by default.
        separate: Whether the losses are batch separated: A is a list with the
            activations of each loss, computed from examples of its own.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If trunk and heads do not fit, the recipe is not one, or
            it cannot work in chunks.

    Example:
        >>> model = gd.MultiLossModel(trunk, heads, recipe="graddrop")
        >>> model.compile("adam", loss=["mse", "mse"])
        >>> model.fit(x, [y_a, y_b])
    """

    fixed_arguments = (*TrunkAndHeads.fixed_arguments, "separate")

    def __init__(
        self,
        trunk: keras.layers.Layer,
        heads: keras.layers.Layer,
        recipe: Recipe | Combiner | Weighting | str | None = None,
        loss_chunk_size: int | None = None,
        separate: bool = False,
        **kwargs,
    ):
        if not isinstance(recipe, RecipeState):
            recipe = Recipe.of(recipe)
        super().__init__(trunk, heads, **kwargs)
        if isinstance(recipe, Recipe):
            recipe = recipe.make_state()
        self._loss_chunk_size = loss_chunk_size
        self.separate = bool(separate)
        if self.is_functional:
            self.place_of(self._activations)
        fitting.train_on_replicas(self, before_training=self._set_losses)
        self._hold(recipe)

    from_model = classmethod(conversion.from_model)

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        *,
        jit_compile="auto",
        **kwargs,
    ):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: As in Keras; the recipe's clipping is attached to it.
            loss: One Keras loss, or a `gd.VectorLoss`, for each output; None
                trains on regularisers and `add_loss` alone.
            loss_weights: As in Keras; for a `gd.VectorLoss` a number, one for
                each loss, or a dict by name.
            metrics: As in Keras.
            weighted_metrics: As in Keras.
            jit_compile: As in Keras, but with one replica only.
            **kwargs: As in Keras.

        Raises:
            ValueError: If the losses do not fit the outputs or the recipe, or
                XLA is asked for with several replicas.
        """
        _check_compute_loss(self)
        _check_xla(self.distribute_strategy, jit_compile)
        loss, loss_weights = weights_by_output(loss, loss_weights)
        compiled_loss = self._compiled_loss(loss, loss_weights)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=jit_compile,
            **kwargs,
        )
        if compiled_loss is not None:
            self._compile_loss = compiled_loss
            self._set_losses()
        self._clip()

    def _compiled_loss(self, loss, loss_weights) -> PerLossCompileLoss | None:
        names = outputs = None
        if self.is_functional:
            names, outputs = self.output_names, self.output
            parts.check_losses(loss, names, outputs)
        if loss is None:
            return None
        with self.distribute_strategy.scope():
            compiled = PerLossCompileLoss(loss, loss_weights, names, outputs)
        if self.is_functional:
            compiled.check_place(self.place_of(self._activations))
        return compiled

    def _check_step(self, place: places.Place) -> None:
        """Checks what the constructor does, where the first batch tells it."""
        if not self.is_functional:
            parts.check_no_layer_in_both(self.trunk, self.heads)
            self._compile_loss.check_place(place)
            self._set_losses()

    def compile_from_config(self, config):
        """Compiles a loaded model with its saved arguments."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, data):
        """Runs one step: losses, a gradient for each, combine, update."""
        if self.recipe_state.global_clipnorm is not None:
            # The optimizer may be another than at `compile`.
            self._clip()
        if self._compile_loss is None:
            # Regularisers and `add_loss` alone: there is nothing to combine.
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = keras.tree.map_structure(parts.as_tensor, x)
        self.build_on(x)
        state = self.recipe_state

        def losses_of(y_pred):
            return self.per_loss_values(y, y_pred, sample_weight)

        again = state.needs_losses_after and SecondPass(self)
        with state.drawing():
            taped = forward(
                self.trunk,
                self.heads,
                x,
                losses_of,
                self.place_of,
                penalty_factor=state.gradient_penalty,
                per_loss=state.needs_per_loss_gradients,
            )
            self._check_step(taped.place)
            scale = self.optimizer.scale_loss(tf.ones([]))
            losses = state.global_losses(taped.losses)
            factors = state.loss_weights(losses) * scale
            per_loss = taped.per_loss(factors)
            combined, norms = state.combine(per_loss, self.loss_chunk_size)
            variables = self.trainable_variables
            grads = taped.gradients(combined, factors, scale, variables)
            if variables:
                clipnorm = self._clipnorm_of_step()
                grads = clipping.clip_unreduced(grads, clipnorm, scale)
                pairs = zip(grads, variables, strict=True)
                self.optimizer.apply_gradients(pairs)
            state.update(losses, norms)
            if again:
                state.update_after(taped.losses, *again.run(x, losses_of))
        self._track_loss(taped.total(), x)
        return self.compute_metrics(
            x, y, taped.y_pred, sample_weight=sample_weight
        )

    def place_of(self, given, inputs=None) -> places.Place:
        """Returns the place of what the trunk gives, as `trained` does."""
        activations = self.trained(given, inputs, self.separate)
        return places.of(activations, self.separate)

    def _track_loss(self, total: tf.Tensor, x) -> None:
        first = next(t for t in keras.tree.flatten(x) if t is not None)
        self._loss_tracker.update_state(
            replicas.unscale_loss(total), sample_weight=tf.shape(first)[0]
        )

    def per_loss_values(self, y, y_pred, sample_weight=None):
        """Computes the value of each loss.

        Args:
            y: Labels, as given to `fit`.
            y_pred: Outputs of the heads.
            sample_weight: Weights of the samples, or None.

        Returns:
            A list of T scalars, or a tensor `[T]` for a `gd.VectorLoss`:
            weighted, and divided by the number of replicas.

        Raises:
            ValueError: If the model was compiled without a loss.
        """
        if self._compile_loss is None:
            raise ValueError(
                "There are no losses: give `loss` to `compile`. Received: none."
            )
        return self._compile_loss.per_loss(y, y_pred, sample_weight)

    def get_config(self):
        """Returns trunk, heads, and the recipe's layers as built."""
        return {
            **super().get_config(),
            "recipe": keras.saving.serialize_keras_object(self.recipe_state),
            "loss_chunk_size": self.loss_chunk_size,
            "separate": self.separate,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuilds the model from `get_config`; a clone's holds layers."""
        layers = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in ("trunk", "heads", "recipe")
            if isinstance(config[key], dict)
        }
        return cls(**{**config, **layers})


# Legacy .h5 files name the class alone.
keras.saving.get_custom_objects()["MultiLossModel"] = MultiLossModel


def _check_compute_loss(model: MultiLossModel) -> None:
    """Raises ValueError where a `compute_loss` of a user is never called."""
    own = getattr(model.compute_loss, "__func__", None)
    if own is not keras.Model.compute_loss:
        raise ValueError(
            "`compute_loss` takes no part in training: give the losses to "
            "`compile`, and other terms to `add_loss` of a layer. Received: "
            f"{type(model).__name__}, which has a `compute_loss` of its own."
        )


def _check_xla(strategy: tf.distribute.Strategy, jit_compile) -> None:
    count = strategy.num_replicas_in_sync
    if count > 1 and jit_compile is True:
        raise ValueError(
            "`jit_compile=True` works with one replica only: leave it at "
            f"'auto' under a strategy of {count} replicas."
        )
