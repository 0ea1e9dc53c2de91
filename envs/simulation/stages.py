"""Contiguous stages of the groups not placed, where devices overlap inferences."""

from __future__ import annotations

import numpy as np

from device_placement.envs.arrays import Float64, Int32, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.partial_kernels import MAX_LOAD, PIPELINED
from device_placement.envs.simulation.stage_kernels import fill_stages

MAX_SETS = 128  # of devices that stages may use, devices of one kind counted alone


def stages_of(costs: Costs, timing: int) -> dict[str, np.ndarray]:
    """Return the fields of `StageArrays` for one problem, without its first dimension.

    `is_acyclic` is among those of `rest_of`.

    Args:
        costs: of the groups.
        timing: how a prefix is timed; there are stages with `PIPELINED` and `MAX_LOAD` only.
    """
    devices = costs.num_devices
    unit = costs.unit
    _, first = np.unique(unit, return_index=True)
    units = first.size
    unit_s, unit_bytes = np.zeros((units, devices)), np.zeros(units)
    np.add.at(unit_s, unit, costs.compute_s)
    np.add.at(unit_bytes, unit, costs.group_bytes)
    tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
    maker = unit[costs.tensor_group]
    reads = np.stack([maker[tensor], tensor, unit[costs.reader]])
    reads = np.unique(reads[:, reads[0] != reads[2]], axis=1)
    numbers, at = np.unique(reads[:2], axis=1, return_inverse=True)
    by_reader = np.argsort(reads[2], kind="stable")
    is_ordered = "acyclic" in costs.constraints
    latency_s, s_per_byte = (
        _typical(links, is_ordered) for links in (costs.latency_s, costs.s_per_byte)
    )
    result = {
        "unit": unit.astype(np.int32),
        "num_units": np.int32(units),
        "first": first.astype(np.int32),
        "unit_s": unit_s,
        "unit_bytes": unit_bytes,
        "made_start": _starts(numbers[0], units),
        "moved_bytes": costs.tensor_bytes[numbers[1]],
        "maker": numbers[0].astype(np.int32),
        "read_start": _starts(at.ravel(), numbers.shape[1]),
        "read_by": reads[2].astype(np.int32),
        "takes_start": _starts(reads[2][by_reader], units),
        "takes": at.ravel()[by_reader].astype(np.int32),
        "hold_bytes": costs.reachable_bytes(),
        "in_latency_s": latency_s[0],
        "in_s_per_byte": s_per_byte[0],
        "out_latency_s": latency_s[1],
        "out_s_per_byte": s_per_byte[1],
        "set_step": np.zeros(devices, dtype=np.int32),
        "stage_s": np.zeros((0, 0)),
    }
    if timing in (PIPELINED, MAX_LOAD):
        kinds = _kinds(costs, unit_s, result["hold_bytes"])
        result["set_step"], result["stage_s"] = _best_stages(costs, kinds, timing, result)
    return result


def _typical(links: Float64, is_ordered: bool) -> Float64:
    """Return what moves to each device and from it cost, (2, num_devices).

    It is the mean over the other devices; where data only goes to higher devices, the least, as
    stages are then on neighbours.
    """
    devices = len(links)
    if not is_ordered or devices == 1:
        return np.stack([links.sum(axis=0), links.sum(axis=1)]) / max(devices - 1, 1)
    apart = np.where(np.eye(devices, dtype=np.bool_), np.inf, links)
    return np.stack([apart.min(axis=0), apart.min(axis=1)])


def _starts(numbers: Int64, count: int) -> Int32:
    """Return where each of `count` numbers begins among ascending ones, (count + 1,)."""
    return np.searchsorted(numbers, np.arange(count + 1)).astype(np.int32)


def _kinds(costs: Costs, unit_s: Float64, hold_bytes: Float64) -> list[list[int]]:
    """Return devices by kind, without the slowest if there are more than `MAX_SETS` sets."""
    kinds = dict[bytes, list[int]]()
    for device in range(costs.num_devices):
        seen = [*unit_s[:, device], hold_bytes[device], costs.pays[device]]
        kinds.setdefault(np.array(seen, dtype=np.float64).tobytes(), []).append(device)
    known_s = np.where(np.isfinite(unit_s), unit_s, 0.0)
    result = sorted(kinds.values(), key=lambda kind: float(known_s[:, kind[0]].sum()))
    while np.prod([len(kind) + 1.0 for kind in result]) > MAX_SETS:
        result.pop()
    return result


def _best_stages(
    costs: Costs, kinds: list[list[int]], timing: int, units: dict[str, np.ndarray]
) -> tuple[Int32, Float64]:
    """Return the fields `set_step` and `stage_s`."""
    counts = np.array([len(kind) for kind in kinds], dtype=np.int64)
    steps = np.cumprod(np.append(1, counts[:-1] + 1))
    set_step = np.zeros(costs.num_devices, dtype=np.int32)
    for kind, step in zip(kinds, steps.tolist(), strict=True):
        set_step[kind] = step
    stage_s = np.full((int(units["num_units"]) + 1, int(np.prod(counts + 1))), np.inf)
    stage_s[-1] = 0.0
    columns = [kind[0] for kind in kinds]
    links = [
        np.array([units[name][kind].mean() for kind in kinds])
        for name in ("in_latency_s", "in_s_per_byte", "out_latency_s", "out_s_per_byte")
    ]
    fill_stages(
        np.ascontiguousarray(units["unit_s"][:, columns].T),
        units["unit_bytes"],
        units["made_start"],
        units["moved_bytes"],
        units["read_start"],
        units["takes_start"],
        units["takes"],
        units["hold_bytes"][columns],
        np.array(links),
        costs.pays[columns],
        timing == MAX_LOAD,
        counts,
        steps,
        stage_s,
    )
    return set_step, stage_s
