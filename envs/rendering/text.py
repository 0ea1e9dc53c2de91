"""Text of a placement: runs of groups, and each device's share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.errors import PlacementError
from device_placement.envs.graph.coarsening import CoarseGraph

MAX_LINES = 24  # of a text; further runs of groups are only counted


def render_text(
    coarse: CoarseGraph,
    devices: Sequence[str],
    assignment: Sequence[int],
    time_s: float,
    num_subgraphs: int,
) -> str:
    """Return the placement as text: a line per run of groups on one device, and device shares.

    Args:
        coarse: the groups.
        devices: (num_devices,) names.
        assignment: (num_groups,) index of each group's device; -1 where there is none yet.
        time_s: seconds per inference; NaN when it was not timed.
        num_subgraphs: pieces that run separately; 0 when unknown.

    Raises:
        PlacementError: when the assignment does not fit the groups or the devices.
    """
    groups = checked_groups(coarse, devices, assignment)
    runs = [list(run) for _, run in groupby(range(coarse.num_groups), lambda g: groups[g])]
    unit, scale = flops_unit(float(coarse.graph.flops.sum()))
    rows = [("groups", "device", "ops", unit, "main op types")]
    for run in runs[:MAX_LINES]:
        span = f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}"
        ops = computed_ops(coarse, run)
        flops = f"{coarse.graph.flops[ops].sum() / scale:.3f}"
        kinds = ", ".join(main_types(coarse, ops)[:3])
        rows.append((span, _name(devices, groups[run[0]]), str(len(ops)), flops, kinds))
    lines = [f"{coarse.graph.name}: {headline(coarse, time_s, num_subgraphs)}"]
    lines += [f"  {line}" for line in align(rows, right=(2, 3))]
    if len(runs) > MAX_LINES:
        first = runs[MAX_LINES][0]
        lines.append(f"  ... {count(len(runs) - MAX_LINES, 'more run')}, from group {first} on")
    return "\n".join([*lines, *(f"  {line}" for line in shares(coarse, devices, groups))])


def printable(text: str) -> str:
    r"""Return text for a terminal, with control characters written as escapes.

    >>> print(printable("clear\x1b[2J the screen"))
    clear\x1b[2J the screen
    """
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def align(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return lines with aligned columns; columns in `right` are right-aligned.

    >>> align([("device", "ops"), ("CPU", "12")], right=[1])
    ['device  ops', 'CPU      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def flops_unit(flops: float) -> tuple[str, float]:
    """Return the unit that suits a number of FLOPs, and its size."""
    return ("GFLOPs", 1e9) if flops >= 1e8 else ("MFLOPs", 1e6)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 group`` and ``2 groups``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def checked_groups(
    coarse: CoarseGraph, devices: Sequence[str], assignment: Sequence[int]
) -> list[int]:
    """Return the device number of each group; arguments and errors as `render_text`."""
    groups = [int(device) for device in assignment]
    if len(groups) != coarse.num_groups or not all(-1 <= g < len(devices) for g in groups):
        raise PlacementError(
            f"Got {len(groups)} numbers from {min(groups, default=-1)} to "
            f"{max(groups, default=-1)}; give a device for each of the {coarse.num_groups} "
            f"groups, from -1 (not placed) to {len(devices) - 1}."
        )
    return groups


def _name(devices: Sequence[str], device: int) -> str:
    return devices[device] if device >= 0 else "not placed"


def headline(coarse: CoarseGraph, time_s: float, num_subgraphs: int) -> str:
    """Return time, subgraphs and groups of a placement as text; arguments as `render_text`."""
    parts = ["not timed" if math.isnan(time_s) else f"{time_s * 1e3:.3g} ms"]
    if num_subgraphs:
        parts.append(count(num_subgraphs, "subgraph"))
    return ", ".join([*parts, count(coarse.num_groups, "group")])


def computed_ops(coarse: CoarseGraph, groups: Sequence[int]) -> Int64:
    """Return the ops of some groups that are not constant; all if there are no others."""
    ops = np.flatnonzero(np.isin(coarse.op_group, groups))
    computed = ops[~coarse.graph.is_constant[ops]]
    return computed if computed.size else ops


def main_types(coarse: CoarseGraph, ops: Int64) -> list[str]:
    """Return the types of ops, the one with the most FLOPs first, then the most frequent."""
    weight: dict[str, Float64] = {}
    for op in ops.tolist():
        kind = coarse.graph.op_types[op]
        weight.setdefault(kind, np.zeros(2))
        weight[kind] += coarse.graph.flops[op], 1
    return sorted(weight, key=lambda kind: tuple(-weight[kind]))


def shares(coarse: CoarseGraph, devices: Sequence[str], groups: Sequence[int]) -> list[str]:
    """Return each device's groups and FLOPs as text, in the devices' order, unplaced ones last."""
    flops = np.bincount(coarse.op_group, coarse.graph.flops, minlength=coarse.num_groups)
    lines = []
    for device in [*range(len(devices)), *([-1] if -1 in groups else [])]:
        mine = np.asarray(groups) == device
        share = f"{flops[mine].sum() / max(flops.sum(), 1):.0%} of FLOPs"
        lines.append(f"{_name(devices, device)}: {count(int(mine.sum()), 'group')}, {share}")
    return lines
