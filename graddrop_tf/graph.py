"""The graph of a functional model: its calls of layers, in order.

Keras keeps a graph in the histories of its symbolic tensors. A walk follows
them backward; a replay calls the same layers, with their weights, on other
tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

import keras


@dataclasses.dataclass
class Graph:
    """The calls of a functional model.

    Attributes:
        inputs: Its inputs, in their structure.
        outputs: Its outputs, in their structure.
        output_names: The names of its outputs.
        calls: The output tensors of each layer, for every call of it, by the
            path of its name.
        paths: The path of the layer that each node calls, by the node's id.
    """

    inputs: Any
    outputs: Any
    output_names: list[str]
    calls: dict[str, list[list[keras.KerasTensor]]]
    paths: dict[int, str]

    @classmethod
    def of(cls, model: keras.Model, opened: Collection[str] = ()) -> Graph:
        """Calls the layers of a model once more, on its own inputs.

        Args:
            model: A functional model.
            opened: Paths of nested models, whose layers are called in their
                place.

        Returns:
            The new graph, which shares all layers with the model.
        """
        graph = cls(model.input, None, list(model.output_names), {}, {})
        outputs = graph._add(model, model.inputs, "", opened, {})
        graph.outputs = keras.tree.pack_sequence_as(model.output, outputs)
        return graph

    def path_of(self, tensor: keras.KerasTensor) -> str:
        """Returns the path of the layer that gives a tensor."""
        return self.paths[id(node_of(tensor))]

    def _add(self, model, values, prefix, opened, context):
        """Calls the layers of a model on `values`; returns its flat outputs.

        `context` has the arguments, such as `training`, that a nested model
        was called with; Keras gives them to all layers in it.
        """
        tensors = {id(t): v for t, v in zip(model.inputs, values, strict=True)}
        calls: dict[str, list] = {}
        for node in walk(model.outputs)[0]:
            if node.is_input:
                continue
            layer, path = node.operation, prefix + node.operation.name
            args, kwargs = _arguments(node, tensors)
            known = getattr(layer, "_call_context_args", ())
            kwargs.update({k: v for k, v in context.items() if k in known})
            if path in opened:
                inner = functional_of(layer)
                given, inner_context = _call_of_model(inner, args, kwargs)
                outputs = self._add(
                    inner, given, f"{path}/", opened, inner_context
                )
            else:
                outputs = keras.tree.flatten(layer(*args, **kwargs))
                self.paths[id(node_of(outputs[0]))] = path
            order = layer._inbound_nodes.index(node)
            calls.setdefault(path, []).append((order, outputs))
            pairs = zip(node.outputs, outputs, strict=True)
            tensors.update({id(old): new for old, new in pairs})
        for path, found in calls.items():
            found.sort(key=lambda call: call[0])
            self.calls.setdefault(path, []).extend(o for _, o in found)
        return [tensors[id(t)] for t in model.outputs]


def node_of(tensor: keras.KerasTensor):
    """Returns the call that gave a tensor."""
    layer, index, _ = tensor._keras_history
    return layer._inbound_nodes[index]


def taken(node) -> list[keras.KerasTensor]:
    """Returns the tensors that a call takes, without masks they carry."""
    if node.is_input:
        return []
    kwargs = _without_masks(node)
    flat = keras.tree.flatten((node.arguments.args, kwargs))
    return [t for t in flat if isinstance(t, keras.KerasTensor)]


def walk(
    tensors: Iterable[keras.KerasTensor], stop=lambda tensor: False
) -> tuple[list, list[keras.KerasTensor]]:
    """Walks backward from tensors to all that they are computed from.

    Args:
        tensors: Where the walk begins.
        stop: Whether not to walk past a tensor.

    Returns:
        The nodes that were passed, each behind those that it depends on, and
        the tensors at which the walk stopped.
    """
    nodes: dict[int, Any] = {}
    stops: dict[int, keras.KerasTensor] = {}
    entered: set[int] = set()
    stack = [(t, False) for t in reversed(list(tensors))]
    while stack:
        tensor, is_done = stack.pop()
        node = node_of(tensor)
        if is_done:
            nodes[id(node)] = node
        elif stop(tensor):
            stops[id(tensor)] = tensor
        elif id(node) not in entered:
            entered.add(id(node))
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(taken(node)))
    return list(nodes.values()), list(stops.values())


def depends_on_weights(tensor: keras.KerasTensor) -> bool:
    """Returns whether a tensor is computed by layers that have weights."""
    nodes, _ = walk([tensor])
    return any(getattr(node.operation, "weights", ()) for node in nodes)


def replay(nodes, tensors: dict[int, Any]) -> None:
    """Calls the layers of nodes again, on other tensors.

    Args:
        nodes: The nodes, each behind those that it depends on.
        tensors: Maps the id of a tensor to what stands in its place; the new
            outputs are added. Others stay as they are.
    """
    for node in nodes:
        stay = {id(t): tensors.get(id(t), t) for t in taken(node)}
        args, kwargs = _arguments(node, stay)
        outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        pairs = zip(node.outputs, outputs, strict=True)
        tensors.update({id(old): new for old, new in pairs})


def functional_of(layer) -> keras.Model | None:
    """Returns the functional model that a layer is, None for any other."""
    if isinstance(layer, keras.Sequential):
        return getattr(layer, "_functional", None)
    if not hasattr(layer, "operations") or not hasattr(layer, "inputs"):
        return None
    # A class of one's own may compute something else.
    owner = next(c for c in type(layer).__mro__ if "call" in vars(c))
    return layer if owner.__name__ == "Functional" else None


def list_paths(model: keras.Model, prefix: str = "") -> list[str]:
    """Lists the paths of all layers of a model and of those nested in it."""
    paths = []
    for layer in model.operations:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        paths.append(prefix + layer.name)
        inner = functional_of(layer)
        if inner is not None:
            paths += list_paths(inner, f"{prefix}{layer.name}/")
    return paths


def _without_masks(node) -> dict[str, Any]:
    """Returns the keywords of a call without masks that its tensors carry.

    Keras finds these itself, in a tensor's place as well.
    """
    carried = {id(getattr(t, "_keras_mask", None)) for t in node.input_tensors}

    def is_carried(name, value):
        masks = [m for m in keras.tree.flatten(value) if m is not None]
        return (
            name.endswith("mask")
            and masks
            and all(id(m) in carried for m in masks)
        )

    kwargs = node.arguments.kwargs
    return {k: v for k, v in kwargs.items() if not is_carried(k, v)}


def _arguments(node, tensors: dict[int, Any]) -> tuple[list, dict[str, Any]]:
    def fill(value):
        if isinstance(value, keras.KerasTensor):
            return tensors[id(value)]
        return value

    return keras.tree.map_structure(
        fill, (list(node.arguments.args), _without_masks(node))
    )


def _call_of_model(model, args, kwargs) -> tuple[list, dict[str, Any]]:
    """Returns the flat inputs of a nested model, and what its call is told."""
    names = ("inputs", "training", "mask")
    told = {**dict(zip(names, args, strict=False)), **kwargs}
    given, mask = told.pop("inputs"), told.pop("mask", None)
    if isinstance(given, dict) and not isinstance(model.input, dict):
        given = [given[t.name] for t in model.inputs]
    values = [
        v if v is None or v.dtype == t.dtype else keras.ops.cast(v, t.dtype)
        for v, t in zip(keras.tree.flatten(given), model.inputs, strict=True)
    ]
    if mask is not None:
        for value, m in zip(values, keras.tree.flatten(mask), strict=True):
            if m is not None:
                value._keras_mask = m
    return values, {k: v for k, v in told.items() if v is not None}
