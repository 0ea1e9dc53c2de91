"""Partial schedules: the state after the first groups are placed, and what the next one would do.

Groups are placed in topological order, the list of the schedule `concurrent`. One loop serves a
single copy and thousands, each with its own graph, machine and schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import choose
from device_placement.envs.simulation.partial_kernels import (
    CONCURRENT,
    MAX_LOAD,
    OUTLOOK,
    PIPELINED,
    SEQUENTIAL,
    CostArrays,
    StateArrays,
    advance,
)

TIMINGS = {
    "sequential": SEQUENTIAL,
    "concurrent": CONCURRENT,
    "dataflow": CONCURRENT,
    "pipelined": PIPELINED,
    "max_load": MAX_LOAD,
}
"""Schedule -> how a prefix of it is timed. The order in which `dataflow` runs regions depends on
groups that are not placed yet, so its prefixes are timed by `concurrent`, whose list is fixed."""

NOT_PLACED = -1


class Outlook:
    """What placing the next group on each device would give, for some rows.

    Where a row has no next group, or no such device, values are 0.

    Args:
        values: (count, max_devices, len(OUTLOOK)).
    """

    def __init__(self, values: Float64) -> None:
        self.values = values

    def __getattr__(self, name: str) -> Float64:
        """Return one of `OUTLOOK` for each row and device, (count, max_devices).

        - ``arrival_s``: when all inputs are on the device
        - ``free_s``: when the device has ended its groups so far
        - ``finish_s``: when the group ends
        - ``compute_s``: seconds that it runs; inf where the device can't run it
        - ``moves_s``: seconds of the moves that are needed, one after the other
        - ``value_s``: the schedule's time of all that is then placed
        - ``load_s``: the device's load then, with ``max_load`` moves included
        - ``bytes_made``, ``bytes_moved``: of its inputs that were made there, or moved there before
        - ``room_bytes``: left for further weights; negative if they don't fit; inf: no limit
        - ``is_previous``: 1 on the device of the group before it
        """
        if name not in OUTLOOK:
            raise AttributeError(name)
        column: Float64 = self.values[..., OUTLOOK.index(name)]
        return column


class PartialSchedules:
    """Partial schedules of many rows, each of one of several problems.

    Values of prefixes are those of `schedule_times` up to rounding, with two exceptions: under
    ``dataflow`` they are those of ``concurrent``, and colours are ignored.

    Args:
        costs: of each problem.
        schedules: of each problem, a name of `SCHEDULES`.
        num_rows: number of partial schedules; all begin with the first problem.

    Raises:
        DevicePlacementError: on an unknown schedule.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> partial = PartialSchedules([evaluator.costs], ["sequential"], num_rows=1)
    >>> for device in (0, 1, 0, 1):
    ...     _ = partial.place(np.array([0]), np.array([device]))
    >>> bool(np.isclose(partial.value_s[0], evaluator.evaluate([0, 1, 0, 1]).time_s))
    True
    """

    def __init__(self, costs: Sequence[Costs], schedules: Sequence[str], num_rows: int) -> None:
        timings = [choose("schedule", schedule, TIMINGS) for schedule in schedules]
        self._costs = pack_costs(costs, timings)
        self._state = _empty_state(self._costs, num_rows)
        self.begin(np.arange(num_rows), np.zeros(num_rows, dtype=np.int64))

    def begin(self, rows: Int64, problems: Int64) -> Outlook:
        """Remove all that is placed in some rows, and return the outlook on their first groups.

        Args:
            rows: (count,) which rows.
            problems: (count,) the new problem of each.
        """
        state = self._state
        state.problem[rows] = problems
        for array in (state.cursor, state.free_s, state.link_free_s, state.load_s):
            array[rows] = 0
        for array in (state.link_load_s, state.used_bytes, state.num_placed, state.value_s):
            array[rows] = 0
        state.sent_s[rows] = 0.0
        state.there_s[rows] = -1.0
        state.device[rows] = NOT_PLACED
        return self.look(rows)

    def place(self, rows: Int64, devices: Int64) -> Outlook:
        """Place the next group of some rows, and return the outlook on the groups after them.

        Args:
            rows: (count,) which rows; none has all its groups placed.
            devices: (count,) the device of each.
        """
        return self._advance(rows, np.asarray(devices, dtype=np.int64))

    def look(self, rows: Int64) -> Outlook:
        """Return the outlook on the next groups of some rows."""
        return self._advance(rows, np.full(len(rows), NOT_PLACED))

    def _advance(self, rows: Int64, devices: Int64) -> Outlook:
        max_devices = self._costs.compute_s.shape[2]
        values = np.zeros((len(rows), max_devices, len(OUTLOOK)))
        advance(self._costs, self._state, rows, devices, values)
        return Outlook(values)

    @property
    def problem(self) -> Int64:
        """(num_rows,) the problem of each row."""
        return self._state.problem

    @property
    def num_devices(self) -> Int32:
        """(num_problems,) devices of each problem."""
        return self._costs.num_devices

    @property
    def cursor(self) -> Int32:
        """(num_rows,) the next group of each row; the number of groups if all are placed."""
        return self._state.cursor

    @property
    def value_s(self) -> Float64:
        """(num_rows,) the schedule's time of what is placed."""
        return self._state.value_s

    @property
    def load_s(self) -> Float64:
        """(num_rows, max_devices) of the groups on each device; with ``max_load`` also moves."""
        return self._state.load_s

    @property
    def makespan_s(self) -> Float64:
        """(num_rows,) when the last group so far ends, by ``concurrent``."""
        return np.asarray(self._state.free_s.max(axis=1))

    @property
    def num_placed(self) -> Int32:
        """(num_rows, max_devices) groups on each device."""
        return self._state.num_placed


