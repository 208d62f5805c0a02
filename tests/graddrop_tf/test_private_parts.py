"""The library relies on private parts of Keras and TensorFlow: these alone.

A newer Keras may take one away or change it: a test then fails with its name
and the files that use it.
"""

import ast
import importlib
import inspect
import operator
import typing
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.graddrop_tf.foreign_names import foreign_names, foreign_parts

# A check that a value has these attributes.
_has = operator.attrgetter


def _dense():
    layer = keras.layers.Dense(1)
    layer(keras.Input([1]))
    return layer


def _sequential():
    return keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])


def _compiled():
    inputs = keras.Input([1])
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", loss="mse")
    return model


def _compiled_loss():
    module = importlib.import_module("keras.src.trainers.compile_utils")
    loss = module.CompileLoss("mse", None)
    loss.build(tf.zeros([1, 1]), tf.zeros([1, 1]))
    return loss


def _optimizer():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    optimizer.build([keras.Variable(1.0)])
    return optimizer


def _iterator_of_fit():
    """Returns what `fit` gives the symbolic build, which we replace."""
    name, model, seen = "_maybe_symbolic_build", _compiled(), []
    build = getattr(model, name)

    def record(**kwargs):
        seen.append(kwargs["iterator"])
        build(**kwargs)

    object.__setattr__(model, name, record)
    model.fit(np.ones([1, 1]), np.ones([1, 1]), verbose=0)
    return seen[0]


def _spec_of_replicas():
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    data = tf.data.Dataset.from_tensors(tf.zeros([2])).batch(2)
    return strategy.experimental_distribute_dataset(data).element_spec


class _Both:
    """Two layers, whose attributes are lists of those of each."""

    def __init__(self, *layers):
        self.layers = layers

    def __getattr__(self, name):
        return [getattr(layer, name) for layer in self.layers]


def _entry_layer(context):
    """Returns the name of the layer by which a call entered."""
    seen = []

    class Inner(keras.layers.Layer):
        def call(self, inputs):
            seen.append(context().entry_layer.name)
            return inputs

    inputs = keras.Input([1])
    model = keras.Model(inputs, Inner()(inputs), name="entered")
    model(tf.zeros([1, 1]))
    return seen[-1]


def _takes(*args, **kwargs):
    """Returns a check that a function takes these arguments."""
    return lambda function: inspect.signature(function).bind(*args, **kwargs)


class Part(typing.NamedTuple):
    """A private name, what has it, and a check of its value.

    The check returns something true, unless it raises.
    """

    name: str
    owner: Callable
    check: Callable = lambda value: True


