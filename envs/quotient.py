"""The graph of the groups of a partition: its edges, devices, order and cycles.

A partition is an array with the label of each op's group, ``(num_ops,)``.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.graph import ComputationGraph, Float64

Int = NDArray[np.int64]


class Quotient(NamedTuple):
    """The edges between groups: each pair once, sorted."""

    edge_index: Int  # (2, num_edges) producer group, consumer group
    edge_bytes: Float64  # (num_edges,) bytes of the distinct tensors along the edge
    edge_tensors: Int  # (num_edges,) number of distinct tensors along the edge


def quotient(graph: ComputationGraph, op_group: Int) -> Quotient:
    """The quotient graph of a partition whose labels are below ``num_ops``."""
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
    """The devices that run each op as the bits of a number; without devices all ops agree."""
    if not graph.devices:
        return [1] * graph.num_ops
    bits = np.array([1 << device for device in range(len(graph.devices))], object)
    return (graph.supported.astype(object) @ bits).tolist()  # type: ignore[no-any-return]


def group_masks(graph: ComputationGraph, op_group: Int) -> list[int]:
    """The devices that run every op of a group, as bits, for labels 0 to num_groups - 1."""
    masks = [-1] * (int(op_group.max(initial=-1)) + 1)
    for group, mask in zip(op_group.tolist(), support_masks(graph), strict=True):
        masks[group] &= mask
    return masks


def topological_order(edge_index: Int, kinds: Sequence[int]) -> list[int]:
    """The nodes so that producers come first: the same kind as long as it goes, then the smallest.

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


def number_topologically(graph: ComputationGraph, op_group: Int) -> Int:
    """The partition with groups numbered so that producers come first, then by smallest op."""
    _, first, inverse = np.unique(op_group, return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(first))[inverse]
    order = topological_order(quotient(graph, number).edge_index, [0] * len(first))
    assert len(order) == len(first), "the quotient graph has a cycle"
    return np.argsort(np.array(order, np.int64))[number]


def components(num_nodes: int, edge_index: Int, connection: Literal["weak", "strong"]) -> Int:
    """Label of the weakly or strongly connected component of each node, (num_nodes,)."""
    from scipy.sparse import csr_array  # here, as importing takes longer than running
    from scipy.sparse.csgraph import connected_components

    weights: Float64 = np.ones(edge_index.shape[1])
    cells = csr_array((weights, edge_index), (num_nodes, num_nodes), dtype=np.float64)
    _, label = connected_components(cells, connection=connection)
    return label.astype(np.int64)
