"""Helpers of the exact placers: schedule names, integer scaling of times, identical devices."""

from __future__ import annotations

import math

import numpy as np

from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.simulation.schedule import SCHEDULES

BITS = 34  # of a placement's time as an integer; rounding stays far below `PROVEN_WITHIN`
NEVER = -1  # an infinite time as an integer


def schedule_of(evaluator: Evaluator, *allowed: str) -> str:
    """Return the name of the schedule that an evaluator computes times with.

    Args:
        evaluator: one that computes with costs.
        allowed: the schedules that the placer solves; all by default.

    Raises:
        DevicePlacementError: when it has none, or one that is not allowed.

    >>> from device_placement.envs import make_evaluator
    >>> schedule_of(make_evaluator("diamond", evaluator="simulator"), "sequential")
    'sequential'
    """
    names = allowed or tuple(SCHEDULES)
    schedule = evaluator.schedule
    if schedule in SCHEDULES and schedule not in names:
        raise DevicePlacementError(
            f"Got the schedule {schedule}; this placer solves {' and '.join(names)}. Use cp_sat, "
            f"which takes every schedule, or schedule={names[0]!r}."
        )
    choose("schedule", schedule, dict.fromkeys(names))
    return schedule


def scale_of(time_s: float, bits: int = BITS) -> float:
    """Return the power of two that scales a time to an integer of `bits` bits.

    A power of two changes no digit, so times that are already integers stay exact.

    >>> scale_of(3.0, bits=4)
    4.0
    """
    return math.ldexp(1.0, bits - math.frexp(time_s)[1])


def rounded_down(values: Float64, scale: float) -> Int64:
    """Return times as integers, rounded down; `NEVER` for infinite ones.

    >>> rounded_down(np.array([0.75, np.inf]), 2.0).tolist()
    [1, -1]
    """
    finite = np.isfinite(values)
    return np.where(finite, np.floor(np.where(finite, values, 0.0) * scale), NEVER).astype(np.int64)


def alike_devices(costs: Costs) -> list[list[int]]:
    """Return devices by kind; swapping two of a kind changes no placement's time.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator(
    ...     "diamond", "CPU,GPU.0,GPU.1", evaluator="simulator", hardware="server"
    ... )
    >>> alike_devices(evaluator.costs)
    [[0], [1, 2]]
    """
    kinds: list[list[int]] = []
    for device in range(costs.num_devices):
        for kind in kinds:
            if _alike(costs, kind[0], device):
                kind.append(device)
                break
        else:
            kinds.append([device])
    return kinds


def _extra(costs: Costs) -> tuple[Float64, ...]:
    """Return what regions cost on each device."""
    regional = costs.regional
    return regional.region_s, regional.crossing_s, regional.split_factor


def _alike(costs: Costs, one: int, other: int) -> bool:
    order = np.arange(costs.num_devices)
    order[[one, other]] = other, one
    pools = sorted(zip(costs.pool_devices.tolist(), costs.pool_bytes.tolist(), strict=True))
    swapped = costs.pool_devices[:, order] if pools else costs.pool_devices
    if pools != sorted(zip(swapped.tolist(), costs.pool_bytes.tolist(), strict=True)):
        return False
    rows = (costs.compute_s.T, costs.memory_bytes, costs.pays, costs.subgraph_s, *_extra(costs))
    links = (costs.latency_s, costs.s_per_byte)
    return all(np.array_equal(row[one], row[other]) for row in rows) and all(
        np.array_equal(link, link[np.ix_(order, order)]) for link in links
    )
