"""Partitions of a graph into groups: quotient graph, order, and merging without cycles.

A partition is an array with the label of each op's group, ``(num_ops,)``.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.components import components
from device_placement.envs.graph.computation_graph import ComputationGraph


class Quotient(NamedTuple):
    """The edges between groups: each pair once, sorted."""

    edge_index: Int64  # (2, num_edges) producer group, consumer group
    edge_bytes: Float64  # (num_edges,) bytes of the distinct tensors along the edge
    edge_tensors: Int64  # (num_edges,) number of distinct tensors along the edge


def quotient(graph: ComputationGraph, op_group: Int64) -> Quotient:
    """Return the quotient graph of a partition whose labels are below ``num_ops``."""
    producer, consumer = op_group[graph.edge_index]
    cross = producer != consumer
    num_ports = int(graph.edge_port.max(initial=0)) + 1
    tensor = graph.edge_index[0].astype(np.int64) * num_ports + graph.edge_port
    _, tensor = np.unique(tensor, return_inverse=True)
    pair = producer * graph.num_ops + consumer
    key = (pair * max(graph.num_edges, 1) + tensor)[cross]
    _, first = np.unique(key, return_index=True)  # each tensor once for each pair
    pairs, edge, count = np.unique(pair[cross][first], return_inverse=True, return_counts=True)
    size = np.bincount(edge, graph.edge_bytes[cross][first], minlength=len(pairs))
    return Quotient(np.stack(np.divmod(pairs, max(graph.num_ops, 1))), size.astype(float), count)


def support_masks(graph: ComputationGraph) -> list[int]:
    """Return the devices that run each op as a bit mask; without devices, all masks are equal."""
    if not graph.devices:
        return [1] * graph.num_ops
    bits = np.array([1 << device for device in range(len(graph.devices))], object)
    return (graph.supported.astype(object) @ bits).tolist()  # type: ignore[no-any-return]


def group_masks(graph: ComputationGraph, op_group: Int64) -> list[int]:
    """Return the devices that run every op of a group as a bit mask, for labels from 0."""
    masks = [-1] * (int(op_group.max(initial=-1)) + 1)
    for group, mask in zip(op_group.tolist(), support_masks(graph), strict=True):
        masks[group] &= mask
    return masks


def topological_order(edge_index: Int64, kinds: Sequence[int]) -> list[int]:
    """Return the nodes in topological order, one kind as long as possible, smallest first.

    Args:
        edge_index: (2, num_edges) edges of a DAG.
        kinds: the kind of each node.
    """
    degree = np.bincount(edge_index[1], minlength=len(kinds)).tolist()
    by_producer = edge_index[1, np.argsort(edge_index[0], kind="stable")].tolist()
    start = np.searchsorted(np.sort(edge_index[0]), np.arange(len(kinds) + 1)).tolist()
    ready: dict[int, list[int]] = {kind: [] for kind in kinds}  # heaps
    for node, kind in enumerate(kinds):
        if degree[node] == 0:
            ready[kind].append(node)
    order: list[int] = []
    heap: list[int] = []
    while heap or any(ready.values()):
        heap = heap or min(filter(None, ready.values()))
        node = heapq.heappop(heap)
        order.append(node)
        for consumer in by_producer[start[node] : start[node + 1]]:
            degree[consumer] -= 1
            if degree[consumer] == 0:
                heapq.heappush(ready[kinds[consumer]], consumer)
    return order


def number_topologically(graph: ComputationGraph, op_group: Int64) -> Int64:
    """Return the partition with groups numbered topologically, then by smallest op."""
    _, first, inverse = np.unique(op_group, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[inverse]
    order = topological_order(quotient(graph, number).edge_index, [0] * len(first))
    assert len(order) == len(first), "the quotient graph has a cycle"
    return np.argsort(np.array(order, np.int64))[number]


OpPair = tuple[int, int]  # two ops that should share a group

MAX_HALVINGS = 8
"""How often `join` halves the links of a cycle before it drops the rest."""

WORTHWHILE = 8
"""A round of edge merging should do at least this fraction, 1 / 8, of the remaining merges.

