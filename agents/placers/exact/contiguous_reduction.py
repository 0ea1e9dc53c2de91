"""Graph reduction before a contiguous split: merge groups that some best split keeps together."""

from __future__ import annotations

from dataclasses import dataclass, field

import networkx as nx
import numpy as np

from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs.arrays import Float64, Int32
from device_placement.envs.costs import FREE, Costs

NOWHERE = -1  # no part: it costs nothing on any device; also the last entry of an array


@dataclass(frozen=True)
class Parts:
    """A DAG of parts in topological order, and the tensors between them."""

    part: Int32  # (num_groups,) the part of each group; NOWHERE: in the first stage
    compute_s: Float64  # (num_parts, num_devices) inf where a part can't run
    part_bytes: Float64  # (num_parts,) of weights
    tensor_part: Int32  # (num_tensors,) the part that produces it, ascending
    tensor_s: Float64  # (num_tensors,) between any two devices
    reader_start: Int32  # (num_tensors + 1,) where each tensor's readers begin
    reader: Int32  # (num_readers,) parts, each once per tensor


@dataclass(eq=False)  # compared by identity
class _Tensor:
    producer: int
    readers: set[int]
    time_s: float


@dataclass
class _Unit:
    busy: bool  # takes time on some device
    inputs: list[_Tensor] = field(default_factory=list)
    outputs: list[_Tensor] = field(default_factory=list)


def find_parts(costs: Costs, space: SearchSpace) -> Parts:
    """Merge groups that some best contiguous split under `max_load` has on one device.

    - Units on a cycle, which colours can cause, are together in any contiguous split.
    - A unit that takes no time joins its only producer or its only reader if that adds
      nothing to move; neither load grows.
    - A unit that takes no time, reads nothing and produces only free tensors is left out.

    The last two rules are skipped when a device can't hold all weights.

    Args:
        costs: with equal transfer times between any two devices.
        space: of the same groups.
    """
    label = space.unit.astype(np.int32)
    if (costs.colour != FREE).any():
        label = _without_cycles(label, _tensors(costs, label))
    tensors = _tensors(costs, label)
    if (costs.group_bytes.sum() <= costs.reachable_bytes()).all():
        label = _without_idle(label, tensors, set(label[costs.compute_s.any(axis=1)].tolist()))
    return _in_order(costs, label, [tensor for tensor in tensors if tensor.readers])


def _tensors(costs: Costs, label: Int32) -> list[_Tensor]:
    times_s = costs.latency_s.max() + costs.tensor_bytes * costs.s_per_byte.max()
    producers, readers = label[costs.tensor_group].tolist(), label[costs.reader].tolist()
    starts = costs.reader_start.tolist()
    return [
        _Tensor(producer, set(readers[start:end]) - {producer}, time_s)
        for producer, time_s, start, end in zip(
            producers, times_s.tolist(), starts, starts[1:], strict=False
        )
    ]


def _without_cycles(label: Int32, tensors: list[_Tensor]) -> Int32:
    rings = nx.strongly_connected_components(_digraph(label, tensors))
    first = {unit: min(ring) for ring in rings for unit in ring}
    return np.array([first[unit] for unit in label.tolist()], dtype=np.int32)


def _digraph(label: Int32, tensors: list[_Tensor]) -> nx.DiGraph[int]:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(label.tolist())
    graph.add_edges_from((one.producer, reader) for one in tensors for reader in one.readers)
    return graph


def _without_idle(label: Int32, tensors: list[_Tensor], busy: set[int]) -> Int32:
    """Return the labels after all merges that the rules allow; change the tensors in place."""
    units = {unit: _Unit(unit in busy) for unit in label.tolist()}
    for tensor in tensors:
        units[tensor.producer].outputs.append(tensor)
        for reader in tensor.readers:
            units[reader].inputs.append(tensor)
    goes_to: dict[int, int] = {}
    waiting = [unit for unit in units if not units[unit].busy]
    while waiting:
        unit = waiting.pop()
        target = None if unit in goes_to else _target(unit, units[unit])
        if target is None:
            continue
        touched = {one.producer for one in units[unit].inputs}
        touched |= {reader for one in units[unit].outputs for reader in one.readers}
        goes_to[unit] = target
        _move(unit, target, units)
        waiting += [one for one in touched | {target} if one in units and not units[one].busy]
    return np.array([_follow(unit, goes_to) for unit in label.tolist()], dtype=np.int32)


def _target(unit: int, content: _Unit) -> int | None:
    """Return the unit that one without compute time should join, if any."""
    inputs = [one for one in content.inputs if unit in one.readers]
    outputs = [one for one in content.outputs if one.readers]
    in_s, out_s = (sum(one.time_s for one in some) for some in (inputs, outputs))
    if not inputs and out_s == 0:
        return NOWHERE
    if len(inputs) == 1 and (out_s == 0 or (inputs[0].readers == {unit} and out_s <= in_s)):
        return inputs[0].producer
    readers = set().union(*(one.readers for one in outputs))
    if len(readers) == 1 and in_s <= out_s:
        return readers.pop()
    return None


def _move(unit: int, target: int, units: dict[int, _Unit]) -> None:
    content = units[unit]
    for tensor in content.inputs:
        tensor.readers.discard(unit)
        if target not in (NOWHERE, tensor.producer) and tensor not in units[target].inputs:
            tensor.readers.add(target)
            units[target].inputs.append(tensor)
    for tensor in content.outputs:
        tensor.producer = target
        tensor.readers.discard(target)
        if target == NOWHERE:
            tensor.readers.clear()
        else:
            units[target].outputs.append(tensor)


def _follow(unit: int, goes_to: dict[int, int]) -> int:
    while unit in goes_to:
        unit = goes_to[unit]
    return unit


def _in_order(costs: Costs, label: Int32, tensors: list[_Tensor]) -> Parts:
    """Number the parts in topological order and return everything as arrays."""
    graph = _digraph(label[label != NOWHERE], tensors)
    rank = {unit: number for number, unit in enumerate(nx.topological_sort(graph))}
    tensors = sorted(tensors, key=lambda tensor: rank[tensor.producer])
    part = np.array([rank.get(unit, NOWHERE) for unit in label.tolist()], dtype=np.int32)
    placed = part != NOWHERE
    compute_s = np.zeros((len(rank), costs.num_devices))
    np.add.at(compute_s, part[placed], costs.compute_s[placed])
    part_bytes = np.zeros(len(rank))
    np.add.at(part_bytes, part[placed], costs.group_bytes[placed])
    readers = [sorted(rank[reader] for reader in tensor.readers) for tensor in tensors]
    return Parts(
        part=part,
        compute_s=compute_s,
        part_bytes=part_bytes,
        tensor_part=np.array([rank[one.producer] for one in tensors], dtype=np.int32),
        tensor_s=np.array([one.time_s for one in tensors], dtype=np.float64),
        reader_start=np.cumsum([0, *map(len, readers)]).astype(np.int32),
        reader=np.array([part for row in readers for part in row], dtype=np.int32),
    )
