"""A Keras model whose train step has a gradient for each loss."""

from __future__ import annotations

import keras
import tensorflow as tf

from graddrop_tf import fitting, linalg, replicas
from graddrop_tf.checks import check_count
from graddrop_tf.recipe import Recipe, RecipeState
from graddrop_tf.step import clipping, gradients, penalty, vector_loss


@keras.saving.register_keras_serializable("graddrop_tf")
class MultiLossModel(keras.Model):
    """A functional model trained on several losses by a recipe.

    `fit`, `evaluate`, `predict`, saving and export are Keras' own. What is
    special is the train step: the gradient of each loss with respect to the
    shared activations, combined by the recipe's methods, is the gradient of
    the trunk. The heads receive the gradient of their losses' sum. Terms from
    `add_loss` and regularisers are no task: they are added after the
    combination, unmasked.

    Args:
        trunk: A functional `keras.Model` from the inputs to the activations
            A: a tensor, or a list with one tensor for each loss where they
            are batch separated.
        heads: A functional `keras.Model` from A to the outputs: a tensor, or
            a list or flat dict of tensors.
        recipe: A `gd.Recipe`; the plain sum by default.
        loss_chunk_size: How many per-loss gradients may exist at once, to
            bound memory; all of them by default.
        **kwargs: `name`, `trainable`, `dtype`.

    Raises:
        ValueError: Where trunk and heads do not fit, or the recipe cannot
            work in chunks.

    Example:
        >>> model = gd.MultiLossModel(
        ...     trunk, heads, recipe=gd.Recipe.parse("graddrop(leak=0.2)")
        ... )
        >>> model.compile("adam", loss=["mse", "mse"])
        >>> model.fit(x, [y_a, y_b])
    """

    def __init__(
        self,
        trunk: keras.Model,
        heads: keras.Model,
        recipe: Recipe | None = None,
        loss_chunk_size: int | None = None,
        **kwargs,
    ):
        _check_parts(trunk, heads)
        recipe = Recipe() if recipe is None else recipe
        if not isinstance(recipe, (Recipe, RecipeState)):
            raise ValueError(
                "`recipe` takes a gd.Recipe; `gd.Recipe.parse` reads text. "
                f"Received: {recipe!r} of type {type(recipe).__name__}."
            )
        inputs = keras.tree.map_structure(
            lambda x: keras.Input(
                batch_shape=x.shape, dtype=x.dtype, name=x.name
            ),
            trunk.input,
        )
        super().__init__(inputs, heads(trunk(inputs)), **kwargs)
        self.output_names = _output_names(heads)
        self.trunk = trunk
        self.heads = heads
        self.recipe_state = (
            recipe if isinstance(recipe, RecipeState) else RecipeState(recipe)
        )
        self.loss_chunk_size = loss_chunk_size
        self._check_chunks()
        fitting.train_on_replicas(self)

    @property
    def recipe(self) -> Recipe:
        """The recipe that the model trains by."""
        return self.recipe_state.recipe

    def _check_chunks(self) -> None:
        size = self.loss_chunk_size
        if size is None:
            return
        check_count("loss_chunk_size", size)
        if linalg.is_separate(self.trunk.output):
            raise ValueError(
                "`loss_chunk_size` is for losses that share their "
                "activations. Received: a trunk with batch-separated outputs."
            )
        if self.recipe_state.combiner.streaming() is None:
            raise ValueError(
                f"The recipe {str(self.recipe)!r} needs all gradients at once "
                "and cannot work in chunks. Received: loss_chunk_size="
                f"{size}."
            )

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Configures training, as `keras.Model.compile` does.

        Args:
            optimizer: As in Keras. The recipe's clipping is attached to it.
            loss: One Keras loss for each output, or a `gd.VectorLoss`.
            loss_weights: As in Keras; for a `gd.VectorLoss` a number, one for
                each loss, or a dict by name.
            metrics: As in Keras.
            weighted_metrics: As in Keras.
            run_eagerly: As in Keras.
            steps_per_execution: As in Keras.
            jit_compile: As in Keras; not with several replicas.
            auto_scale_loss: As in Keras.

        Raises:
            ValueError: Where the losses do not fit the outputs or the recipe,
                or XLA is asked for with several replicas.
        """
        several = self.distribute_strategy.num_replicas_in_sync > 1
        if several and jit_compile is True:
            raise ValueError(
                "`jit_compile=True` works with one replica only: leave it at "
                "'auto' under a strategy of "
                f"{self.distribute_strategy.num_replicas_in_sync} replicas."
            )
        if (
            isinstance(loss, vector_loss.VectorLoss)
            and loss_weights is not None
        ):
            loss = loss.with_loss_weights(loss_weights)
            loss_weights = None
        names = self._loss_names(loss)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        if loss is not None:
            self._compile_loss = vector_loss.PerLossCompileLoss(
                loss, loss_weights, self.output_names, names
            )
            with self.distribute_strategy.scope():
                self.recipe_state.set_losses(len(names), names)
        clipping.clip_after_reduction(
            self.optimizer, self.recipe.global_clipnorm
        )

    def compile_from_config(self, config):
        """Compiles a loaded model as it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def _loss_names(self, loss) -> list[str]:
        """Returns the losses' names in the order of the outputs."""
        outputs = self.output_names
        if isinstance(loss, vector_loss.VectorLoss):
            names = self._vector_loss_names(loss)
        elif isinstance(loss, dict):
            unknown = sorted(set(loss) - set(outputs))
            if unknown:
                raise ValueError(
                    f"There is no output for the losses {unknown}. The "
                    f"outputs are {outputs}."
                )
            names = [n for n in outputs if loss.get(n) is not None]
        elif isinstance(loss, (list, tuple)):
            if len(loss) != len(outputs):
                raise ValueError(
                    "`loss` must be one for each output, or one for all. "
                    f"Received: {len(loss)} losses for the outputs {outputs}."
                )
            pairs = zip(outputs, loss, strict=True)
            names = [n for n, item in pairs if item is not None]
        else:
            names = outputs
        separate = linalg.is_separate(self.trunk.output)
        if loss is not None and separate:
            count = len(self.trunk.output)
            if len(names) != count:
                raise ValueError(
                    "Batch-separated activations need one loss for each. "
                    f"Received: {len(names)} losses for {count} activations."
                )
        return names

    def _vector_loss_names(self, loss) -> list[str]:
        if len(self.outputs) != 1:
            raise ValueError(
                "A gd.VectorLoss takes a model with one output. Received: "
                f"the outputs {self.output_names}."
            )
        if linalg.is_separate(self.trunk.output):
            raise ValueError(
                "Batch-separated activations need one Keras loss for each. "
                "Received: a gd.VectorLoss."
            )
        if loss.names is not None:
            return list(loss.names)
        count = self.outputs[0].shape[-1]
        if count is None:
            raise ValueError(
                "Give the gd.VectorLoss `names`: the last dimension of the "
                f"output is unknown, of shape {self.outputs[0].shape}."
            )
        return [str(i) for i in range(count)]

    def train_step(self, data):
        """Runs one step: forward, gradients by loss, combine, update."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = keras.tree.map_structure(_as_tensor, x)
        with penalty.GradientPenalty(
            self.recipe.gradient_penalty, x
        ) as input_penalty:
            # A persistent tape would be slow over a recurrent trunk.
            with tf.GradientTape() as trunk_tape:
                activations = self.trunk(x, training=True)
                trunk_terms = _added_losses(self.trunk)
            with (
                tf.GradientTape(persistent=True) as heads_tape,
                tf.GradientTape(
                    persistent=True, watch_accessed_variables=False
                ) as activations_tape,
            ):
                activations_tape.watch(activations)
                y_pred = self.heads(activations, training=True)
                task_losses = self.per_loss_values(y, y_pred, sample_weight)
                heads_terms = _added_losses(self.heads)
            penalty_term = input_penalty.compute(task_losses)

        state = self.recipe_state
        scale = self.optimizer.scale_loss(tf.ones([]))
        weights = gradients.weights_of(state, task_losses)
        combined, norms = gradients.combine_gradients(
            state,
            activations_tape,
            task_losses,
            activations,
            weights * scale,
            self.loss_chunk_size,
            batched=not self._heads_reduce_over_replicas(),
        )
        combined = _add_unmasked(
            combined, activations_tape, heads_terms, activations, scale
        )

        variables = self.trainable_variables
        grads = _SumOfGradients(variables)
        grads.add(
            self.trunk.trainable_variables,
            lambda sources: trunk_tape.gradient(
                [activations, trunk_terms],
                sources,
                output_gradients=[combined, _seeds(trunk_terms, scale)],
            ),
        )
        grads.add(
            self.heads.trainable_variables,
            lambda sources: gradients.gradients_of_sum(
                heads_tape, task_losses, sources, weights * scale
            ),
        )
        if heads_terms:
            grads.add(
                self.heads.trainable_variables,
                lambda sources: heads_tape.gradient(
                    heads_terms,
                    sources,
                    output_gradients=_seeds(heads_terms, scale),
                ),
            )
        if penalty_term is not None:
            grads.add(
                variables,
                lambda sources: input_penalty.gradients(sources, scale),
            )
        if variables:
            self.optimizer.apply_gradients(
                zip(grads.values(), variables, strict=True)
            )
        gradients.update_weighting(state, task_losses, norms, weights * scale)

        total = tf.reduce_sum(gradients.as_vector(task_losses))
        for term in [*trunk_terms, *heads_terms, penalty_term]:
            if term is not None:
                total += tf.cast(term, total.dtype)
        self._loss_tracker.update_state(
            replicas.unscale_loss(total), sample_weight=_batch_size(x)
        )
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _heads_reduce_over_replicas(self) -> bool:
        """Whether the heads' backward pass sums over replicas."""
        return replicas.num_replicas() > 1 and any(
            getattr(layer, "synchronized", False)
            for layer in self.heads._flatten_layers()
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
                "Training needs losses: give `loss` to `compile`. Received: "
                "none."
            )
        return self._compile_loss.per_loss(y, y_pred, sample_weight)

    def get_config(self):
        """Returns trunk, heads, and the recipe's layers as built."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trunk": serialize(self.trunk),
            "heads": serialize(self.heads),
            "recipe": serialize(self.recipe_state),
            "loss_chunk_size": self.loss_chunk_size,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Rebuilds the model from `get_config`."""
        parts = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in ("trunk", "heads", "recipe")
        }
        return cls(**{**config, **parts})


