"""The ideals of a DAG: the sets of nodes that hold all predecessors of their nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.envs.compiled import compiled
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph import Bool, Int32

MAX_IDEAL_CELLS = 30_000_000  # ideals times nodes, each in 5 bytes
NONE, LATER = -1, -2  # not available; available, and its ideal not known yet


@dataclass(frozen=True)
class Ideals:
    """Ideals by size, the empty one first and the whole graph last, and the steps between them."""

    member: Bool  # (num_ideals, num_nodes)
    step_start: Int32  # (num_ideals + 1,) where each ideal's steps begin
    step_node: Int32  # (num_steps,) the node that is added, ascending for each ideal
    step_to: Int32  # (num_steps,) the ideal that it makes


def find_ideals(num_nodes: int, edges: Int32, max_cells: int = MAX_IDEAL_CELLS) -> Ideals:
    """Every ideal of a DAG.

    Args:
        num_nodes: nodes, numbered in topological order.
        edges: (2, num_edges) from, to.
        max_cells: the most ideals times nodes.

    Raises:
        DevicePlacementError: when there are more.

    >>> diamond = np.array([[0, 0, 1, 2], [1, 2, 3, 3]], dtype=np.int32)
    >>> find_ideals(4, diamond).member.sum(axis=1).tolist()
    [0, 1, 2, 2, 3, 4]
    """
    order = np.argsort(edges[1], kind="stable")
    start = np.searchsorted(edges[1][order], np.arange(num_nodes + 1)).astype(np.int32)
    capacity = max_cells // max(num_nodes, 1)
    member, to, count = _ideals(start, edges[0][order].astype(np.int32), capacity)
    if count < 0:
        raise DevicePlacementError(
            f"A graph of {num_nodes} parts has more than {capacity} sets that a contiguous split "
            "could begin with; use cp_sat, or fewer groups: max_groups=..."
        )
    ideal, node = np.nonzero(to[:count] >= 0)
    return Ideals(
        member=member[:count],
        step_start=np.searchsorted(ideal, np.arange(count + 1)).astype(np.int32),
        step_node=node.astype(np.int32),
        step_to=to[ideal, node],
    )


def chain_of_ideals(num_nodes: int) -> Ideals:
    """The prefixes of the topological order alone.

    >>> chain_of_ideals(2).member.tolist()
    [[False, False], [True, False], [True, True]]
    """
    numbers = np.arange(num_nodes + 1, dtype=np.int32)
    return Ideals(
        member=np.tri(num_nodes + 1, num_nodes, -1, dtype=np.bool_),
        step_start=np.append(numbers, numbers[-1]),
        step_node=numbers[:-1],
        step_to=numbers[1:],
    )


@compiled
def _ideals(start: Int32, before: Int32, capacity: int) -> tuple[Bool, Int32, int]:
    """Member and step tables, (capacity, num_nodes) each, and how many rows are used; or -1.

    An ideal is first made from the one without its largest node. Without another node v it is
    that one's step by v, and then by its largest node, which is known already.
    """
    nodes = start.size - 1
    member = np.empty((capacity, nodes), dtype=np.bool_)
    to = np.empty((capacity, nodes), dtype=np.int32)
    parent = np.empty(capacity, dtype=np.int32)
    largest = np.empty(capacity, dtype=np.int32)
    member[0] = False
    parent[0] = largest[0] = NONE
    first, count = 0, 1
    while first < count:
        last = count
        for ideal in range(first, last):
            for node in range(nodes):
                to[ideal, node] = NONE
                available = not member[ideal, node]
                for position in range(start[node], start[node + 1]):
                    available = available and member[ideal, before[position]]
                if not available:
                    continue
                if node < largest[ideal]:
                    to[ideal, node] = LATER
                    continue
                if count == capacity:
                    return member, to, -1
                member[count] = member[ideal]
                member[count, node] = True
                parent[count], largest[count] = ideal, node
                to[ideal, node] = count
                count += 1
        for ideal in range(first, last):
            for node in range(nodes):
                if to[ideal, node] == LATER:
                    to[ideal, node] = to[to[parent[ideal], node], largest[ideal]]
        first = last
    return member, to, count