def pack_costs(costs: Sequence[Costs], timings: Sequence[int]) -> CostArrays:
    """Return the costs of several problems as padded arrays.

    Args:
        costs: of each problem.
        timings: of each problem, a value of `TIMINGS`.
    """
    starts, tensors = zip(*(one.inputs for one in costs), strict=True)
    limits = [list(one.memory_limits()) for one in costs]
    devices = max(one.num_devices for one in costs)
    limit_bytes = np.full((len(costs), max(map(len, limits))), np.inf)
    limited = np.zeros((*limit_bytes.shape, devices), dtype=np.bool_)
    for problem, pairs in enumerate(limits):
        for number, (members, size) in enumerate(pairs):
            limit_bytes[problem, number] = size
            limited[problem, number, members] = True
    return CostArrays(
        num_groups=np.array([one.num_groups for one in costs], dtype=np.int32),
        num_devices=np.array([one.num_devices for one in costs], dtype=np.int32),
        timing=np.array(timings, dtype=np.int32),
        compute_s=_padded([one.compute_s for one in costs], np.inf),
        tensor_group=_padded([one.tensor_group for one in costs]),
        tensor_bytes=_padded([one.tensor_bytes for one in costs]),
        input_start=_padded(starts),
        input_tensor=_padded(tensors),
        latency_s=_padded([one.latency_s for one in costs]),
        s_per_byte=_padded([one.s_per_byte for one in costs]),
        subgraph_s=_padded([one.subgraph_s for one in costs]),
        pays=_padded([one.pays for one in costs]),
        group_bytes=_padded([one.group_bytes for one in costs]),
        limit_bytes=limit_bytes,
        limited=limited,
    )


def _padded(arrays: Sequence[NDArray[Any]], fill: float = 0) -> NDArray[Any]:
    """Return arrays stacked, each padded to the largest in every dimension."""
    shape = np.max([array.shape for array in arrays], axis=0)
    result = np.full((len(arrays), *shape), fill, dtype=arrays[0].dtype)
    for number, array in enumerate(arrays):
        result[number][tuple(slice(size) for size in array.shape)] = array
    return result


def _empty_state(costs: CostArrays, num_rows: int) -> StateArrays:
    groups, devices = costs.compute_s.shape[1:]
    tensors, limits = costs.tensor_group.shape[1], costs.limit_bytes.shape[1]
    return StateArrays(
        problem=np.zeros(num_rows, dtype=np.int64),
        cursor=np.zeros(num_rows, dtype=np.int32),
        device=np.full((num_rows, groups), NOT_PLACED, dtype=np.int8),
        end_s=np.zeros((num_rows, groups)),
        there_s=np.full((num_rows, tensors, devices), -1.0),
        sent_s=np.zeros((num_rows, tensors)),
        root=np.zeros((num_rows, groups), dtype=np.int32),
        free_s=np.zeros((num_rows, devices)),
        link_free_s=np.zeros((num_rows, devices, devices)),
        load_s=np.zeros((num_rows, devices)),
        link_load_s=np.zeros((num_rows, devices, devices)),
        used_bytes=np.zeros((num_rows, limits)),
        num_placed=np.zeros((num_rows, devices), dtype=np.int32),
        value_s=np.zeros(num_rows),
    )


def can_run(outlook: Outlook) -> Bool:
    """Return where the group runs and its weights fit, (count, max_devices)."""
    return np.isfinite(outlook.compute_s) & (outlook.room_bytes >= 0)
