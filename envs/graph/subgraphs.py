"""Names of devices by which HETERO does not separate tied ops of a placed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Int64
from device_placement.envs.graph.components import components
from device_placement.envs.graph.computation_graph import constant_ops, read_edges
from device_placement.envs.graph.partition import topological_order
from device_placement.envs.graph.tied_ops import STATE_TYPES, read_tied_ops


def device_spellings(name: str) -> list[str]:
    """Return names that are one device to OpenVINO, but different ones to HETERO.

    Where OpenVINO looks for the plugin it drops a leading "-" (by which AUTO leaves a device out)
    and an empty number. Properties stay the same.

    >>> device_spellings("GPU.0")
    ['GPU.0', '-GPU.0']
    """
    names = [name, f"-{name}"]
    return names if "." in name else [*names, *(f"{one}." for one in names)]


def spell_devices(model: Any, devices: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each op's device, spelled so that HETERO keeps tied ops together.

    HETERO makes a subgraph of connected ops with equal names. Where a path leaves a subgraph
    and comes back, it splits subgraphs at edges of its choice, which may lie between tied ops.
    Such subgraphs are split here first, with tied ops whole, and neighbours among the pieces
    are spelled differently.

    Args:
        model: the normalised ``openvino.Model``.
        devices: the name of each op's device, by the op's name.
    """
    if len(set(devices.values())) < 2 or not _has_tied_ops(model):
        return dict(devices)
    ops = model.get_ordered_ops()
    names = [op.get_friendly_name() for op in ops]
    edge_index = read_edges(ops)[:2]
    constant = constant_ops(ops, edge_index)
    tied = [one.ops for one in read_tied_ops(ops, edge_index, constant)]
    results = [op.get_type_name() == "Result" for op in ops]
    node = _nodes(edge_index, constant | np.array(results), tied)
    _, first, node = np.unique(node, return_index=True, return_inverse=True)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(devices.values()))}
    device = np.array([numbers[devices[names[op]]] for op in first.tolist()])
    ends = node[edge_index]
    ends = ends[:, ends[0] != ends[1]]
    piece = _pieces(ends, device, node[[members[0] for members in tied]])
    colour = _colours(ends, device, piece)
    spelled = {name: device_spellings(name) for name in numbers}
    return {
        name: spelled[devices[name]][colour[number] % len(spelled[devices[name]])]
        for name, number in zip(names, node.tolist(), strict=True)
    }


def _has_tied_ops(model: Any) -> bool:
    ops = model.get_ops()
    return model.is_dynamic() or any(op.get_type_name() in STATE_TYPES for op in ops)


def _nodes(edge_index: Int64, movers: Bool, tied: Sequence[Sequence[int]]) -> Int64:
    """Return a label for each op, (num_ops,), that tied ops share.

    Of the movers, constant ops share that of their last consumer and Results their producer's.
    """
    label = np.arange(len(movers))
    for members in tied:
        label[list(members)] = members[0]
    alone = movers & (np.bincount(label, minlength=label.size)[label] == 1)
    producer, consumer = edge_index
    for edge in np.flatnonzero(alone[producer])[::-1].tolist():
        if label[producer[edge]] == producer[edge]:
            label[producer[edge]] = label[consumer[edge]]
    for edge in np.flatnonzero(alone[consumer]).tolist():
        if label[consumer[edge]] == consumer[edge]:
            label[consumer[edge]] = label[producer[edge]]
    return label


def _pieces(edge_index: Int64, device: Int64, tied: Int64) -> Int64:
    """Return the piece of each node, (num_nodes,): connected nodes of one device.

    Where tied nodes would lie in a cycle of pieces, each path that enters a piece again enters
    another one instead, so that no cycle leads through them.

    Args:
        edge_index: (2, num_edges) of a DAG.
        device: (num_nodes,).
        tied: the tied nodes.
    """
    producer, consumer = edge_index
    whole = components(device.size, edge_index[:, device[producer] == device[consumer]], "weak")
    ring = components(int(whole.max()) + 1, whole[edge_index], "strong")[whole]
    cyclic = np.isin(ring, ring[tied])  # a ring of one piece has one level
    into: list[list[int]] = [[] for _ in device]
    for source, target in edge_index[:, ring[producer] == ring[consumer]].T.tolist():
        into[target].append(source)
    level = np.zeros(device.size, np.int64)  # how often a path to the node changes the piece
    for number in topological_order(edge_index, [0] * device.size):
        if cyclic[number]:
            steps = [level[one] + (whole[one] != whole[number]) for one in into[number]]
            level[number] = max(steps, default=0)
    same = (whole[producer] == whole[consumer]) & (level[producer] == level[consumer])
    return components(device.size, edge_index[:, same], "weak")


def _colours(edge_index: Int64, device: Int64, piece: Int64) -> list[int]:
    """Return a number for each node, (num_nodes,), that differs between neighbouring pieces.

    Pieces on different devices may have the same; the smallest possible numbers are used.
    """
    producer, consumer = edge_index
    joined = (device[producer] == device[consumer]) & (piece[producer] != piece[consumer])
    neighbours: list[set[int]] = [set() for _ in range(int(piece.max()) + 1)]
    for one, other in piece[edge_index[:, joined]].T.tolist():
        neighbours[one].add(other)
        neighbours[other].add(one)
    colour: dict[int, int] = {}
    for number in dict.fromkeys(piece.tolist()):
        taken = {colour.get(other) for other in neighbours[number]}
        colour[number] = next(one for one in range(len(taken) + 1) if one not in taken)
    return [colour[number] for number in piece.tolist()]
