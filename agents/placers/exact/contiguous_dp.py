"""Dynamic programming over the ideals of a graph for the best contiguous split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_placement.agents.placers.exact.contiguous_reduction import Parts
from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.jit import compiled

MAX_TABLE_CELLS = 20_000_000  # ideals times ways to use devices, each in 16 bytes
SLACK = 1e-9  # relative: equal sums may be rounded differently


@dataclass(frozen=True)
class Kinds:
    """Kinds of identical devices."""

    column: Int32  # (num_kinds,) a device of the kind
    count: Int32  # (num_kinds,) how many there are
    memory_bytes: Float64  # (num_kinds,) of each; inf where there is no limit
    pays: Bool  # (num_kinds,) whether each is charged for communication


@dataclass(frozen=True)
class Stage:
    """Parts on one device of a contiguous split."""

    kind: int
    parts: Bool  # (num_parts,) whether each is in it


def best_split(
    parts: Parts, ideals: Ideals, kinds: Kinds, upper_s: float
) -> tuple[float, list[Stage]] | None:
    """Find the contiguous split with the smallest maximum load, if that is below a bound.

    With dp[I][k] the smallest maximum load of a split of ideal I over k devices::

        dp[I][k] = min over ideals J in I of max(dp[J][k - 1], load of I without J)

    (Tarnawski et al., NeurIPS 2020, section 5; here k counts the devices of each kind.) From
    each J the sets grow node by node, and their loads with them. A set stops growing once its
    compute and the tensors it reads reach the bound, as both can only increase.

    Args:
        parts: to split.
        ideals: where to cut.
        kinds: of the devices.
        upper_s: the bound in seconds.

    Returns:
        The load in seconds and the stages in order; None when there is no such split.

    Raises:
        DevicePlacementError: when there are too many ideals for this number of devices.
    """
    ways = int(np.prod(kinds.count + 1))
    if len(ideals.member) * ways > MAX_TABLE_CELLS:
        raise DevicePlacementError(
            f"Got {len(ideals.member)} ideals times {ways} ways to use the devices; "
            f"the limit is {MAX_TABLE_CELLS}. Use cp_sat, or fewer groups: max_groups=..."
        )
    stride = np.cumprod(np.append(1, kinds.count[:-1] + 1))
    input_start, input_tensor = _inputs(parts)
    rest_s = (~ideals.member).astype(np.float64) @ parts.compute_s.min(axis=1, initial=np.inf)
    output_start = np.searchsorted(parts.tensor_part, np.arange(len(parts.compute_s) + 1))
    split = SplitArrays(
        step_start=ideals.step_start,
        step_part=ideals.step_node,
        step_to=ideals.step_to,
        rest_s=rest_s * (1 - SLACK),
        compute_s=np.ascontiguousarray(parts.compute_s[:, kinds.column].T),
        part_bytes=parts.part_bytes,
        input_start=input_start,
        input_tensor=input_tensor,
        output_start=output_start.astype(np.int32),
        tensor_part=parts.tensor_part,
        num_readers=np.diff(parts.reader_start),
        tensor_s=parts.tensor_s,
        memory_bytes=kinds.memory_bytes,
        pays=kinds.pays,
        num_devices=kinds.count,
        stride=stride,
    )
    load_s, before, last_kind = _best_loads(split, upper_s)
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
    """Return where each part's inputs begin, (num_parts + 1,), and the tensors, (num_readers,)."""
    tensor = np.repeat(np.arange(parts.tensor_part.size), np.diff(parts.reader_start))
    order = np.argsort(parts.reader, kind="stable")
    start = np.searchsorted(parts.reader[order], np.arange(len(parts.compute_s) + 1))
    return start.astype(np.int32), tensor[order].astype(np.int32)


