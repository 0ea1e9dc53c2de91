"""Constraints on placements for devices in a line, such as the chips of a multi-chip module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from device_placement.envs.arrays import Int32, Int64, PlacementColumns, UInt8
from device_placement.envs.costs import Costs
from device_placement.envs.devices import Device
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.jit import compiled_above

CONSTRAINTS: Mapping[str, str] = {
    "acyclic": "data goes from a device to itself or to one with a higher number",
    "no_skip": "the devices used are the first ones, without a gap",
    "triangle": "data that goes from a to b directly does not also go there over others",
    "neighbours": "data goes from a device to itself or to the next one",
    "memory": "every device has a memory limit (limits hold with and without this)",
}
"""Name -> what it demands of a placement."""

DIRECTED = ("triangle", "neighbours")  # they are about data that only goes forward
BROKEN = ("acyclic", "no_skip", "triangle", "neighbours")
"""The constraints that `first_broken` checks, in this order."""


def parse_constraints(constraints: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of constraints in the order of `CONSTRAINTS`, each once.

    Args:
        constraints: a list of names, or one text with commas between them; empty: none.

    Raises:
        DevicePlacementError: on an unknown name, or one that needs ``acyclic`` without it.

    >>> parse_constraints("memory,acyclic")
    ('acyclic', 'memory')
    """
    names = constraints.split(",") if isinstance(constraints, str) else list(constraints)
    chosen = {name.strip() for name in names if name.strip()}
    for name in sorted(chosen):
        choose("constraint", name, CONSTRAINTS)
    alone = [name for name in DIRECTED if name in chosen and "acyclic" not in chosen]
    if alone:
        raise DevicePlacementError(
            f"Got the constraint {alone[0]!r} without 'acyclic', in which data may go back, too; "
            f"give 'acyclic,{alone[0]}'."
        )
    return tuple(name for name in CONSTRAINTS if name in chosen)


def check_limits(constraints: Sequence[str], devices: Sequence[Device], costs: Costs) -> None:
    """Check that memory limits are there if they are asked for.

    Raises:
        DevicePlacementError: when ``memory`` is among the constraints and a device has no limit.
    """
    if "memory" not in constraints:
        return
    unlimited = np.flatnonzero(~np.isfinite(costs.reachable_bytes())).tolist()
    if unlimited:
        names = ", ".join(devices[number].name for number in unlimited[:3])
        raise DevicePlacementError(
            f"Got the constraint 'memory', but {names}{' ...' if len(unlimited) > 3 else ''} "
            f"({len(unlimited)} of {len(devices)} devices) has no memory limit; give "
            "Device(name, memory_bytes=...), or leave 'memory' out."
        )


def first_broken(costs: Costs, devices: PlacementColumns) -> UInt8:
    """Return the first constraint that each placement breaks, (batch,).

    Args:
        costs: with the constraints.
        devices: (num_groups, batch) device numbers.

    Returns:
        Positions in `BROKEN` plus 1; 0: none is broken.
    """
    wanted = np.array([name in costs.constraints for name in BROKEN], dtype=np.int64)
    if not wanted.any():
        return np.zeros(devices.shape[1], dtype=np.uint8)
    return _first_broken(devices, costs.edges, wanted, costs.num_devices)


@compiled_above(1000)
def _first_broken(
    devices: PlacementColumns, edges: Int32, wanted: Int64, num_devices: int
) -> UInt8:
    """Return (batch,) positions of broken constraints plus 1; `wanted` is one flag for each."""
    groups, batch = devices.shape
    broken = np.zeros(batch, dtype=np.uint8)
    sent = np.zeros(num_devices, dtype=np.int64)  # bit b of a: data goes from a to b
    reached = np.zeros(num_devices, dtype=np.int64)  # bit b of a: b is reached from a
    one, used = np.int64(1), np.zeros(1, dtype=np.int64)
    for column in range(batch):
        sent[:] = 0
        used[0] = 0
        for group in range(groups):
            used[0] |= one << np.int64(devices[group, column])
        back, far, bypassed = 0, 0, 0
        for edge in range(edges.shape[1]):
            source = np.int64(devices[edges[0, edge], column])
            target = np.int64(devices[edges[1, edge], column])
            if source > target:
                back += 1
            if target > source + 1:
                far += 1
            if source != target:
                sent[source] |= one << target
        if wanted[2] and not back:
            for device in range(num_devices - 1, -1, -1):
                reached[device] = sent[device]
                for other in range(device + 1, num_devices):
                    if (sent[device] >> other) & 1:
                        if sent[device] & reached[other]:
                            bypassed += 1
                        reached[device] |= reached[other]
        if wanted[0] and back:
            broken[column] = 1
        elif wanted[1] and used[0] & (used[0] + 1):  # no row of ones from the lowest bit on
            broken[column] = 2
        elif wanted[2] and bypassed:
            broken[column] = 3
        elif wanted[3] and far:
            broken[column] = 4
    return broken
