"""A cut through the graph of a model, and what does not fit it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import keras

from graddrop_tf import graph as graphs
from graddrop_tf.graph import Graph


@dataclasses.dataclass
class Cut:
    """A graph in two halves.

    Attributes:
        graph: The graph.
        names: The paths of the layers at the cut.
        tensors: The tensors at the cut.
        behind: The calls behind the cut or beside it, in order.
        passed: Tensors from before the cut that are read behind it, but
            depend on no weight.
        bypassing: The same, but they depend on weights.
        unread: The names at which no output reads anything.
    """

    graph: Graph
    names: list[str]
    tensors: list[keras.KerasTensor]
    behind: list
    passed: list[keras.KerasTensor]
    bypassing: list[keras.KerasTensor]
    unread: list[str]

    @classmethod
    def of(cls, graph: Graph, names: Sequence[str]) -> Cut:
        """Cuts a graph at the layers of some paths."""
        named = {
            name: [t for call in graph.calls[name] for t in call]
            for name in names
        }
        cut = {id(t): t for tensors in named.values() for t in tensors}
        before = {id(node) for node in graphs.walk(cut.values())[0]}

        def is_before(tensor):
            node = graphs.node_of(tensor)
            return id(tensor) in cut or node.is_input or id(node) in before

        outputs = keras.tree.flatten(graph.outputs)
        behind, reached = graphs.walk(outputs, is_before)
        read = {id(t) for t in reached}
        others = [t for t in reached if id(t) not in cut]
        weighted = [graphs.depends_on_weights(t) for t in others]
        pairs = list(zip(others, weighted, strict=True))
        return cls(
            graph,
            list(names),
            [t for t in cut.values() if id(t) in read],
            behind,
            [t for t, has_weights in pairs if not has_weights],
            [t for t, has_weights in pairs if has_weights],
            [n for n, ts in named.items() if not read & {id(t) for t in ts}],
        )

    def closed(self) -> Cut:
        """Returns the cut with all layers that bypass this one."""
        cut = self
        while cut.bypassing:
            paths = [cut.graph.path_of(t) for t in cut.bypassing]
            cut = Cut.of(cut.graph, list(dict.fromkeys(cut.names + paths)))
        return cut

    def check(self, ends: bool = False) -> None:
        """Checks that the outputs depend on the layers before it by it alone.

        Args:
            ends: Whether there may be no layer behind it.

        Raises:
            ValueError: If they do not; the error lists where else to cut.
        """
        if self.unread:
            raise ValueError(
                "An output must depend on each layer at the cut, other than "
                "by layers at the cut: leave out those on which none does. "
                f"Received: {as_argument(self.unread)}."
            )
        if self.bypassing:
            paths = dict.fromkeys(self.graph.path_of(t) for t in self.bypassing)
            raise ValueError(
                f"The outputs also read {listed(paths)}, past the cut. Cut "
                f"there as well: {as_argument(self.closed().names)}. "
                f"Received: {as_argument(self.names)}."
            )
        if not (self.behind or ends):
            raise ValueError(
                "There is no layer behind the cut: cut at an earlier one. "
                f"Received: {as_argument(self.names)}."
            )

    def behind_each(self) -> list[tuple[int, list]]:
        """Returns the calls that depend on the cut, for each output.

        An output that does not depend on it is left out.
        """
        depends = {id(t) for t in self.tensors}
        for node in self.behind:
            if depends & {id(t) for t in graphs.taken(node)}:
                depends.update(id(t) for t in node.outputs)
        cut = {id(t) for t in self.tensors}
        found = []
        for i, output in enumerate(keras.tree.flatten(self.graph.outputs)):
            if id(output) in depends:
                # Past this it is the trunk, or a branch beside it.
                nodes, _ = graphs.walk(
                    [output],
                    lambda t: id(t) in cut or id(t) not in depends,
                )
                found.append((i, nodes))
        return found

    def shared(self) -> list:
        """Returns the calls behind the cut that several outputs depend on."""
        counts = collections.Counter(
            id(node) for _, nodes in self.behind_each() for node in nodes
        )
        return [node for node in self.behind if counts[id(node)] > 1]

    def check_unshared(self) -> None:
        """Checks that each call behind the cut belongs to one output.

        Raises:
            ValueError: If outputs share one; the error lists where to cut.
        """
        shared = self.shared()
        if not shared:
            return
        paths = dict.fromkeys(self.graph.paths[id(node)] for node in shared)
        later = self._behind_shared()
        advice = f"Cut later: {as_argument(later)}, or use" if later else "Use"
        raise ValueError(
            f"The outputs share {listed(paths)} behind the cut, and cannot "
            f"have a branch each. {advice} `gd.MultiLossModel.from_model`. "
            f"Received: {as_argument(self.names)}."
        )

    def _behind_shared(self) -> list[str]:
        """Returns the names at which no call behind is shared, if any."""
        cut, outputs = self, keras.tree.flatten(self.graph.outputs)
        while shared := {id(node) for node in cut.shared()}:
            read = [
                tensor
                for node in cut.behind
                if id(node) not in shared
                for tensor in graphs.taken(node)
            ]
            last = [
                t for t in [*read, *outputs] if id(graphs.node_of(t)) in shared
            ]
            paths = dict.fromkeys(cut.graph.path_of(t) for t in last)
            cut = Cut.of(cut.graph, list(paths)).closed()
            if not cut.behind or cut.unread:
                return []
        return cut.names


def alone(items: Sequence):
    """Returns the only item of a list, or else the list."""
    return items[0] if len(items) == 1 else list(items)


def listed(names: Iterable[str]) -> str:
    """Returns names as text."""
    return ", ".join(repr(name) for name in names)


def as_argument(names: Sequence[str]) -> str:
    """Returns names as the argument to give for them."""
    text = repr(alone(names))
    return "at=" + text.replace("'", '"')
