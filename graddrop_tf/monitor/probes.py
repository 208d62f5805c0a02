"""Where a gradient monitor finds the gradients of the losses in a model."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from graddrop_tf import random, replicas
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.inference import has_combiner
from graddrop_tf.methods.graddrop.layer import SignDropout
from graddrop_tf.model import MultiLossModel
from graddrop_tf.places import Place, Structure
from graddrop_tf.step import losses as losses_lib
from graddrop_tf.step.forward import distinct
from graddrop_tf.step.gradients import LossGradients


@dataclasses.dataclass(frozen=True)
class Measured:
    """The gradients of the losses where a combiner combines them.

    Attributes:
        name: Name of the combiner; "" in a `gd.MultiLossModel`.
        combiner: The layer that combines them.
        scope: Where the combiner's random draws begin.
        place: The activations.
        gradients: T gradients.
        weights: The weights of the losses by their names; empty without a
            weighting.
    """

    name: str
    combiner: Combiner
    scope: random.Scope
    place: Place
    gradients: list[Structure]
    weights: Mapping[str, tf.Tensor] = dataclasses.field(default_factory=dict)


class Probe(abc.ABC):
    """Computes the per-loss gradients at all combiners of a model."""

    @abc.abstractmethod
    def check(self, graddrop: SignDropout) -> None:
        """Checks that a layer fits the losses, and tells it their names.

        Does nothing where the first batch has yet to tell them.

        Raises:
            ValueError: If it does not fit.
        """

    @abc.abstractmethod
    def measure(self, x, y, sample_weight, factor: tf.Tensor) -> list[Measured]:
        """Runs a batch through the model as in training.

        Args:
            x: Inputs.
            y: Labels.
            sample_weight: Weights of the samples, or None.
            factor: What to multiply the losses by.

        Returns:
            The gradients at each combiner.
        """


def make_probe(
    model: keras.Model, at: str | Sequence[str] | None = None
) -> Probe:
    """Returns the probe for a compiled model.

    Args:
        model: A `gd.MultiLossModel`, a functional model with combiners, or
            one without, that is measured `at` a layer.
        at: As in `gd.GradientMonitor`.

    Returns:
        A `Probe`.

    Raises:
        ValueError: If the model is none of these, or has no such layer.
    """
    if at is not None:
        return _ModelProbe(_cut(model, at))
    if isinstance(model, MultiLossModel):
        return _ModelProbe(model)
    return _LayerProbe(model)


def _cut(model: keras.Model, at: str | Sequence[str]) -> MultiLossModel:
    """Returns a model of the same layers and losses, cut at some of them."""
    compiled = model._compile_loss
    if compiled is None:
        raise ValueError(
            "A gd.GradientMonitor needs the losses of `compile`. Received: the "
            f"model {model.name!r}, which has none."
        )
    with model.distribute_strategy.scope():
        cut = MultiLossModel.from_model(model, at, name=f"{model.name}_cut")
        cut.compile(
            keras.optimizers.SGD(name="unused"),
            compiled._user_loss,
            compiled._user_loss_weights,
        )
    return cut


class _ModelProbe(Probe):
    """Measures at the activations of a compiled `gd.MultiLossModel`."""

    def __init__(self, model: MultiLossModel):
        self._model = model

    def check(self, graddrop):
        names = self._model.recipe_state.loss_names
        if names is not None:
            graddrop.set_losses(len(names), names)

    def measure(self, x, y, sample_weight, factor):
        model, state = self._model, self._model.recipe_state
        given = distinct(model.trunk(x, training=True))
        place = model.place_of(given, x)
        with tf.GradientTape(
            persistent=True, watch_accessed_variables=False
        ) as tape:
            tape.watch(place.activations)
            y_pred = model.heads(given, training=True)
            values = model.per_loss_values(y, y_pred, sample_weight)
            losses = losses_lib.of(values)
        # In the scope of a strategy they are divided by its replicas.
        whole = replicas.unscale_loss(state.global_losses(losses))
        with state.drawing() as scope:
            weights = state.loss_weights(whole)
        per_loss = LossGradients(tape, losses, place, weights * factor)
        gradients = per_loss.of(range(per_loss.num_losses))
        by_name = {}
        if state.weighting is not None:
            names = state.loss_names
            by_name = dict(zip(names, tf.unstack(weights), strict=True))
        return [Measured("", state.combiner, scope, place, gradients, by_name)]


class _LayerProbe(Probe):
    """Measures at the combiners in a functional Keras model."""

    def __init__(self, model: keras.Model):
        self._model = model
        self._nums_losses: list[int] = []
        if hasattr(model, "operations"):
            self._tapped = self._with_taps(model)
        if not self._nums_losses:
            raise ValueError(
                "A gd.GradientMonitor needs a gd.MultiLossModel, a functional "
                "model with combiners such as gd.GradDrop in it, or the name "
                'of a layer, `at="..."`. Received: at=None and the model '
                f"{model.name!r}, which is neither."
            )

    def _with_taps(self, model: keras.Model) -> keras.Model:
        def share(layer):
            return self._with_taps(layer) if has_combiner(layer) else layer

        def call(layer, *args, **kwargs):
            if not isinstance(layer, Combiner):
                return layer(*args, **kwargs)
            name = f"{layer.name}_tap_{len(self._nums_losses)}"
            given = _Tap(layer, self._record, name=name)(args[0])
            branches = layer.branches_of(args[0], given)
            self._nums_losses.append(len(branches))
            return given

        # A clone of a compiled model would bring a second optimizer.
        plain = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(
            plain, plain.input, clone_function=share, call_function=call
        )

    def _record(self, combiner, step, place, branches) -> None:
        self._tape.watch(branches)
        self._calls.append((combiner, step, place, branches))

    def check(self, graddrop):
        for num_losses in self._nums_losses:
            graddrop.set_losses(num_losses)

    def measure(self, x, y, sample_weight, factor):
        self._calls = []
        self._tape = tf.GradientTape(watch_accessed_variables=False)
        with self._tape:
            y_pred = self._tapped(x, training=True)
            loss = self._model.compute_loss(x, y, y_pred, sample_weight)
        gradients = self._tape.gradient(
            loss,
            [branches for *_, branches in self._calls],
            output_gradients=tf.cast(factor, loss.dtype),
            unconnected_gradients="zero",
        )
        measured = [
            Measured(
                combiner.name,
                combiner,
                random.Scope(step),
                place,
                tf.nest.map_structure(tf.convert_to_tensor, arrived),
            )
            for (combiner, step, place, _), arrived in zip(
                self._calls, gradients, strict=True
            )
        ]
        del self._tape, self._calls
        return measured


class _Tap(keras.layers.Layer):
    """Calls a combiner and shows the branches that it gives the losses.

    Args:
        combiner: The combiner.
        show: Called with the combiner, its step, its place, and the branches
            that it gives.
        **kwargs: `name`.
    """

    def __init__(self, combiner: Combiner, show: Callable, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.supports_masking = True
        self._combiner = combiner
        self._show = show

    def call(self, inputs):
        step = tf.identity(self._combiner.step.value)
        given = self._combiner(inputs, training=True)
        place = self._combiner.place_of(inputs)
        branches = self._combiner.branches_of(inputs, given)
        self._show(self._combiner, step, place, branches)
        return given

    def compute_output_spec(self, inputs):
        return self._combiner.compute_output_spec(inputs)

    def compute_mask(self, inputs, previous_mask=None):
        return self._combiner.compute_mask(inputs, previous_mask)
