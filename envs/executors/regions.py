"""Regions of a placed model: the largest pieces that can run on one device without delaying others.

Groups share a region if they are on one device, connected, and have the same crossing tensors
among their ancestors and the same among their descendants. A tensor crosses if a group on another
device reads it. So every group of a region waits for the same tensors, and every tensor that
leaves it needs all of its groups. Across an edge between two regions the set before grows or the
set after shrinks; hence the regions are convex, and have no cycles between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Int64
from device_placement.envs.errors import PlacementError
from device_placement.envs.executors.dataflow import Region
from device_placement.envs.graph.components import components
from device_placement.envs.graph.computation_graph import NO_WORK, constant_ops, read_edges
from device_placement.envs.graph.partition import topological_order


def find_regions(producer: Int64, consumer: Int64, tensor: Int64, device: Int64) -> Int64:
    """Return the region of each group, (num_groups,), numbered topologically.

    Of several possible next regions, the one with the smallest group comes first.

    Args:
        producer: (num_edges,) group.
        consumer: (num_edges,) group.
        tensor: (num_edges,) label of the tensor along the edge, shared by all its readers.
        device: (num_groups,) device of each group.

    Raises:
        PlacementError: when the groups have a cycle between them.

    >>> producer, consumer = np.array([[0, 0, 1, 2], [1, 2, 3, 3]])  # a diamond
    >>> find_regions(producer, consumer, np.array([0, 0, 1, 2]), np.array([0, 0, 1, 0])).tolist()
    [0, 1, 2, 3]
    """
    cross = producer != consumer
    producer, consumer, tensor = producer[cross], consumer[cross], tensor[cross]
    edge_index = np.stack([producer, consumer])
    order = topological_order(edge_index, [0] * device.size)
    if len(order) < device.size:
        raise PlacementError(
            "The placement's groups have a cycle between them, so none of them can run first. "
            "Give a placement that was made with `coarsen`."
        )
    before, after = _crossing_tensors(edge_index, tensor, device, order)
    kinds: dict[tuple[int, int, int], int] = {}
    keys = zip(device.tolist(), before, after, strict=True)
    kind = np.array([kinds.setdefault(key, len(kinds)) for key in keys], np.int64)
    label = components(device.size, edge_index[:, kind[producer] == kind[consumer]], "weak")
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    label = np.argsort(np.argsort(first))[label]  # by the smallest group
    between = edge_index[:, label[producer] != label[consumer]]
    order = topological_order(label[between], [0] * first.size)
    return np.argsort(np.array(order, np.int64))[label]


def _crossing_tensors(
    edge_index: Int64, tensor: Int64, device: Int64, order: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the crossing tensors before and after each group, as bit sets of (num_groups,)."""
    num_groups = device.size
    before, after = [0] * num_groups, [0] * num_groups
    crosses = device[edge_index[0]] != device[edge_index[1]]
    _, number = np.unique(tensor[crosses], return_inverse=True)
    bits = [0] * tensor.size
    for edge, bit in zip(np.flatnonzero(crosses).tolist(), number.tolist(), strict=True):
        bits[edge] = 1 << bit
    into: list[list[tuple[int, int]]] = [[] for _ in range(num_groups)]
    out: list[list[tuple[int, int]]] = [[] for _ in range(num_groups)]
    for (source, target), bit in zip(edge_index.T.tolist(), bits, strict=True):
        into[target].append((source, bit))
        out[source].append((target, bit))
    for group in order:
        for source, bit in into[group]:
            before[group] |= before[source] | bit
    for group in reversed(order):
        for target, bit in out[group]:
            after[group] |= after[target] | bit
    return before, after


def working_edges(edge_index: Int64, edge_port: Int64, is_idle: Bool) -> tuple[Int64, Int64]:
    """Return the edges between ops that work, (2, num_kept), and their tensors, (num_kept,).

    Args:
        edge_index: (2, num_edges) producer op, consumer op.
        edge_port: (num_edges,) output port of the producer.
        is_idle: (num_ops,) Parameters, Results and ops computed from Constants alone.
    """
    kept = ~is_idle[edge_index].any(axis=0)
    ends = edge_index[:, kept].astype(np.int64)
    ports = int(edge_port.max(initial=0)) + 1
    return ends, ends[0] * ports + edge_port[kept]


def plan_regions(
    model: Any, devices: Mapping[str, str], groups: Mapping[str, int] | None = None
) -> tuple[Region, ...]:
    """Return the regions of a placed model, in topological order.

    Parameters, Results and ops computed from Constants alone are in no region: inputs are there
    from the beginning, and every region has its own copy of the constants it reads.

    Args:
        model: the normalised ``openvino.Model``.
        devices: the name of each op's device, by the op's name.
        groups: the number of each op's group, by the op's name; by default each op is a group of
            its own, which may separate ops that the device would run as one.

    Raises:
        PlacementError: when the groups have a cycle between them, or one is on several devices.
    """
    ops = model.get_ordered_ops()
    names = [op.get_friendly_name() for op in ops]
    edges = read_edges(ops)
    idle = constant_ops(ops, edges) | [op.get_type_name() in NO_WORK for op in ops]
    working = np.flatnonzero(~idle).tolist()
    labels = [groups[names[op]] if groups else op for op in working]
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    number = {name: index for index, name in enumerate(dict.fromkeys(devices.values()))}
    op_device = np.array([number[devices[names[op]]] for op in working], np.int64)
    device = op_device[first]
    if (device[group] != op_device).any():
        raise PlacementError("A group of the placement is on several devices; give it one.")
    ends, tensor = working_edges(edges[:2], edges[2], idle)
    group_of = np.zeros(len(ops), np.int64)
    group_of[working] = group
    region = find_regions(group_of[ends[0]], group_of[ends[1]], tensor, device)
    members: dict[int, list[int]] = {one: [] for one in range(int(region.max(initial=-1)) + 1)}
    for op, one in zip(working, region[group].tolist(), strict=True):
        members[one].append(op)
    return tuple(
        Region(devices[names[ops_of[0]]], tuple(names[op] for op in ops_of))
        for ops_of in members.values()
    )
