"""Partial schedules: the state after the first groups are placed, and what the next one would do.

Groups are placed in topological order, the list of the schedule `concurrent`. One loop serves a
single copy and thousands, each with its own graph, machine and schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import choose
from device_placement.envs.simulation.completion import reach_by_ends, reach_by_filling
from device_placement.envs.simulation.lookahead import RestArrays, bind, look_ahead, rest_of
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
from device_placement.envs.simulation.stage_kernels import StageArrays, reach_in_stages
from device_placement.envs.simulation.stages import stages_of

TIMINGS = {
    "sequential": SEQUENTIAL,
    "concurrent": CONCURRENT,
    "dataflow": CONCURRENT,
    "pipelined": PIPELINED,
    "max_load": MAX_LOAD,
}
"""Schedule -> how a prefix of it is timed. The order in which `dataflow` runs regions depends on
groups that are not placed yet, so its prefixes are timed by `concurrent`, whose list is fixed."""

OVERLAPPING = (PIPELINED, MAX_LOAD)  # of inferences

NOT_PLACED = -1

Arrays = TypeVar("Arrays", CostArrays, StateArrays, RestArrays, StageArrays)


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


@dataclass(frozen=True)
class Ahead:
    """Estimates of what placing the next group on each device leads to, for some rows.

    All are (count, max_devices), in seconds.
    """

    price_s: Float64  # that the bytes of its weights would save in other groups
    end_s: Float64  # end of all groups, if devices share those not placed
    # Of the time of all groups, with the price: that end where inferences overlap, otherwise the
    # time of what is then placed.
    estimate_s: Float64
    # Time of all groups if those after the next one follow a rule: in ``sequential`` the estimate
    # and the groups in runs; in ``concurrent`` each goes where it ends first; where inferences
    # overlap the better of two, contiguous stages on devices that hold nothing and devices filled
    # up to a limit. Where nothing is reached, the estimate.
    reached_s: Float64


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
        self._table = PaddedTable(len(costs))
        for problem, (one, schedule) in enumerate(zip(costs, schedules, strict=True)):
            self._put(problem, one, schedule)
        self._costs = self._table.rows(CostArrays)
        self._state = _empty_state(self._costs, num_rows)
        self.begin(np.arange(num_rows), np.zeros(num_rows, dtype=np.int64))

    def replace(self, problem: int, costs: Costs, schedule: str) -> None:
        """Replace a problem by another one; call `begin` for the rows that had it.

        Args:
            problem: number of the problem.
            costs: of the new one.
            schedule: a name of `SCHEDULES`.

        Raises:
            DevicePlacementError: on an unknown schedule.
        """
        self._put(problem, costs, schedule)
        self._costs = self._table.rows(CostArrays)
        needed, old = _empty_state(self._costs, 0), self._state._asdict()
        self._state = StateArrays(
            **{
                name: resized(old[name], (len(old[name]), *new.shape[1:]), FILLS.get(name, 0))
                for name, new in needed._asdict().items()
            }
        )

    def _put(self, problem: int, costs: Costs, schedule: str) -> None:
        start, tensor = costs.inputs
        limits = [*costs.memory_limits()]
        limited = np.zeros((len(limits), costs.num_devices), dtype=np.bool_)
        for number, (members, _) in enumerate(limits):
            limited[number, members] = True
        self._table.put(
            problem,
            num_groups=np.int32(costs.num_groups),
            num_devices=np.int32(costs.num_devices),
            timing=np.int32(choose("schedule", schedule, TIMINGS)),
            compute_s=costs.compute_s,
            tensor_group=costs.tensor_group,
            tensor_bytes=costs.tensor_bytes,
            input_start=start,
            input_tensor=tensor,
            latency_s=costs.latency_s,
            s_per_byte=costs.s_per_byte,
            subgraph_s=costs.subgraph_s,
            pays=costs.pays,
            group_bytes=costs.group_bytes,
            limit_bytes=np.array([size for _, size in limits], dtype=np.float64),
            limited=limited,
            **rest_of(costs),
            **stages_of(costs, TIMINGS[schedule]),
        )

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

    def ahead(self, rows: Int64, outlook: Outlook) -> Ahead:
        """Return what an outlook on the next groups of some rows leaves; see `look_ahead`."""
        result = np.zeros((*outlook.values.shape[:2], 2))
        rest = self._table.rows(RestArrays)
        bound = np.zeros_like(result)
        if rest.is_acyclic.any():
            bind(self._costs, self._state, rest, rows, bound)
        look_ahead(self._costs, self._state, rest, rows, outlook.values, bound, result)
        price_s, end_s = result[..., 0], result[..., 1]
        problem = self.problem[rows]
        timing = self._costs.timing[problem, None]
        overlaps = np.isin(timing, OVERLAPPING)
        estimate_s = np.where(overlaps, end_s, outlook.value_s) + price_s
        after = np.minimum(self.cursor[rows] + 1, rest.run_rest_s.shape[1] - 1)
        reached_s = estimate_s + rest.run_rest_s[problem, after]
        arrays = self._costs, self._state, self._table.rows(StageArrays), rows
        if (timing == CONCURRENT).any():
            reach_by_ends(*arrays, reached_s)
        if overlaps.any():
            reach_in_stages(*arrays, reached_s)
            reach_by_filling(*arrays, rest.fastest_rest_s[problem, 0], end_s, reached_s)
        is_device = np.arange(reached_s.shape[1]) < self.num_devices[problem, None]
        known = (np.isfinite(reached_s) & is_device).any(axis=1, keepdims=True)
        return Ahead(price_s, end_s, estimate_s, np.where(known, reached_s, estimate_s))

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


class PaddedTable:
    """Named arrays with one row per problem, each padded to the largest row in every dimension.

    Args:
        num_rows: number of problems.

    >>> table = PaddedTable(2)
    >>> table.put(0, size=np.array([1, 2])), table.put(1, size=np.array([3]))
    (None, None)
    >>> table["size"].tolist()
    [[1, 2], [3, 0]]
    """

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array, (num_rows, ...)."""
        return self._arrays[name]

    def put(self, row: int, **values: Any) -> None:
        """Set a row of some arrays, which grow where it is larger."""
        for name, value in values.items():
            fill = FILLS.get(name, 0)
            if name not in self._arrays:
                self._arrays[name] = np.full((self._num_rows, *value.shape), fill, value.dtype)
            old = self._arrays[name]
            shape = np.maximum(old.shape[1:], value.shape).astype(np.int64).tolist()
            array = self._arrays[name] = resized(old, (self._num_rows, *shape), fill)
            array[row] = fill
            array[row, ...][tuple(map(slice, value.shape))] = value

    def rows(self, kind: type[Arrays]) -> Arrays:
        """Return the arrays that are fields of a named tuple."""
        return kind(*(self._arrays[name] for name in kind._fields))


FILLS = {"compute_s": np.inf, "limit_bytes": np.inf, "there_s": -1.0, "device": NOT_PLACED}
"""Name of an array -> what it is padded with; the others with 0."""


def resized(array: NDArray[Any], shape: tuple[int, ...], fill: float) -> NDArray[Any]:
    """Return an array of a shape that is nowhere smaller, padded; the same one if it fits."""
    if array.shape == shape:
        return array
    result = np.full(shape, fill, dtype=array.dtype)
    result[tuple(map(slice, array.shape))] = array
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
