"""Tied ops: those of a state, or with shapes that depend on the data, which can't be separated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Int64
from device_placement.envs.graph.components import components, shortest_path

STATE_TYPES = ("ReadValue", "Assign")
MAX_NAMED = 2  # states in a title


@dataclass(frozen=True, order=True)
class TiedOps:
    """Ops that must share a group: connected, and with every op on a path between two of them.

    OpenVINO keeps a state inside one compiled model, so the ReadValue and Assign of a variable
    are tied. Tensors of dynamic shape stay inside one compiled model too, so their producers and
    consumers are tied, and what computes with the shape of one is tied to what uses the result.
    """

    ops: tuple[int, ...]  # ascending numbers
    variables: tuple[str, ...]  # states that are read or written
    dynamic: bool  # whether the shape of a tensor between them depends on the data

    @property
    def title(self) -> str:
        """What they are, such as ``state 'k', 'v'`` or ``dynamic shapes``."""
        names = ", ".join(map(repr, self.variables[:MAX_NAMED]))
        if len(self.variables) > MAX_NAMED:
            names += f", {len(self.variables) - MAX_NAMED} more"
        kinds = [f"state {names}"] * bool(names) + ["dynamic shapes"] * self.dynamic
        return " and ".join(kinds)


def read_values(model: Any) -> list[Any]:
    """Return the ops of an OpenVINO model that read a state, in topological order."""
    return [op for op in model.get_ordered_ops() if op.get_type_name() == STATE_TYPES[0]]


def read_tied_ops(ops: Sequence[Any], edge_index: Int64, constant: Bool) -> tuple[TiedOps, ...]:
    """Read the tied ops of a model, in disjoint sets, and return them.

    Args:
        ops: (num_ops,) in topological order.
        edge_index: (2, num_edges) producer, consumer; one column per input of an op, in order.
        constant: (num_ops,) ops computed from Constants alone.
    """
    states: dict[str, list[int]] = {}
    for number, op in enumerate(ops):
        if op.get_type_name() in STATE_TYPES:
            states.setdefault(op.get_variable_id(), []).append(number)
    dynamic = _dynamic_edges(ops, edge_index)
    computed = edge_index[:, ~constant[edge_index[0]] | dynamic]
    return tie(len(ops), computed, states, edge_index[:, dynamic])


def tie(
    num_ops: int, edge_index: Int64, states: dict[str, list[int]], dynamic: Int64
) -> tuple[TiedOps, ...]:
    """Extend sets of tied ops until the graph between them has no cycle, and return them.

    Sets that meet are united, and so are those that a cycle leads through. A state whose
    ReadValue does not lead to its Assign is connected along a shortest path.

    Args:
        num_ops: number of ops.
        edge_index: (2, num_edges) edges of a DAG.
        states: the ops of each variable.
        dynamic: (2, num_dynamic) the edges whose ends are tied.
    """
    if not states and not dynamic.size:
        return ()
    links = [dynamic, *(_chain(members) for members in states.values())]
    label = _unite(num_ops, edge_index, links)
    inner = edge_index[:, label[edge_index[0]] == label[edge_index[1]]]
    piece = components(num_ops, inner, "weak")
    apart = [
        (members[0], other)
        for members in states.values()
        for other in members
        if piece[other] != piece[members[0]]
    ]
    if apart:
        links += [_chain(shortest_path(num_ops, edge_index, *ends)) for ends in apart]
        label = _unite(num_ops, edge_index, links)
    is_dynamic = np.isin(label, label[dynamic])
    found = dict.fromkeys(label[[*dynamic[0], *(members[0] for members in states.values())]])
    return tuple(
        TiedOps(
            ops=tuple(np.flatnonzero(label == one).tolist()),
            variables=tuple(sorted(name for name, ops in states.items() if label[ops[0]] == one)),
            dynamic=bool(is_dynamic[label == one].any()),
        )
        for one in sorted(found)
    )


def _chain(ops: Sequence[int]) -> Int64:
    """Return the links of a chain, (2, num_links)."""
    return np.array([ops[:-1], ops[1:]], np.int64)


def _unite(num_ops: int, edge_index: Int64, links: Sequence[Int64]) -> Int64:
    """Return labels, (num_ops,), of the linked ops and all that lies in a cycle with them."""
    label = components(num_ops, np.concatenate(links, axis=1), "weak")
    ring = components(int(label.max()) + 1, label[edge_index], "strong")
    return ring[label]


def _dynamic_edges(ops: Sequence[Any], edge_index: Int64) -> Bool:
    """Return the edges, (num_edges,), along which a dynamic shape or what is computed of it goes.

    Of what is computed from a shape, whole numbers count: they become another shape.
    """
    inputs = [value for op in ops for value in op.input_values()]
    dynamic = np.array([value.get_partial_shape().is_dynamic for value in inputs], np.bool_)
    if not dynamic.any():
        return dynamic
    sizes = np.zeros(len(ops), np.bool_)  # whole numbers computed from a dynamic shape
    edges_into: list[list[int]] = [[] for _ in ops]
    for edge, consumer in enumerate(edge_index[1].tolist()):
        edges_into[consumer].append(edge)
    for number, op in enumerate(ops):
        edges = edges_into[number]
        if op.get_type_name() == "ShapeOf":
            sizes[number] = dynamic[edges].any()
        elif sizes[edge_index[0, edges]].any() and op.get_output_size():
            sizes[number] = op.get_output_element_type(0).is_integral_number()
    return np.asarray(dynamic | sizes[edge_index[0]])
