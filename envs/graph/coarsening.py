"""Coarsening: group the ops that are always placed together, so that no cycle arises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.partition import (
    OpPair,
    contract,
    group_masks,
    join,
    number_topologically,
    quotient,
)


@dataclass(frozen=True)
class CoarseGraph:
    """Exact partition of the ops into groups whose quotient graph is a DAG.

    Groups are numbered in a topological order of the quotient graph.
    """

    graph: ComputationGraph
    method: str
    op_group: Int32  # (num_ops,) group of each op
    num_groups: int
    edge_index: Int32  # (2, num_edges) producer group, consumer group; each pair once
    edge_bytes: Float64  # (num_edges,) bytes of the distinct tensors along the edge
    edge_tensors: Int32  # (num_edges,) number of distinct tensors along the edge
    supported: Bool  # (num_groups, num_devices) devices that run every op of the group

    @property
    def num_edges(self) -> int:
        """Number of edges of the quotient graph."""
        return int(self.edge_index.shape[1])


def coarsen(
    graph: ComputationGraph, method: str = "fusion", max_groups: int | None = None
) -> CoarseGraph:
    """Group the ops of a graph, and return the coarse graph.

    Ops that have no device in common never share a group. Tied ops (`TiedOps`), those of a state
    or with shapes that depend on the data, always do. A Constant always joins the first of
    its consumers' groups. The same graph always has the same groups: they are numbered in
    topological order, and of several possible next groups, the one with the smallest op is first.

    Args:
        graph: what to group.
        method: `none` makes each op that is not constant its own group. `colocation` joins an op
            with its only consumer if it is that consumer's only producer (HSDAG, arXiv
            2405.14185, section 2.2). `fusion` joins what the first device runs as one node.
            The last two also join Parameters with their first consumer, and Results with
            their producer.
        max_groups: maximum number of groups. Groups are merged in rounds along the edges with
            the most bytes, then with neighbours in a topological order, fewest FLOPs first.

    Raises:
        DevicePlacementError: for an unknown method, for a `max_groups` that is below 1 or out of
            reach because too many groups have no device in common, and if no device runs all
            ops of a tied set.
    """
    group_by = choose("coarsening method", method, COARSENING_METHODS)
    _check_tied(graph)
    if max_groups is not None and max_groups < 1:
        raise DevicePlacementError(f"Got max_groups={max_groups}; give 1 or more, or leave it out.")
    op_group = number_topologically(graph, group_by(graph))
    if max_groups is not None:
        op_group = contract(graph, op_group, max_groups)
    return make_coarse_graph(graph, op_group, method)


def make_coarse_graph(graph: ComputationGraph, op_group: Int64, method: str) -> CoarseGraph:
    """Return the coarse graph of groups that are given.

    Args:
        graph: what was grouped.
        op_group: (num_ops,) group of each op, numbered topologically.
        method: the name of the grouping.
    """
    num_groups = int(op_group.max(initial=-1)) + 1
    edges = quotient(graph, op_group)
    supported = np.ones((num_groups, len(graph.devices)), np.bool_)
    np.logical_and.at(supported, op_group, graph.supported)
    return CoarseGraph(
        graph=graph,
        method=method,
        op_group=op_group.astype(np.int32),
        num_groups=num_groups,
        edge_index=edges.edge_index.astype(np.int32),
        edge_bytes=edges.edge_bytes,
        edge_tensors=edges.edge_tensors.astype(np.int32),
        supported=supported,
    )


def _check_tied(graph: ComputationGraph) -> None:
    for one in graph.tied:
        supported = graph.supported[list(one.ops)]
        if graph.devices and not supported.all(axis=0).any():
            lacking = [
                f"{device} lacks {', '.join(sorted({graph.op_types[one.ops[op]] for op in ops}))}"
                for device, column in zip(graph.devices, supported.T, strict=True)
                for ops in [np.flatnonzero(~column)]
            ]
            raise DevicePlacementError(
                f"No device runs all {len(one.ops)} ops of {graph.name!r} that must stay together "
                f"({one.title}): {'; '.join(lacking)}. Add a device that runs them."
            )


def _alone(graph: ComputationGraph) -> Int64:
    return _attach(graph, join(graph, _computed_edges(graph), []), ends=False)


def _colocated(graph: ComputationGraph) -> Int64:
    edges = np.unique(_computed_edges(graph), axis=1)
    producer, consumer = edges
    only = (np.bincount(producer)[producer] == 1) & (np.bincount(consumer)[consumer] == 1)
    links = [(u, v) for u, v in edges[:, only].T.tolist()]
    return _attach(graph, join(graph, edges, links), ends=True)


def _fused(graph: ComputationGraph) -> Int64:
    computed = [[op for op in sorted(s) if not graph.is_constant[op]] for s in graph.fusion_sets]
    links: list[OpPair] = []
    for gap in (1, 2):  # an op that must leave its set does not separate its neighbours
        for ops in computed:
            links += zip(ops, ops[gap:], strict=False)
    return _attach(graph, join(graph, _computed_edges(graph), links), ends=True)


COARSENING_METHODS: Mapping[str, Callable[[ComputationGraph], Int64]] = {
    "none": _alone,
    "colocation": _colocated,
    "fusion": _fused,
}
"""Name -> function that labels the group of each op, ``(num_ops,)``."""


def _computed_edges(graph: ComputationGraph) -> Int64:
    """Return the edges whose producer is not constant, (2, num_edges)."""
    return graph.edge_index[:, ~graph.is_constant[graph.edge_index[0]]].astype(np.int64)


def _attach(graph: ComputationGraph, op_group: Int64, ends: bool) -> Int64:
    """Join Constants to their first consumer; with `ends` also Parameters, and Results.

    A Result joins its producer. This makes no cycle: an op without producers may join the first of
    its consumers in a topological order, because no other consumer leads there, and an op without
    consumers may join the last of its producers. Dead ends come last in that order.
    """
    op_group = number_topologically(graph, op_group)
    producer, consumer = graph.edge_index
    computed = ~graph.is_constant
    alone = np.bincount(op_group)[op_group] == 1
    types = np.array(graph.op_types, np.str_)
    feeds_none = np.bincount(producer, minlength=graph.num_ops) == 0
    fed_by_none = np.bincount(consumer, minlength=graph.num_ops) == 0
    results = alone & computed & feeds_none & (types == "Result")
    sources = graph.is_constant & alone
    if ends:
        sources |= alone & fed_by_none & (types == "Parameter")
    rank = np.arange(graph.num_ops)  # of the group with each label
    rank[op_group[results | (alone & feeds_none & ~computed)]] += graph.num_ops
    followed = _follow(graph, op_group, sources, graph.edge_index, rank)
    if not ends:
        return followed
    return _follow(graph, followed, results, np.flip(graph.edge_index, axis=0), -rank)


def _follow(
    graph: ComputationGraph, op_group: Int64, movers: Bool, edge_index: Int64 | Int32, rank: Int64
) -> Int64:
    """Join each mover, the last first, to the neighbouring group with the lowest rank.

    Args:
        graph: its `supported` decides which ops may share a group.
        op_group: (num_ops,) labels.
        movers: (num_ops,) ops that are alone in their group.
        edge_index: (2, num_edges) mover, op that it may join; other edges are ignored.
        rank: (num_ops,) rank of the group with each label.
    """
    targets: dict[int, list[int]] = {int(op): [] for op in np.flatnonzero(movers)[::-1]}
    for mover, target in edge_index[:, movers[edge_index[0]]].T.tolist():
        targets[mover].append(target)
    group, common = op_group.tolist(), group_masks(graph, op_group)
    for mover, choices in targets.items():
        best = min((group[op] for op in choices), key=rank.__getitem__, default=group[mover])
        if common[best] & common[group[mover]]:
            common[best] &= common[group[mover]]
            group[mover] = best
    return np.array(group, np.int64)
