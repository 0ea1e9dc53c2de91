"""Predict how HETERO splits a placed model into subgraphs, and keep tied ops in one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Int64
from device_placement.envs.graph.components import components
from device_placement.envs.graph.computation_graph import constant_ops, read_edges
from device_placement.envs.graph.tied_ops import STATE_TYPES, read_tied_ops

ALIAS = "-"
"""In front of a device's name: the same device to OpenVINO, another one to HETERO.

OpenVINO drops it where it looks for the plugin (AUTO takes it as "not this device"), with the
same properties. HETERO joins ops with equal names only.
"""


def isolate_tied_ops(model: Any, devices: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each op's device, with `ALIAS` where HETERO would separate tied ops.

    HETERO splits the ops of one device further where a path leaves them and comes back, at edges
    that may lie between tied ops. These then get a subgraph of their own.

    Args:
        model: the normalised ``openvino.Model``.
        devices: the name of each op's device, by the op's name.
    """
    result = dict(devices)
    if len(set(devices.values())) < 2 or not _has_tied_ops(model):
        return result
    ops = model.get_ordered_ops()
    names = [op.get_friendly_name() for op in ops]
    edges = read_edges(ops)[:2]
    constant = constant_ops(ops, edges)
    left = [list(one.ops) for one in read_tied_ops(ops, edges, constant)]
    while True:
        subgraph = predict_subgraphs(ops, edges, [result[name] for name in names])
        split = [tied for tied in left if len(set(subgraph[tied].tolist())) > 1]
        if not split:
            return result
        left = [tied for tied in left if tied not in split]
        for op in {op for tied in split for op in _with_constants(tied, edges, constant)}:
            result[names[op]] = ALIAS + devices[names[op]]


def _has_tied_ops(model: Any) -> bool:
    ops = model.get_ops()
    return model.is_dynamic() or any(op.get_type_name() in STATE_TYPES for op in ops)


def _with_constants(tied: Sequence[int], edge_index: Int64, constant: Bool) -> set[int]:
    """Return tied ops and the constant ones that they read."""
    found = set(tied)
    for producer, consumer in np.flip(edge_index, axis=1).T.tolist():  # consumers in reverse order
        if constant[producer] and consumer in found:
            found.add(producer)
    return found


def predict_subgraphs(ops: Sequence[Any], edge_index: Int64, devices: Sequence[str]) -> Int64:
    """Return the number of the subgraph that HETERO puts each op into, (num_ops,).

    Connected ops of one device are a subgraph, until no path leaves one and comes back: see
    ``SubgraphCollector`` in OpenVINO's ``src/plugins/hetero/src/subgraph_collector.cpp``.

    Args:
        ops: (num_ops,) in topological order.
        edge_index: (2, num_edges) producer, consumer.
        devices: (num_ops,) the device of each op.
    """
    types = [op.get_type_name() for op in ops]
    numbers = {device: number for number, device in enumerate(dict.fromkeys(devices))}
    device = np.array([numbers[name] for name in devices])
    producer, consumer = edge_index
    results = np.array([kind == "Result" for kind in types])[consumer]
    device[consumer[results]] = device[producer[results]]  # they follow what they read
    sources = [op for op, kind in enumerate(types) if kind in ("Parameter", "Constant")]
    cut = device[producer] != device[consumer]
    while True:
        subgraph = components(len(ops), edge_index[:, ~cut], "weak")
        more = _edges_of_returns(edge_index, sources, cut, subgraph)
        if not (more & ~cut).any():
            return subgraph
        cut = cut | more


def _edges_of_returns(edge_index: Int64, sources: Sequence[int], cut: Bool, subgraph: Int64) -> Bool:
    """Return the edges, (num_edges,), that HETERO cuts as a path leaves a subgraph and returns.

    Sets of entries, which are the edges that are cut and the `sources`, are bits of integers. An
    op depends on the entries on all paths to it; those into its own subgraph are its inputs, and
    those that come from its own subgraph its returns. Where an op has returns and one of its
    producers shares none of them, yet an input of what returns, the edge between them is cut.
    """
    ends = edge_index.T.tolist()
    home = subgraph.tolist()
    crossing = np.flatnonzero(cut).tolist()
    entry = {edge: 1 << number for number, edge in enumerate(crossing)}
    own = {op: 1 << number for number, op in enumerate(sources, start=len(crossing))}
    enters, leaves, comes_in = ([0] * len(home) for _ in range(3))  # by subgraph
    for op, bit in own.items():
        enters[home[op]] |= bit
    for edge, bit in entry.items():
        source, target = (home[op] for op in ends[edge])
        enters[target] |= bit
        leaves[source] |= bit
        comes_in[target] |= bit * (source != target)
    into: list[list[int]] = [[] for _ in home]
    for edge, (_, target) in enumerate(ends):
        into[target].append(edge)
    depends, inputs, returns = ([0] * len(home) for _ in range(3))  # by op
    for op, number in enumerate(home):
        depends[op] = own.get(op, 0)
        for edge in into[op]:
            depends[op] |= depends[ends[edge][0]] | entry.get(edge, 0)
        inputs[op] = depends[op] & enters[number]
        returns[op] = depends[op] & leaves[number]
    found = np.zeros(len(ends), np.bool_)
    for op, number in enumerate(home):
        if not returns[op]:
            continue
        reach = 0
        for bit in _bits(returns[op]):
            reach |= inputs[ends[crossing[bit]][0]]
        for bit in _bits(inputs[op] & comes_in[number]):
            reach |= inputs[ends[crossing[bit]][1]]
        for edge in into[op]:
            source = ends[edge][0]
            found[edge] = not returns[op] & returns[source] and bool(reach & inputs[source])
    return found


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
