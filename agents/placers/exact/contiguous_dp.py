"""The best contiguous split: dynamic programming over the ideals of a graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_placement.agents.placers.exact.contiguous_reduction import Parts
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.computation_graph import Bool, Float64, Int32
from device_placement.envs.jit import compiled

MAX_TABLE_CELLS = 20_000_000  # ideals times ways to use devices, each in 16 bytes
SLACK = 1e-9  # relative: equal sums may be rounded differently


@dataclass(frozen=True)
class Kinds:
    """Kinds of devices; those of one kind are alike."""

    column: Int32  # (num_kinds,) a device of the kind
    count: Int32  # (num_kinds,) how many there are
    memory_bytes: Float64  # (num_kinds,) of each; inf where there is no limit
    pays: Bool  # (num_kinds,) whether each is charged for communication


@dataclass(frozen=True)
class Stage:
    """One device's set in a contiguous split."""

    kind: int
    parts: Bool  # (num_parts,) those in it


def best_split(
    parts: Parts, ideals: Ideals, kinds: Kinds, upper_s: float
) -> tuple[float, list[Stage]] | None:
    """The contiguous split whose largest load is smallest, when that is below a bound.

    With dp[I][k] the smallest largest load of a split of ideal I over k devices::

        dp[I][k] = min over ideals J in I of max(dp[J][k - 1], load of I without J)

    (Tarnawski et al., NeurIPS 2020, section 5; here k counts the devices of each kind.) From
    each J the sets grow node by node, and their loads with them. A set is grown no further once
    its compute and the tensors it reads reach the bound, as both only become more.

    Args:
        parts: what is split.
        ideals: where it may be cut.
        kinds: of the devices.
        upper_s: the bound in seconds.

    Returns:
        The load in seconds and the stages in order; None when there is no such split.

    Raises:
        DevicePlacementError: when there are too many ideals for so many devices.
    """
    ways = int(np.prod(kinds.count + 1))
    if len(ideals.member) * ways > MAX_TABLE_CELLS:
        raise DevicePlacementError(
            f"{len(ideals.member)} sets to cut after, times {ways} ways to use the devices, are "
            "too many; use cp_sat, or fewer groups: max_groups=..."
        )
    stride = np.cumprod(np.append(1, kinds.count[:-1] + 1))
    input_start, input_tensor = _inputs(parts)
    rest_s = (~ideals.member).astype(np.float64) @ parts.compute_s.min(axis=1, initial=np.inf)
    load_s, before, last_kind = _best_loads(
        ideals.step_start,
        ideals.step_node,
        ideals.step_to,
        np.ascontiguousarray(parts.compute_s[:, kinds.column].T),
        parts.part_bytes,
        input_start,
        input_tensor,
        np.searchsorted(parts.tensor_part, np.arange(len(parts.compute_s) + 1)).astype(np.int32),
        parts.tensor_part,
        np.diff(parts.reader_start),
        parts.tensor_s,
        kinds.memory_bytes,
        kinds.pays,
        kinds.count,
        stride,
        rest_s * (1 - SLACK),
        upper_s,
    )
    way = int(load_s[-1].argmin())
    best_s = float(load_s[-1, way])
    if not best_s < upper_s:
        return None
    stages, ideal = [], len(ideals.member) - 1
    while ideal > 0:
        kind, smaller = int(last_kind[ideal, way]), int(before[ideal, way])
        stages.append(Stage(kind, ideals.member[ideal] & ~ideals.member[smaller]))
        ideal, way = smaller, way - int(stride[kind])
    return best_s, stages[::-1]


def _inputs(parts: Parts) -> tuple[Int32, Int32]:
    """Where each part's inputs begin, (num_parts + 1,), and the tensors, (num_readers,)."""
    tensor = np.repeat(np.arange(parts.tensor_part.size), np.diff(parts.reader_start))
    order = np.argsort(parts.reader, kind="stable")
    start = np.searchsorted(parts.reader[order], np.arange(len(parts.compute_s) + 1))
    return start.astype(np.int32), tensor[order].astype(np.int32)