_PARTS = [
    Part(
        "keras.src.models.functional.Functional",
        lambda: importlib.import_module("keras.src.models.functional"),
        lambda cls: type(_compiled()) is cls and cls.__name__ == "Functional",
    ),
    Part(
        "keras.src.trainers.compile_utils.CompileLoss",
        lambda: importlib.import_module("keras.src.trainers.compile_utils"),
        _takes("mse", None, output_names=["a"]),
    ),
    Part(
        "keras.src.backend.common.global_state.get_global_attribute",
        lambda: importlib.import_module(
            "keras.src.backend.common.global_state"
        ),
        lambda get: _entry_layer(lambda: get("current_call_ctx")) == "entered",
    ),
    Part(
        "_call_has_training_arg",
        lambda: _Both(keras.layers.Dropout(0.5), keras.layers.Flatten()),
        lambda has: has == [True, False],
    ),
    # The graph of a functional model.
    Part(
        "_keras_history",
        lambda: keras.layers.Dense(1)(keras.Input([1])),
        lambda history: (
            isinstance(history[0], keras.layers.Dense) and history[1:] == (0, 0)
        ),
    ),
    Part(
        "_inbound_nodes",
        _dense,
        lambda nodes: _has(
            "operation",
            "is_input",
            "input_tensors",
            "outputs",
            "arguments.args",
            "arguments.kwargs",
        )(nodes[0]),
    ),
    Part("_call_context_args", _dense, lambda names: "training" in names),
    Part(
        "_run_through_graph",
        _compiled,
        _takes([], operation_fn=None, call_fn=None),
    ),
    Part("_functional", _sequential, _has("operations", "inputs", "outputs")),
    Part(
        "_flatten_layers",
        _sequential,
        lambda layers: [
            x for x in layers() if isinstance(x, keras.layers.Dense)
        ],
    ),
    Part(
        "_keras_mask",
        lambda: keras.layers.Masking()(tf.zeros([1, 2, 1])),
        lambda mask: mask.shape == (1, 2),
    ),
    Part("_obj_type", _compiled, lambda of: of() == "Functional"),
    # Layers and their variables.
    Part("_build_shapes_dict", _dense),
    Part("_trainable_variables", _dense, lambda found: len(found) == 2),
    Part("_non_trainable_variables", _dense, lambda found: found == []),
    Part("_trackable_children", _dense, _takes("checkpoint")),
    Part("_track_trackable", _dense, _takes(None, "name")),
    Part("_handle_deferred_dependencies", _dense, _takes("name", None)),
    # The losses of `compile`.
    Part("_compile_loss", _compiled, _has("build", "call", "metrics")),
    Part("_loss_tracker", _compiled, _has("update_state")),
    Part("_user_loss", _compiled_loss, lambda loss: loss == "mse"),
    Part("_user_loss_weights", _compiled_loss, lambda loss: loss is None),
    Part(
        "_flat_losses",
        _compiled_loss,
        lambda terms: _has("path", "loss", "loss_weights", "name", "_replace")(
            terms[0]
        ),
    ),
    Part("_metrics", _compiled_loss, _has("clear")),
    Part("_tracker", _compiled_loss, _has("add_to_store")),
    # `fit` on several replicas.
    Part(
        "_maybe_symbolic_build",
        _compiled,
        _takes(iterator=None, data_batch=None),
    ),
    Part("_symbolic_build", _compiled, _takes(data_batch=None)),
    Part("_autoconvert_optionals", _compiled, _takes(lambda data: data)),
    Part("_distributed_dataset", _iterator_of_fit, _has("element_spec")),
    Part("_value_specs", _spec_of_replicas, lambda specs: len(specs) == 2),
    # Optimizers.
    Part("_all_reduce_sum_gradients", _optimizer, _takes([])),
    Part("_backend_apply_gradients", _optimizer, _takes([], [])),
    Part("_backend_update_step", _optimizer, _takes([], [], 0.1)),
    Part("_apply_weight_decay", _optimizer, _takes([])),
    Part("_clip_gradients", _optimizer, _takes([])),
    Part("_accumulated_gradients", _optimizer, lambda sums: len(sums) == 1),
    Part("_get_variable_index", _optimizer, _takes(None)),
    Part(
        "_backend_increment_gradient_accumulators", _optimizer, _takes([], [])
    ),
    Part("_backend_reset_gradient_accumulators", _optimizer, _takes()),
    Part("_iterations", _optimizer, _has("assign_add")),
    Part("_persistent", lambda: tf.GradientTape(persistent=True)),
]


@pytest.mark.parametrize("part", _PARTS, ids=lambda part: part.name)
def test_a_private_part_is_as_we_use_it(part):
    attribute = part.name.rpartition(".")[2]
    try:
        works = part.check(getattr(part.owner(), attribute))
    except Exception as error:
        works, cause = False, repr(error)
    else:
        cause = "its value is another"
    users = sorted(foreign_parts().get(part.name, ()))
    assert works, f"{part.name} is gone or has changed: {cause}. Users: {users}"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from keras.src.layers import Dense", ["keras.src.layers.Dense"]),
        ("from keras import src", ["keras.src"]),
        ("model._loss", ["_loss"]),
        ("NAME = '_loss'\ngetattr(model, NAME)", ["_loss"]),
        ("object.__setattr__(model, '_loss', 0)", ["_loss"]),
        ("self._theirs; super()._ours; self.__dict__", ["_theirs"]),
        ("class C:\n  def _own(self, other): other._own()", []),
    ],
)
def test_a_private_name_is_seen(source, found):
    assert [*foreign_names(ast.parse(source), {"_ours"})] == found


def test_the_table_has_all_private_parts_that_we_use():
    found = {name: sorted(files) for name, files in foreign_parts().items()}
    known = {part.name for part in _PARTS}
    assert len(known) == len(_PARTS)
    missing = {name: found[name] for name in {*found} - known}
    assert not missing, f"used, but not in the table: {missing}"
    assert not known - {*found}, "in the table, but not used"