class _SumOfGradients:
    """Gradients of several terms, summed by variable."""

    def __init__(self, variables):
        self._sums = {v.path: None for v in variables}

    def add(self, variables, gradients_of) -> None:
        """Adds `gradients_of(variables)`; None counts as zero."""
        variables = [v for v in variables if v.path in self._sums]
        if not variables:
            return
        grads = gradients_of([v.value for v in variables])
        for variable, gradient in zip(variables, grads, strict=True):
            before = self._sums[variable.path]
            if before is None or gradient is None:
                total = before if gradient is None else gradient
            else:
                total = tf.convert_to_tensor(before) + gradient
            self._sums[variable.path] = total

    def values(self):
        """Returns the sums in the order of the variables."""
        return list(self._sums.values())


def _added_losses(part: keras.Model) -> list[tf.Tensor]:
    """Returns regularisers and `add_loss` terms, as Keras scales them."""
    terms = [tf.reduce_sum(keras.ops.convert_to_tensor(t)) for t in part.losses]
    return [replicas.scale_loss(t) for t in terms]


def _seeds(terms, scale: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(scale, term.dtype) for term in terms]


def _add_unmasked(combined, tape, terms, activations, scale):
    """Adds the gradient of terms that are no task."""
    if not terms:
        return combined
    added = tape.gradient(
        terms,
        activations,
        output_gradients=_seeds(terms, scale),
        unconnected_gradients="zero",
    )
    return keras.tree.map_structure(tf.add, combined, added)