class SplitArrays(NamedTuple):
    """Input of `_best_loads`, as a tuple of arrays for numba.

    Where `x_start` is an index, the entries of x that belong to i run from x_start[i] to
    x_start[i + 1].
    """

    step_start: Int32  # (num_ideals + 1,) index of the steps that leave each ideal
    step_part: Int32  # (num_steps,) the part that a step adds, ascending for each ideal
    step_to: Int32  # (num_steps,) the resulting ideal, which has a larger number
    rest_s: Float64  # (num_ideals,) least seconds of the parts outside, on one device
    compute_s: Float64  # (num_kinds, num_parts) seconds; inf where a part can't run
    part_bytes: Float64  # (num_parts,) bytes of weights
    input_start: Int32  # (num_parts + 1,) index of the tensors that each part reads
    input_tensor: Int32  # (num_readers,) tensors
    output_start: Int32  # (num_parts + 1,) first of the tensors that each part produces
    tensor_part: Int32  # (num_tensors,) the part that produces it, ascending
    num_readers: Int32  # (num_tensors,) how many parts read it
    tensor_s: Float64  # (num_tensors,) seconds to send it, and to receive it
    memory_bytes: Float64  # (num_kinds,) bytes of one device; inf where there is no limit
    pays: Bool  # (num_kinds,) whether a device is charged for communication
    num_devices: Int32  # (num_kinds,) how many there are of each
    stride: Int64  # (num_kinds,) what one more device of a kind adds to a way's number


