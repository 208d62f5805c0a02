"""From one Keras model to trunk and heads, cut at the layers that one names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import keras

from graddrop_tf import graph as graphs
from graddrop_tf.bases.combiner import Combiner
from graddrop_tf.cut import Cut, alone, listed
from graddrop_tf.graph import Graph
from graddrop_tf.inference import has_combiner

# How many names an error lists.
_MANY = 20


def split(
    model: keras.Model, at: str | Sequence[str]
) -> tuple[keras.Model, keras.Model]:
    """Cuts a model into a trunk and heads, which share its layers.

    Args:
        model: A functional `keras.Model`, or a built `keras.Sequential`.
        at: As in `from_model`.

    Returns:
        The trunk, whose outputs are the tensors at the cut and then those
        that are passed on, and the heads, whose outputs are the model's.

    Raises:
        ValueError: As in `from_model`.
    """
    functional, graph, names = _opened(model, at)
    cut = Cut.of(graph, names)
    cut.check()
    shared = [*cut.tensors, *cut.passed]
    _check_names(graphs.walk(shared)[0], "in front of")
    _check_names(cut.behind, "behind")
    taken = {node.operation.name for node in cut.behind}
    inputs = [_input_like(t, taken) for t in shared]
    tensors = {id(t): i for t, i in zip(shared, inputs, strict=True)}
    graphs.replay(cut.behind, tensors)
    trunk = keras.Model(
        graph.inputs, alone(shared), name=f"{functional.name}_trunk"
    )
    heads = keras.Model(
        alone(inputs),
        keras.tree.map_structure(lambda t: tensors[id(t)], graph.outputs),
        name=f"{functional.name}_heads",
    )
    heads.output_names = graph.output_names
    return trunk, heads


def from_model(
    cls, model: keras.Model, at: str | Sequence[str], recipe=None, **kwargs
):
    """Makes a `MultiLossModel` of a Keras model, cut at a layer.

    The new model shares all layers and weights with `model`, which itself
    stays as it is: to train one is to train the other. What `at` names, and
    all in front of it, is the trunk; all behind it the heads. An output that
    does not depend on the cut is an output of the heads too, and the gradient
    of its loss is zero at the cut.

    Inputs that are read behind the cut, and what layers without any weights
    make of inputs, are passed on to the heads, after the tensors at the cut.

    Args:
        cls: `gd.MultiLossModel`, or a class derived from it.
        model: A functional `keras.Model`, or a built `keras.Sequential`.
        at: The name of the layer whose output is A, or a list of names. A
            name such as `"backbone/block_6"` is a path to a layer of a nested
            model. A is a list where there are several names, and where a
            layer has several outputs or is called several times, but for
            outputs that nothing reads.
        recipe: As in `gd.MultiLossModel`.
        **kwargs: As in `gd.MultiLossModel`.

    Returns:
        A `gd.MultiLossModel`, not compiled.

    Raises:
        ValueError: If the model is neither functional nor sequential, has no
            layer of that name, or its outputs depend on weights of the trunk
            other than by A: the error lists the names that `at` needs.

    Example:
        >>> model = gd.MultiLossModel.from_model(
        ...     keras_model, at="backbone/block_6", recipe="graddrop"
        ... )
    """
    trunk, heads = split(model, at)
    return cls(trunk, heads, recipe, **kwargs)


def insert(
    model: keras.Model, combiner: Combiner, at: str | Sequence[str]
) -> keras.Model:
    """Inserts a combiner into a Keras model, behind a layer.

    Each output of the model is a loss, in the order of `model.outputs`, and
    reads a branch of its own. An output that does not depend on the cut has
    no branch, and its loss does not count. Where `at` names several tensors
    the losses share them all. Layers and weights are those of `model`, which
    itself stays as it is.

    Args:
        model: A functional `keras.Model`, or a built `keras.Sequential`.
        combiner: Such as `gd.GradDrop()`. Where its number of losses is open,
            or the cut has several tensors, a copy of it is inserted.
        at: As in `gd.MultiLossModel.from_model`.

    Returns:
        A functional `keras.Model`, not compiled.

    Raises:
        ValueError: As in `gd.MultiLossModel.from_model`, and if outputs share
            a layer behind the cut, or the combiner is for another number of
            losses.

    Example:
        >>> model = gd.insert(keras_model, gd.GradDrop(), at="pooling")
        >>> model.compile("adam", loss=["mse", "mse"])
    """
    if not isinstance(combiner, Combiner):
        raise ValueError(
            "`insert` takes a combiner such as gd.GradDrop(). Received: "
            f"{combiner!r} of type {type(combiner).__name__}."
        )
    functional, graph, names = _opened(model, at, _shared_models)
    cut = Cut.of(graph, names)
    cut.check(ends=True)
    cut.check_unshared()
    outputs = keras.tree.flatten(graph.outputs)
    each = cut.behind_each()
    is_list = len(cut.tensors) > 1
    combiner = _made_for(combiner, len(each), is_list)
    inputs = alone(cut.tensors)
    branches = combiner.branches_of(inputs, combiner(inputs))
    for branch, (index, nodes) in zip(branches, each, strict=True):
        flat = branch if is_list else [branch]
        tensors = {id(t): b for t, b in zip(cut.tensors, flat, strict=True)}
        graphs.replay(nodes, tensors)
        outputs[index] = tensors[id(outputs[index])]
    _check_names(graphs.walk(outputs)[0], "in")
    inserted = keras.Model(
        graph.inputs,
        keras.tree.pack_sequence_as(graph.outputs, outputs),
        name=functional.name,
    )
    inserted.output_names = graph.output_names
    return inserted


def _opened(
    model, at, more=lambda graph, names: set()
) -> tuple[keras.Model, Graph, list[str]]:
    """Returns a model, its graph with nested models opened, and the names.

    `more` tells which nested models are to be opened as well.
    """
    functional = _checked_model(model)
    names = [at] if isinstance(at, str) else at
    if (
        not isinstance(names, (list, tuple))
        or not names
        or not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
    ):
        raise ValueError(
            "`at` must be the name of a layer, or a list of different names. "
            f"Received: {at!r}."
        )
    opened = set()
    for name in names:
        _check_path(functional, name)
        parts = name.split("/")
        opened |= {"/".join(parts[:i]) for i in range(1, len(parts))}
    graph = Graph.of(functional, opened)
    while added := more(graph, names):
        opened |= added
        graph = Graph.of(functional, opened)
    return functional, graph, list(names)


def _shared_models(graph: Graph, names: list[str]) -> set[str]:
    """Returns the paths of nested models behind the cut that outputs share."""
    return {
        graph.paths[id(node)]
        for node in Cut.of(graph, names).shared()
        if graphs.functional_of(node.operation) is not None
    }


def _checked_model(model) -> keras.Model:
    received = f"Received: {model!r} of type {type(model).__name__}."
    if hasattr(model, "recipe_state"):
        raise ValueError(
            "The model is a gd.MultiLossModel already: give the Keras model "
            f"it was made of. {received}"
        )
    functional = graphs.functional_of(model)
    if functional is None:
        raise ValueError(
            "Only a functional keras.Model or a built keras.Sequential can be "
            "cut: give the trunk and heads of any other to "
            f"`gd.MultiLossModel(trunk, heads)`. {received}"
        )
    if has_combiner(functional):
        raise ValueError(
            "The model holds a combiner already: give it without, as "
            f"`gd.inference_model(model)`. {received}"
        )
    return functional


def _check_path(model: keras.Model, path: str) -> None:
    """Raises ValueError where a model has no layer at a path."""
    paths = graphs.list_paths(model)
    if path in paths:
        return
    name = path.split("/")[-1]
    nested = [p for p in paths if p.endswith(f"/{name}")]
    close = difflib.get_close_matches(path, paths, n=3)
    if any(layer.name == path for layer in model.operations):
        hint = "It is an input: name a layer behind it"
    elif nested:
        hint = f"It is inside of a nested model: at={alone(nested)!r}"
    elif close:
        hint = f"Did you mean {listed(close)}?"
    else:
        more = ", ..." if len(paths) > _MANY else ""
        hint = f"There are {listed(paths[:_MANY])}{more}"
    hint = hint if hint.endswith("?") else f"{hint}."
    raise ValueError(
        f"The model has no layer {path!r} to cut at. {hint} "
        f"Received: at={path!r}."
    )


def _check_names(nodes, where: str) -> None:
    """Raises ValueError where layers have the same name."""
    seen: dict[str, object] = {}
    for node in nodes:
        layer = node.operation
        if seen.setdefault(layer.name, layer) is not layer:
            raise ValueError(
                "The layers of a nested model that is cut must not have the "
                f"names of others. Received: several named {layer.name!r} "
                f"{where} the cut."
            )


def _input_like(
    tensor: keras.KerasTensor, taken: set[str]
) -> keras.KerasTensor:
    """Returns an input for a tensor, under a name that is not taken."""
    layer = graphs.node_of(tensor).operation
    name, number = layer.name, 0
    while name in taken:
        number += 1
        name = f"{layer.name}_{number}"
    taken.add(name)
    return keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=name,
        optional=getattr(layer, "optional", False),
    )


def _made_for(combiner: Combiner, num_losses: int, is_list: bool) -> Combiner:
    """Returns a combiner for a number of losses that share all they read."""
    if combiner.num_losses not in (None, num_losses) or combiner.separate:
        raise ValueError(
            f"The combiner must be for the {num_losses} outputs that depend on "
            f"the cut, num_losses={num_losses}, and not for separate ones. "
            f"Received: num_losses={combiner.num_losses}, "
            f"separate={combiner.separate}."
        )
    changes = {"separate": False} if is_list else {}
    if combiner.num_losses is None:
        changes["num_losses"] = num_losses
    config = combiner.get_config()
    if all(config[key] == value for key, value in changes.items()):
        return combiner
    return type(combiner).from_config({**config, **changes})