def _as_tensor(x):
    return x if x is None else tf.convert_to_tensor(x)


def _batch_size(x) -> tf.Tensor:
    first = next(t for t in keras.tree.flatten(x) if t is not None)
    return tf.shape(first)[0]


def _check_parts(trunk, heads) -> None:
    for name, part in (("trunk", trunk), ("heads", heads)):
        if not isinstance(part, keras.Model) or not getattr(
            part, "inputs", None
        ):
            raise ValueError(
                f"`{name}` must be a functional keras.Model, built from "
                f"keras.Input. Received: {part!r} of type "
                f"{type(part).__name__}."
            )
    trunk_layers = {id(layer): layer for layer in trunk._flatten_layers()}
    shared = [
        layer.name
        for layer in heads._flatten_layers()
        if id(layer) in trunk_layers and layer.weights
    ]
    if shared:
        raise ValueError(
            "A layer with weights belongs to the trunk or to the heads. "
            f"Received: {shared} in both."
        )
    produced, taken = (
        keras.tree.flatten(t) for t in (trunk.output, heads.input)
    )
    if len(produced) != len(taken) or any(
        not _compatible(p.shape, t.shape)
        for p, t in zip(produced, taken, strict=False)
    ):
        raise ValueError(
            "`heads` must take what `trunk` gives. Received: trunk outputs "
            f"of shapes {[tuple(t.shape) for t in produced]}, heads inputs "
            f"of shapes {[tuple(t.shape) for t in taken]}."
        )


def _compatible(a, b) -> bool:
    return tf.TensorShape(a).is_compatible_with(tf.TensorShape(b))


def _output_names(heads: keras.Model) -> list[str]:
    output = heads.output
    if isinstance(output, dict):
        # Keras orders a dict of outputs by key.
        return sorted(output)
    return list(heads.output_names)