@compiled
def _best_loads(
    step_start: Int32,
    step_node: Int32,
    step_to: Int32,
    compute_s: Float64,  # (num_kinds, num_parts)
    part_bytes: Float64,
    input_start: Int32,
    input_tensor: Int32,
    output_start: Int32,
    tensor_part: Int32,
    num_readers: Int32,
    tensor_s: Float64,
    memory_bytes: Float64,
    pays: Bool,
    count: Int32,
    stride: NDArray[np.int64],
    rest_s: Float64,  # (num_ideals,) the least that the other parts take
    upper_s: float,
) -> tuple[Float64, Int32, NDArray[np.int8]]:
    """The dp table, (num_ideals, num_ways), the ideal before each entry, and the kind used."""
    num_kinds, nodes = compute_s.shape
    ideals, ways = step_start.size - 1, stride[-1] * (count[-1] + 1)
    best = np.full((ideals, ways), np.inf)
    before = np.zeros((ideals, ways), dtype=np.int32)
    last_kind = np.zeros((ideals, ways), dtype=np.int8)
    best[0, 0] = 0.0
    left = np.zeros(ways)  # devices that are not used
    for way in range(ways):
        for kind in range(num_kinds):
            left[way] += count[kind] - (way // stride[kind]) % (count[kind] + 1)
    inside = np.zeros(nodes, dtype=np.bool_)
    read = np.zeros(tensor_s.size, dtype=np.int32)  # readers inside
    at = np.zeros(nodes + 1, dtype=np.int32)  # the ideal after so many nodes
    position = np.zeros(nodes + 1, dtype=np.int32)  # the step to try next
    node = np.full(nodes + 1, -1, dtype=np.int32)  # the last one added
    basis = np.zeros(nodes + 1)  # compute, and what is received
    sends = np.zeros(nodes + 1)
    weight = np.zeros(nodes + 1)
    alive = np.empty(ways, dtype=np.int32)
    for start in range(ideals - 1):
        for kind in range(num_kinds):
            num_alive = 0
            for way in range(ways):
                free = (way // stride[kind]) % (count[kind] + 1) < count[kind]
                if free and best[start, way] < upper_s and rest_s[start] < upper_s * left[way]:
                    alive[num_alive] = way
                    num_alive += 1
            if num_alive == 0:
                continue
            depth = 0
            at[0], position[0] = start, step_start[start]
            while depth >= 0:
                if position[depth] == step_start[at[depth] + 1]:
                    new = node[depth]
                    depth -= 1
                    if depth >= 0:  # take it out again
                        inside[new] = False
                        for index in range(input_start[new], input_start[new + 1]):
                            read[input_tensor[index]] -= 1
                    continue
                new, reached = step_node[position[depth]], step_to[position[depth]]
                position[depth] += 1
                if new < node[depth]:  # each set grows in one order only
                    continue
                base, sent = basis[depth] + compute_s[kind, new], sends[depth]
                held = weight[depth] + part_bytes[new]
                if not base < upper_s or held > memory_bytes[kind]:
                    continue
                inside[new] = True
                for index in range(input_start[new], input_start[new + 1]):
                    tensor = input_tensor[index]
                    read[tensor] += 1
                    if not pays[kind]:
                        continue
                    if inside[tensor_part[tensor]]:
                        if read[tensor] == num_readers[tensor]:
                            sent -= tensor_s[tensor]
                    elif read[tensor] == 1:
                        base += tensor_s[tensor]
                if pays[kind]:
                    for tensor in range(output_start[new], output_start[new + 1]):
                        sent += tensor_s[tensor]
                depth += 1
                at[depth], position[depth], node[depth] = reached, step_start[reached], new
                basis[depth], sends[depth], weight[depth] = base, sent, held
                if not base < upper_s:  # nor is it with more
                    position[depth] = step_start[reached + 1]
                load = base + sent
                if load < upper_s:
                    for index in range(num_alive):
                        way = alive[index]
                        largest = max(best[start, way], load)
                        if largest < best[reached, way + stride[kind]]:
                            best[reached, way + stride[kind]] = largest
                            before[reached, way + stride[kind]] = start
                            last_kind[reached, way + stride[kind]] = kind
    return best, before, last_kind


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
