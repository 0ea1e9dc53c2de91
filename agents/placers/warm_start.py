"""A good placement to begin a proof with: heuristics on costs, without evaluations."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import numpy as np

from device_placement.agents.placers.contiguous import best_contiguous
from device_placement.agents.placers.min_cut import minimum_cut
from device_placement.agents.placers.moves import Choice, Space
from device_placement.agents.planning.neighbourhoods import Choices, descend
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.execution.costs import Costs
from device_placement.envs.execution.schedule import schedule_times
from device_placement.envs.graph import Float64


def warm_start(costs: Costs, space: Space, schedule: str, seconds: float) -> tuple[Choice, float]:
    """The best choice that a descent finds from each single and from what is exact elsewhere.

    Args:
        costs: of the groups.
        space: of the same groups.
        schedule: a name of `SCHEDULES`.
        seconds: after which no descent goes on, and nothing else is begun.

    Returns:
        (num_units,) devices, and the time in seconds, which is inf when no valid one was found.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> warm_start(evaluator.costs, Space.of(evaluator), "sequential", seconds=1.0)[0].tolist()
    [0, 0, 0, 0]
    """
    deadline = time.perf_counter() + seconds

    def times(choices: Choices) -> Float64:
        return schedule_times(costs, choices[:, space.unit], schedule)

    best, best_s = np.zeros(space.num_units, dtype=np.int64), math.inf
    for start in _starts(costs, space, schedule, deadline):
        choice, time_s = descend(times, start, space.allowed, deadline)
        if time_s < best_s:
            best, best_s = choice, time_s
    return best, best_s


def _starts(costs: Costs, space: Space, schedule: str, deadline: float) -> Iterator[Choice]:
    """Every single, with units it can't run elsewhere, and exact solutions of simpler problems."""
    for device in range(costs.num_devices):
        yield np.where(space.allowed[:, device], device, space.allowed.argmax(axis=1))
    if costs.num_devices == 2 and time.perf_counter() < deadline:
        yield minimum_cut(costs, space)[0]
    if schedule == "max_load" and time.perf_counter() < deadline:
        with contextlib.suppress(DevicePlacementError):  # links differ, or too many ideals
            assignment = best_contiguous(costs, space)
            if assignment is not None:
                yield assignment[space.first].astype(np.int64)
