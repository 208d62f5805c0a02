"""A Keras model in two parts, functional where its inputs are known."""

from __future__ import annotations

import contextlib
import functools

import keras
import tensorflow as tf

# Keras offers this class only by way of `keras.Model(inputs, outputs)`, which
# would make every model of a subclass functional.
from keras.src.models.functional import Functional

from graddrop_tf import cloning, fitting, input_layers, parts


class TrunkAndHeads(keras.Model):
    """A trunk, and the heads on its activations.

    Where the trunk knows its inputs the model is functional. Otherwise it
    is like a subclassed Keras model: the first batch builds it.

    Args:
        trunk: A Keras model or layer from the inputs to the activations.
        heads: A Keras model or layer from the activations to the outputs.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If trunk and heads do not fit, or for other arguments.
    """

    # The model's graph would not follow them.
    fixed_arguments = ("trunk", "heads")

    def __init__(
        self, trunk: keras.layers.Layer, heads: keras.layers.Layer, **kwargs
    ):
        if type(self).call not in (TrunkAndHeads.call, _call_functional):
            raise ValueError(
                "`call` takes no part in training: what it does belongs to the "
                "trunk or the heads, or to `train_step`. Received: "
                f"{type(self).__name__}, which has a `call` of its own."
            )
        _check_names(kwargs)
        parts.check_parts(trunk, heads)
        # The trunk's own inputs: sparse, ragged or optional as they are.
        inputs, activations = parts.inputs_of(trunk), None
        if inputs is None:
            super().__init__(**kwargs)
        else:
            # Past Keras, as are the attributes below: it would track them.
            object.__setattr__(self, "__class__", _functional(type(self)))
            activations = trunk(inputs)
            super().__init__(inputs, heads(activations), **kwargs)
            self.output_names = parts.list_outputs(self, heads)
            if not isinstance(trunk, keras.Sequential):
                # Of a list of one tensor Keras gives the tensor.
                activations = trunk.output
        object.__setattr__(self, "_activations", activations)
        handed_on = parts.list_handed_on(activations)
        object.__setattr__(self, "_handed_on", handed_on)
        object.__setattr__(self, "_input_layers", None)
        self.trunk = trunk
        self.heads = heads

    def __setattr__(self, name: str, value):
        """Sets an attribute; refuses another trunk or other heads."""
        if (
            name in self.fixed_arguments
            and vars(self).get(name, value) is not value
        ):
            raise AttributeError(
                f"`{name}` of {type(self).__name__} cannot change: make a new "
                f"one. Received: {name}={value!r}."
            )
        super().__setattr__(name, value)

    @property
    def is_functional(self) -> bool:
        """Whether the inputs were known when the model was made."""
        return isinstance(self, Functional)

    @property
    def layers(self):
        """The layers, as in Keras: of a functional model, its inputs too."""
        if self.is_functional:
            return super().layers
        return [self.trunk, self.heads]

    def call(self, inputs, training=None, mask=None):
        """Returns the outputs of the heads."""
        # Keras hands `training` on, and masks with the inputs.
        del mask
        self._note(inputs)
        return self.watch_outputs(self.heads(self.trunk(inputs)), training)

    def compute_output_spec(self, *args, **kwargs):
        """Returns the shapes and dtypes of the outputs."""
        if self.is_functional:
            return super().compute_output_spec(*args, **kwargs)
        # Past `Layer`, which would ask for the shapes alone.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, input_shape):
        """Returns the shapes of the outputs."""
        inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
        outputs = self.compute_output_spec(inputs)
        return keras.tree.map_structure(lambda t: t.shape, outputs)

    def watch_outputs(self, outputs, training):
        """Returns what a call gives, for a subclass to watch."""
        del training
        return outputs

    def make_train_function(self, force=False):
        """Makes the function of a step, as in Keras."""
        fitting.build_optimizer(self)
        return super().make_train_function(force)

    def build_on(self, x) -> None:
        """Creates the weights that are missing, as far as it can.

        Args:
            x: A batch of inputs.
        """
        if self.is_functional:
            return
        self._note(x)
        if self.built:
            return
        # Some code runs on tensors with values alone: the step will build it.
        with contextlib.suppress(Exception):
            self(keras.tree.map_structure(input_layers.symbol, x))

    def trained(self, given, inputs=None, as_list: bool = False):
        """Returns what the trunk gives without what it only hands on.

        Heads may read inputs as well, by way of the trunk. These depend on no
        weights, and losses have no conflict there.

        Args:
            given: What the trunk gives.
            inputs: Its inputs; None where `given` is symbolic.
            as_list: Whether `given` is a list with a part for each loss.

        Returns:
            `given`, or a list of those of its tensors that are trained, or
            the only one.

        Raises:
            ValueError: If one of these is sparse or ragged.
        """
        if self.is_functional:
            blocks = tf.nest.flatten(given)
            given = tf.nest.pack_sequence_as(self._activations, blocks)
            handed_on = self._handed_on
        else:
            known = {id(x) for x in tf.nest.flatten(inputs)}
            handed_on = [
                id(block) in known or not parts.is_differentiable(block)
                for block in tf.nest.flatten(given)
            ]
        if all(handed_on):
            # Without weights in front of them they are the place all the same.
            handed_on = [False] * len(handed_on)
        parts.check_dense(given, handed_on)
        if as_list and isinstance(given, (list, tuple)):
            marks = tf.nest.pack_sequence_as(given, handed_on)
            return [
                parts.without(part, tf.nest.flatten(of_part))
                for part, of_part in zip(given, marks, strict=True)
            ]
        return parts.without(given, handed_on)

    def _note(self, x) -> None:
        known = input_layers.of(x, self._input_layers)
        object.__setattr__(self, "_input_layers", known)

    def symbolic_inputs(self):
        """Returns inputs like those of the batches that the model has seen.

        Raises:
            ValueError: If the model has seen no inputs.
        """
        if self._input_layers is None:
            raise ValueError(
                "The model does not know its inputs yet: call it on a batch. "
                f"Received: {self.name!r}, which was never called."
            )
        return input_layers.outputs(self._input_layers)

    def get_config(self):
        """Returns trunk and heads."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trunk": serialize(self.trunk),
            "heads": serialize(self.heads),
        }

    def get_build_config(self):
        """Returns what is known of the inputs."""
        if self.is_functional or self._input_layers is None:
            return super().get_build_config()
        serialize = keras.saving.serialize_keras_object
        return {"inputs": serialize(self._input_layers)}

    def build_from_config(self, config):
        """Builds a loaded model as it was built."""
        if "inputs" not in config:
            super().build_from_config(config)
            return
        known = keras.saving.deserialize_keras_object(config["inputs"])
        self(input_layers.outputs(known))

    def _obj_type(self):
        # Both forms write their weights in the same places of a file: a trunk
        # that was built by a batch knows its inputs once it is loaded.
        return "Functional"


def _check_names(kwargs) -> None:
    """Raises ValueError for arguments that Keras would drop."""
    unknown = sorted({*kwargs} - {"name", "trainable"})
    if "dtype" in unknown:
        raise ValueError(
            "The layers of trunk and heads have dtypes of their own. "
            f"Received: dtype={kwargs['dtype']!r}."
        )
    if unknown:
        raise ValueError(f"Unknown arguments. Received: {unknown}.")


def _call_functional(self, inputs, training=None, mask=None, **kwargs):
    """Returns the outputs of the model's graph."""
    outputs = Functional.call(
        self, inputs, training=training, mask=mask, **kwargs
    )
    return self.watch_outputs(outputs, training)


