"""Frame of a search for valid placements, from costs: edges, detours, limits and colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Int32, Int64
from device_placement.envs.costs import FREE, MAX_PIPELINED, Costs
from device_placement.envs.errors import DeviceError
from device_placement.envs.repair.kernels import Frame


def make_frame(costs: Costs, supported: Bool | None = None) -> Frame:
    """Return the frame of a search for placements that satisfy the constraints of costs.

    Args:
        costs: with constraints, memory limits and colours.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.

    Raises:
        DeviceError: when there are more than `MAX_PIPELINED` devices, as a domain is a whole
            number with one bit for each.
    """
    if costs.num_devices > MAX_PIPELINED:
        raise DeviceError(
            f"Got {costs.num_devices} devices; constraints take up to {MAX_PIPELINED}. Use fewer."
        )
    groups, wanted = costs.num_groups, costs.constraints
    runs = np.isfinite(costs.compute_s)
    if supported is not None:
        runs &= supported
    edges = costs.edges
    limits = list(costs.memory_limits())
    triangle = "triangle" in wanted
    leads = _leads(edges, groups)
    detours, between = _detours(edges, leads) if triangle else (np.zeros((2, 0), np.int64), [])
    over = [[] for _ in range(groups)]  # type: list[list[int]]
    for detour, middle in enumerate(between):
        for group in middle:
            over[group].append(detour)
    ones: list[int] = [1 << device for device in range(costs.num_devices)]
    return Frame(
        acyclic="acyclic" in wanted,
        no_skip="no_skip" in wanted,
        triangle=triangle,
        neighbours="neighbours" in wanted,
        num_devices=costs.num_devices,
        domain=np.array([sum(np.array(ones)[row].tolist()) for row in runs], dtype=np.int64),
        weight=costs.group_bytes.astype(np.float64),
        limit_devices=np.array([sum(1 << one for one in some) for some, _ in limits], np.int64),
        limit_bytes=np.array([limit for _, limit in limits], dtype=np.float64),
        **_flat("producer", _by(edges[1], edges[0], groups)),
        **_flat("reader", _by(edges[0], edges[1], groups)),
        leads=leads,
        follows=np.ascontiguousarray(leads.T),
        **_flat("member", [some for some, _ in limits]),
        **_flat("mate", _mates(costs.colour)),
        detour_from=detours[0],
        detour_to=detours[1],
        **_flat("between", between),
        **_flat("over", over),
        **_flat("begin", _by(detours[0], np.arange(len(between)), groups)),
        **_flat("end", _by(detours[1], np.arange(len(between)), groups)),
    )


def _flat(name: str, lists: Sequence[Sequence[int]]) -> dict[str, Int64]:
    """Return lists as one array, and where each begins, by the names of a frame's fields."""
    start = np.cumsum([0, *map(len, lists)], dtype=np.int64)
    return {
        f"{name}_start": start,
        name: np.array([one for some in lists for one in some], dtype=np.int64),
    }


def _by(keys: NDArray[np.integer], values: NDArray[np.integer], groups: int) -> list[list[int]]:
    """Return the values of each key, for keys from 0 to the number of groups."""
    lists: list[list[int]] = [[] for _ in range(groups)]
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        lists[key].append(value)
    return lists


def _mates(colour: Int32) -> list[list[int]]:
    """Return the other groups of each group's colour."""
    return [
        [
            other
            for other in np.flatnonzero(colour == one).tolist()
            if one != FREE and other != group
        ]
        for group, one in enumerate(colour.tolist())
    ]


def _leads(edges: Int32, groups: int) -> Bool:
    """Return whether data of the first group gets to the second, (num_groups, num_groups)."""
    leads = np.zeros((groups, groups), dtype=np.bool_)
    for producer, reader in sorted(edges.T.tolist(), reverse=True):  # readers first
        leads[producer] |= leads[reader]
        leads[producer, reader] = True
    return leads


def _detours(edges: Int32, leads: Bool) -> tuple[Int64, list[list[int]]]:
    """Return the edges with groups on the way, (2, num_detours), and those groups.

    A group is on the way of an edge if its producer leads there, and it leads to its reader.
    """
    between = [np.flatnonzero(leads[producer] & leads[:, reader]) for producer, reader in edges.T]
    some = [number for number, middle in enumerate(between) if middle.size]
    return edges[:, some].astype(np.int64), [between[number].tolist() for number in some]
