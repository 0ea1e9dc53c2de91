"""Timeline of a simulated placement: the events behind its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.envs.costs import Costs
from device_placement.envs.errors import PlacementError, choose
from device_placement.envs.simulation.schedule import count_subgraphs_by_device


@dataclass(frozen=True)
class Event:
    """Computation of a group, move of a tensor, or other work of a device."""

    source: int
    """The device; of a move, the one that it leaves."""
    target: int
    """The device; of a move, the one that it reaches."""
    start_s: float
    end_s: float
    group: int = -1
    """The group that is computed; of a move, the one that made the tensor; -1: none."""

    @property
    def moves(self) -> bool:
        """Whether a tensor is moved."""
        return self.source != self.target


def timeline(costs: Costs, assignment: Sequence[int], schedule: str) -> list[Event]:
    """Return the events of a placement; the last one ends at the time that the schedule computes.

    Under ``sequential`` and ``concurrent`` these are the events of one request. Under
    ``pipelined`` and ``max_load`` they are the work of each device and link for every request, one
    after the other; under ``max_load``, the time that a device pays for moves has no group.

    Args:
        costs: of the groups.
        assignment: (num_groups,) device numbers.
        schedule: a name of `SCHEDULES`.

    Raises:
        DevicePlacementError: on an unknown schedule.
        PlacementError: when a device can't run what is placed on it.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> events = timeline(evaluator.costs, [0, 0, 1, 1], "sequential")
    >>> f"{events[-1].end_s:.9f}" == f"{evaluator.evaluate([0, 0, 1, 1]).time_s:.9f}"
    True
    """
    events_of = choose("schedule", schedule, TIMELINES)
    chosen = np.asarray(assignment, dtype=np.int64)
    if not np.isfinite(costs.compute_s[np.arange(costs.num_groups), chosen]).all():
        raise PlacementError("A device can't run a group that is placed on it.")
    return events_of(costs, chosen.tolist())


class _Lanes:
    """Lanes of events, one after the other in each."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._free: dict[object, float] = {}

    def add(
        self,
        lane: object,
        source: int,
        target: int,
        takes_s: float,
        group: int = -1,
        ready_s: float = 0.0,
    ) -> float:
        """Add an event that starts when lane and inputs are ready; return its end."""
        start_s = max(ready_s, self._free.get(lane, 0.0))
        self._free[lane] = start_s + takes_s
        self.events.append(Event(source, target, start_s, start_s + takes_s, group))
        return start_s + takes_s


def _sequential(costs: Costs, chosen: list[int]) -> list[Event]:
    lanes, there = _Lanes(), set[tuple[int, int]]()
    start, inputs = costs.inputs
    for group, device in enumerate(chosen):
        for tensor in inputs[start[group] : start[group + 1]].tolist():
            maker = int(costs.tensor_group[tensor])
            source = chosen[maker]
            if source != device and (tensor, device) not in there:
                there.add((tensor, device))
                lanes.add(0, source, device, costs.transfer_s(tensor)[source, device], maker)
        lanes.add(0, device, device, costs.compute_s[group, device], group)
    if costs.subgraph_s.any():
        pieces = count_subgraphs_by_device(costs, np.array(chosen, dtype=np.uint8)[:, None])[:, 0]
        for device, (number, each_s) in enumerate(zip(pieces, costs.subgraph_s, strict=True)):
            lanes.add(0, device, device, float(number * each_s))
    return lanes.events


def _concurrent(costs: Costs, chosen: list[int]) -> list[Event]:
    lanes, there = _Lanes(), dict[tuple[int, int], float]()
    ends = np.zeros(costs.num_groups)
    start, inputs = costs.inputs
    for group, device in enumerate(chosen):
        ready_s = 0.0
        for tensor in inputs[start[group] : start[group + 1]].tolist():
            maker = int(costs.tensor_group[tensor])
            source = chosen[maker]
            if source != device and (tensor, device) not in there:
                takes_s = costs.transfer_s(tensor)[source, device]
                there[tensor, device] = lanes.add(
                    (source, device), source, device, takes_s, maker, ends[maker]
                )
            ready_s = max(ready_s, there.get((tensor, device), float(ends[maker])))
        takes_s = costs.compute_s[group, device]
        ends[group] = lanes.add(device, device, device, takes_s, group, ready_s)
    return lanes.events


def _pipelined(costs: Costs, chosen: list[int]) -> list[Event]:
    lanes = _computing(costs, chosen)
    for tensor, source, readers in _crossing(costs, chosen):
        for target in readers:
            takes_s = costs.transfer_s(tensor)[source, target]
            lanes.add((source, target), source, target, takes_s, int(costs.tensor_group[tensor]))
    return lanes.events


def _max_load(costs: Costs, chosen: list[int]) -> list[Event]:
    lanes = _computing(costs, chosen)
    for tensor, source, readers in _crossing(costs, chosen):
        takes_s = costs.transfer_s(tensor)[source]
        paid = [(source, takes_s[readers].max()), *((one, takes_s[one]) for one in readers)]
        for device, device_s in paid:
            if costs.pays[device]:
                lanes.add(device, device, device, device_s)
    return lanes.events


def _computing(costs: Costs, chosen: list[int]) -> _Lanes:
    """Return lanes with the groups of each device, one after the other."""
    lanes = _Lanes()
    for group, device in enumerate(chosen):
        lanes.add(device, device, device, costs.compute_s[group, device], group)
    return lanes


def _crossing(costs: Costs, chosen: list[int]) -> list[tuple[int, int, list[int]]]:
    """Return each tensor that is read elsewhere, its device, and the devices that read it."""
    found = []
    for tensor in range(costs.num_tensors):
        source = chosen[int(costs.tensor_group[tensor])]
        readers = sorted({chosen[group] for group in costs.readers(tensor).tolist()} - {source})
        if readers:
            found.append((tensor, source, readers))
    return found


TIMELINES: Mapping[str, Callable[[Costs, list[int]], list[Event]]] = {
    "sequential": _sequential,
    "concurrent": _concurrent,
    "pipelined": _pipelined,
    "max_load": _max_load,
}
"""Name of the schedule -> its events."""