@compiled
def _best_loads(split: SplitArrays, upper_s: float) -> tuple[Float64, Int32, NDArray[np.int8]]:
    """Fill the dp table; all three results are (num_ideals, num_ways).

    A way is a number of used devices of each kind, coded as one digit per kind. Entry [I, w]
    of the results: the smallest maximum load in seconds of a split of ideal I over the devices
    of way w, or inf if none is below `upper_s`; the ideal before the last set of that split;
    and the kind of the last set's device.

    The loops in their order:

    1. Ideals by number, so by size: all splits of an ideal are known before it is extended, as
       they end with a step from a smaller one.
    2. Kinds: what a set of parts costs depends on the kind, not on the devices used so far.
    3. All sets that may follow, by depth-first search, so that the sums change by one part at
       a time. A path adds parts in ascending order. This is always possible, as parts are
       numbered in topological order, so each set is visited once.
    4. Ways, innermost, along rows of the table: a set's load is computed once for all of them.
    """
    num_kinds, parts = split.compute_s.shape
    ideals = split.step_start.size - 1
    ways = split.stride[-1] * (split.num_devices[-1] + 1)
    best = np.full((ideals, ways), np.inf)
    before = np.zeros((ideals, ways), dtype=np.int32)
    last_kind = np.zeros((ideals, ways), dtype=np.int8)
    best[0, 0] = 0.0
    left = np.zeros(ways)  # devices of any kind that a way does not use
    for way in range(ways):
        for kind in range(num_kinds):
            left[way] += split.num_devices[kind] - (way // split.stride[kind]) % (
                split.num_devices[kind] + 1
            )
    # The set: parts 1 to depth of the stack. Both arrays are 0 whenever the stack is empty.
    inside = np.zeros(parts, dtype=np.bool_)  # whether a part is in the set
    read = np.zeros(split.tensor_s.size, dtype=np.int32)  # how many readers of a tensor are in it
    # The stack, by depth; at 0 is the empty set.
    at = np.zeros(parts + 1, dtype=np.int32)  # the ideal that is reached
    position = np.zeros(parts + 1, dtype=np.int32)  # the step from it to try next
    part = np.full(parts + 1, -1, dtype=np.int32)  # the last part added
    basis = np.zeros(parts + 1)  # seconds of compute and of receiving: these only grow
    sends = np.zeros(parts + 1)  # seconds of sending: less when the last reader joins
    weight = np.zeros(parts + 1)  # bytes
    alive = np.empty(ways, dtype=np.int32)  # the first num_alive: ways worth extending
    for start in range(ideals - 1):
        for kind in range(num_kinds):
            num_alive = 0
            for way in range(ways):
                used = (way // split.stride[kind]) % (split.num_devices[kind] + 1)
                free = used < split.num_devices[kind]
                # The remaining devices must take the rest below the bound, even if spread evenly.
                enough = split.rest_s[start] < upper_s * left[way]
                if free and best[start, way] < upper_s and enough:
                    alive[num_alive] = way
                    num_alive += 1
            if num_alive == 0:
                continue
            depth = 0
            at[0], position[0] = start, split.step_start[start]
            while depth >= 0:
                if position[depth] == split.step_start[at[depth] + 1]:
                    new = part[depth]
                    depth -= 1
                    if depth >= 0:  # remove it again
                        inside[new] = False
                        for index in range(split.input_start[new], split.input_start[new + 1]):
                            read[split.input_tensor[index]] -= 1
                    continue
                new, reached = split.step_part[position[depth]], split.step_to[position[depth]]
                position[depth] += 1
                if new < part[depth]:  # visited on another path
                    continue
                base, sent = basis[depth] + split.compute_s[kind, new], sends[depth]
                held = weight[depth] + split.part_bytes[new]
                if not base < upper_s or held > split.memory_bytes[kind]:
                    continue
                inside[new] = True
                for index in range(split.input_start[new], split.input_start[new + 1]):
                    tensor = split.input_tensor[index]
                    read[tensor] += 1
                    if not split.pays[kind]:
                        continue
                    if inside[split.tensor_part[tensor]]:
                        if read[tensor] == split.num_readers[tensor]:  # no reader outside
                            sent -= split.tensor_s[tensor]
                    elif read[tensor] == 1:  # received once, however many read it
                        base += split.tensor_s[tensor]
                if split.pays[kind]:
                    for tensor in range(split.output_start[new], split.output_start[new + 1]):
                        sent += split.tensor_s[tensor]
                depth += 1
                at[depth], position[depth], part[depth] = reached, split.step_start[reached], new
                basis[depth], sends[depth], weight[depth] = base, sent, held
                if not base < upper_s:  # nor with more parts: skip all steps from here
                    position[depth] = split.step_start[reached + 1]
                load = base + sent
                if load < upper_s:
                    for index in range(num_alive):
                        way = alive[index]
                        largest = max(best[start, way], load)
                        if largest < best[reached, way + split.stride[kind]]:
                            best[reached, way + split.stride[kind]] = largest
                            before[reached, way + split.stride[kind]] = start
                            last_kind[reached, way + split.stride[kind]] = kind
    return best, before, last_kind


MAX_IDEAL_CELLS = 30_000_000  # ideals times nodes, each in 5 bytes
NONE, LATER = -1, -2  # not available; available, and its ideal not known yet


@dataclass(frozen=True)
class Ideals:
    """Ideals by size, the empty one first and the whole graph last, and the steps between them."""

    member: Bool  # (num_ideals, num_nodes)
    step_start: Int32  # (num_ideals + 1,) where each ideal's steps begin
    step_node: Int32  # (num_steps,) the node that is added, ascending for each ideal
    step_to: Int32  # (num_steps,) the resulting ideal


def find_ideals(num_nodes: int, edges: Int32, max_cells: int = MAX_IDEAL_CELLS) -> Ideals:
    """Find every ideal of a DAG: every set of nodes that is closed under predecessors.

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
            f"Got a graph of {num_nodes} parts with more ideals than the limit of {capacity}; use "
            "cp_sat, or fewer groups: max_groups=..."
        )
    ideal, node = np.nonzero(to[:count] >= 0)
    return Ideals(
        member=member[:count],
        step_start=np.searchsorted(ideal, np.arange(count + 1)).astype(np.int32),
        step_node=node.astype(np.int32),
        step_to=to[ideal, node],
    )


def chain_of_ideals(num_nodes: int) -> Ideals:
    """Return only the prefixes of the topological order.

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
    """Return member and step tables, (capacity, num_nodes), and the number of used rows, or -1.

    The outer loop is over sizes. Each ideal is created once, from its parent, which lacks its
    largest node, so no ideal has to be looked up. A step by a smaller node v leads to an ideal
    with another parent: step by v from this ideal's parent, then by this ideal's largest node.
    The first of these steps is known from the previous size, the second after a first pass.

    Args:
        start: (num_nodes + 1,) where each node's predecessors begin.
        before: (num_edges,) predecessors.
        capacity: the most ideals.
    """
    nodes = start.size - 1
    # Only the first `count` rows are set; the others cost no memory until they are written.
    member = np.empty((capacity, nodes), dtype=np.bool_)  # whether an ideal has a node
    to = np.empty((capacity, nodes), dtype=np.int32)  # the ideal with one node more, NONE or LATER
    parent = np.empty(capacity, dtype=np.int32)  # the ideal without the largest node
    largest = np.empty(capacity, dtype=np.int32)  # that node
    member[0] = False
    parent[0] = largest[0] = NONE
    first, count = 0, 1  # the ideals of one size: first to last
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