With less, as at a hub that all groups connect to, one group would swallow all others.
"""


def join(graph: ComputationGraph, edge_index: Int64, links: Sequence[OpPair]) -> Int64:
    """Join linked ops into groups as long as the quotient graph stays acyclic, and return labels.

    Tied ops are always joined. A cycle lies in one strongly connected component of the quotient,
    so all links outside such components are kept. Of the others, each component's first half is
    tried before the second.

    Args:
        graph: its `supported` decides which ops may share a group, its `tied` which ones must.
        edge_index: (2, num_edges) the edges that count.
        links: pairs of ops, in order of preference.

    Returns:
        (num_ops,) labels of the groups.
    """
    tied = [pair for one in graph.tied for pair in itertools.pairwise(one.ops)]
    accepted, op_group = _compatible(tied, links, support_masks(graph))
    if _is_acyclic(op_group[edge_index]):  # as mostly; saves importing scipy
        return op_group
    forced, wanted = (np.array(pairs, np.int64).reshape(-1, 2).T for pairs in (tied, accepted))
    kept = _settle(graph.num_ops, edge_index, forced, wanted, MAX_HALVINGS)
    return components(graph.num_ops, kept, "weak")


def _is_acyclic(edge_index: Int64) -> bool:
    """Return whether edges, (2, num_edges), make no cycle, apart from those within a node."""
    cross = edge_index[:, edge_index[0] != edge_index[1]]
    num_nodes = int(cross.max(initial=-1)) + 1
    return len(topological_order(cross, [0] * num_nodes)) == num_nodes


def _settle(num_ops: int, edge_index: Int64, kept: Int64, links: Int64, halvings: int) -> Int64:
    """Return `kept` and those of `links`, (2, num_links), that make no cycle with it."""
    op_group = components(num_ops, np.concatenate([kept, links], axis=1), "weak")
    num_groups = int(op_group.max(initial=-1)) + 1
    component = components(num_groups, op_group[edge_index], "strong")
    home = component[op_group[links[0]]]  # (num_links,)
    cyclic = np.bincount(component, minlength=1)[home] > 1
    kept = np.concatenate([kept, links[:, ~cyclic]], axis=1)
    _, home, size = np.unique(home[cyclic], return_inverse=True, return_counts=True)
    order = np.argsort(home, kind="stable")
    links, size = links[:, cyclic][:, order], size[home[order]]
    place = np.arange(len(order)) - np.searchsorted(home[order], home[order])
    first, second = place < size // 2, (place >= size // 2) & (size > 1)
    if halvings == 0 or not first.any():
        return kept
    kept = _settle(num_ops, edge_index, kept, links[:, first], halvings - 1)
    return _settle(num_ops, edge_index, kept, links[:, second], halvings - 1)


def _compatible(
    tied: Sequence[OpPair], links: Sequence[OpPair], masks: Sequence[int]
) -> tuple[list[OpPair], Int64]:
    """Return the links, tried in order, that leave each group a common device, and the groups.

    Args:
        tied: pairs of ops that share a group in any case.
        links: pairs of ops.
        masks: (num_ops,) the devices that run each op, as bit masks.

    Returns:
        The links, and (num_ops,) labels of the groups that they make.
    """
    parent = list(range(len(masks)))
    common = list(masks)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    def unite(one: int, other: int) -> None:
        common[one] &= common[other]
        parent[other] = one

    for first, second in tied:
        unite(root(first), root(second))
    accepted = []
    for link in links:
        one, other = root(link[0]), root(link[1])
        if one == other or common[one] & common[other]:
            accepted.append(link)
            unite(one, other)
    return accepted, np.array([root(node) for node in range(len(masks))], np.int64)


def contract(graph: ComputationGraph, op_group: Int64, max_groups: int) -> Int64:
    """Merge groups until at most `max_groups` are left, and return the partition.

    Each round merges along the heaviest edges, each group at most once so that groups grow
    evenly. If edges allow few merges, topological neighbours merge.

    Args:
        graph: has bytes, FLOPs and supported devices.
        op_group: (num_ops,) partition with groups numbered topologically.
        max_groups: number of groups to reach.

    Raises:
        DevicePlacementError: if groups that have no device in common can't be merged that far.
    """
    while (excess := int(op_group.max(initial=-1)) + 1 - max_groups) > 0:
        pairs = heavy_pairs(graph, op_group, excess)
        if len(pairs) * WORTHWHILE < excess:
            pairs = neighbour_pairs(graph, op_group, excess) or pairs
        if not pairs:
            raise DevicePlacementError(
                f"Got max_groups={max_groups} for a graph in which groups without a common device "
                f"stay separate, which leaves {max_groups + excess} groups. Use max_groups="
                f"{max_groups + excess} or more, or devices that support more ops."
            )
        merged = components(max_groups + excess, np.array(pairs).T, "weak")
        op_group = number_topologically(graph, merged[op_group])
    return op_group


def heavy_pairs(graph: ComputationGraph, op_group: Int64, limit: int) -> list[OpPair]:
    """Return disjoint pairs of groups to merge along the heaviest edges, without making a cycle.

    An edge (u, v) alone is safe if the longest path from a source to v is one longer than
    that to u, if u feeds only v, or if only u feeds v. When several such pairs merge, a cycle
    can only enter each of its pairs at v and leave it at u: that is a step back by one level,
    and every edge is a step forward. So all pairs of a cycle have their u at one level, and the
    cycle is broken if no pair is fed by a heavier one of the same component.
    """
    edges = quotient(graph, op_group)
    producer, consumer = edges.edge_index
    num_groups = int(op_group.max()) + 1
    level = _levels(num_groups, edges.edge_index)
    step = level[consumer] - level[producer] == 1
    only = (np.bincount(producer)[producer] == 1) | (np.bincount(consumer)[consumer] == 1)
    heavy = np.argsort(-edges.edge_bytes, kind="stable")
    heavy = heavy[(step | only)[heavy]]
    masks = group_masks(graph, op_group)
    free = [True] * num_groups
    pairs: list[OpPair] = []
    for u, v in edges.edge_index[:, heavy].T.tolist():
        if free[u] and free[v] and masks[u] & masks[v]:
            free[u] = free[v] = False
            pairs.append((u, v))
    upper, lower = np.full((2, num_groups), -1)
    upper[[u for u, _ in pairs]] = lower[[v for _, v in pairs]] = np.arange(len(pairs))
    arcs = np.stack([upper[producer], lower[consumer]])[:, step]
    arcs = arcs[:, (arcs >= 0).all(axis=0) & (arcs[0] != arcs[1])]
    broken = _later_in_cycle(len(pairs), arcs)
    return [pair for pair, drop in zip(pairs, broken, strict=True) if not drop][:limit]


def _levels(num_groups: int, edge_index: Int64) -> Int64:
    """Return the longest path to each group; edges are sorted, groups topologically numbered."""
    level = [0] * num_groups
    for u, v in edge_index.T.tolist():
        if level[v] <= level[u]:
            level[v] = level[u] + 1
    return np.array(level, np.int64)


def _later_in_cycle(num_pairs: int, arcs: Int64) -> Bool:
    """Return the nodes with an arc from a smaller node of their strongly connected component."""
    component = components(num_pairs, arcs, "strong")
    drop = np.zeros(num_pairs, np.bool_)
    drop[arcs[1, (component[arcs[0]] == component[arcs[1]]) & (arcs[0] < arcs[1])]] = True
    return drop


def neighbour_pairs(graph: ComputationGraph, op_group: Int64, limit: int) -> list[OpPair]:
    """Return up to `limit` merges of groups next to each other in one topological order.

    The pair with the fewest FLOPs merges first, then the one with the fewest ops.
    """
    masks = group_masks(graph, op_group)
    order = topological_order(quotient(graph, op_group).edge_index, masks)
    mask = [masks[group] for group in order]
    flops = np.bincount(op_group, graph.flops)[order].tolist()
    ops = np.bincount(op_group)[order].tolist()
    after = [*range(1, len(order)), -1]
    before = [*range(-1, len(order) - 1)]
    heap = [(flops[i] + flops[i + 1], ops[i] + ops[i + 1], i, i + 1) for i in before[1:]]
    heapq.heapify(heap)
    pairs: list[OpPair] = []
    while heap and len(pairs) < limit:
        _, size, left, right = heapq.heappop(heap)
        stale = after[left] != right or ops[left] + ops[right] != size
        if stale or not mask[left] & mask[right]:
            continue
        pairs.append((order[left], order[right]))
        mask[left] &= mask[right]
        flops[left] += flops[right]
        ops[left], ops[right] = size, 0
        after[left], after[right] = after[right], -1
        for a, b in ((before[left], left), (left, after[left])):
            if a >= 0 and b >= 0:
                before[b] = a
                heapq.heappush(heap, (flops[a] + flops[b], ops[a] + ops[b], a, b))
    return pairs