@functools.cache
def _functional(cls: type) -> type:
    """Returns the functional form of a class, under the same names."""
    if issubclass(cls, Functional):
        return cls

    def reduce(self):
        # Found by its name, the class is the original.
        unpickle, arguments = super(form, self).__reduce__()
        return getattr(cls, unpickle.__name__), arguments

    def new(made, *args, **kwargs):
        if cloning.source_of(args) is None:
            return super(form, made).__new__(made, *args, **kwargs)
        return cls.from_config(cloning.config_of(args))

    def init(self, *args, **kwargs):
        if cloning.source_of(args) is None:
            super(form, self).__init__(*args, **kwargs)
        else:
            cloning.unmark(args)

    def run_through_graph(self, *args, **kwargs):
        outputs = super(form, self)._run_through_graph(*args, **kwargs)
        return cloning.mark(outputs, self)

    names = ("__module__", "__qualname__", "__doc__")
    body = {name: getattr(cls, name) for name in names}
    if cls.call is TrunkAndHeads.call:
        body["call"] = _call_functional
    form = type(cls.__name__, (cls, Functional), body)
    form.__reduce__ = reduce
    form.__new__, form.__init__ = new, init
    form._run_through_graph = run_through_graph
    registered = keras.saving.get_registered_name(cls)
    if registered != cls.__name__:
        package, name = registered.rsplit(">", 1)
        for known in (form, cls):
            register = keras.saving.register_keras_serializable(package, name)
            register(known)
    return form
