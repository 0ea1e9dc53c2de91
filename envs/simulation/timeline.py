"""Timeline of a simulated placement: the events behind its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.envs.costs import FROM_INPUT, TO_OUTPUT, Costs
from device_placement.envs.errors import PlacementError, choose
from device_placement.envs.simulation.schedule import count_subgraphs_by_device, find_roots


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

    Under ``sequential``, ``concurrent`` and ``dataflow`` these are the events of one request; what
    a region costs in addition to its groups follows them, and has no group. Under ``pipelined``
    and ``max_load`` they are the work of each device and link for every request, one
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

    def free(self, lane: object) -> float:
        """Return when the last event of a lane ends."""
        return self._free.get(lane, 0.0)

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
        start_s = max(ready_s, self.free(lane))
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


def _dataflow(costs: Costs, chosen: list[int]) -> list[Event]:
    return _RegionRun(costs, chosen).events()


class _RegionRun:
    """Regions of a placement, run in the order of `dataflow_times`."""

    def __init__(self, costs: Costs, chosen: list[int]) -> None:
        self.costs, self.chosen, self.regional = costs, chosen, costs.regional
        column = np.array(chosen, dtype=np.uint8)[:, None]
        self.root: list[int] = find_roots(costs, column)[0].tolist()
        self.lanes = _Lanes()
        self.members: dict[int, list[int]] = {}  # the groups of each region
        for group, one in enumerate(self.root):
            if not self.regional.is_idle[group]:
                self.members.setdefault(one, []).append(group)
        split = self.regional.split_factor[chosen] if len(set(chosen)) > 1 else 1.0
        self.takes_s = costs.compute_s[np.arange(costs.num_groups), chosen] * split
        self.needs: dict[int, set[tuple[int, int]]] = {one: set() for one in self.members}
        self.leaving: dict[int, set[int]] = {one: set() for one in self.members}  # tensors
        self.after: dict[int, set[int]] = {one: set() for one in self.members}  # regions
        self.there: dict[tuple[int, int], float] = {}  # by tensor and device
        self._read_tensors()
        self.rank: dict[int, float] = {}  # seconds of the longest path to the end
        for one in self.members:
            self._rank(one)

    def events(self) -> list[Event]:
        """Return all events."""
        for group in np.flatnonzero(self.regional.is_idle).tolist():
            device = self.chosen[group]
            takes_s = self.costs.compute_s[group, device]
            self.lanes.add(device, device, device, takes_s, group)
        for group in range(self.costs.num_groups):
            self._send(group, FROM_INPUT, 0.0)
        waiting = set(self.members)
        while waiting:
            known = [one for one in waiting if self.needs[one] <= self.there.keys()]
            starts = {one: (self._ready_s(one), self.chosen[one]) for one in known}
            now, device = min(starts.values())
            ready = [one for one in known if starts[one] == (now, device)]
            waiting.remove(self._start(ready, now))
        return self.lanes.events

    def _ready_s(self, region: int) -> float:
        """Return when the device of a region is free and its inputs have arrived."""
        arrivals = [self.there[key] for key in self.needs[region]]
        return max([self.lanes.free(self.chosen[region]), *arrivals])

    def _start(self, ready: list[int], now: float) -> int:
        """Run the most urgent region, and return it."""
        region = min(ready, key=lambda one: (-self.rank[one], one))
        device = self.chosen[region]
        for group in self.members[region]:
            end_s = self.lanes.add(device, device, device, self.takes_s[group], group, now)
        if extra_s := self._extra_s(region):
            end_s = self.lanes.add(device, device, device, extra_s)
        for group in self.members[region]:
            self._send(group, 0, end_s)
        return region

    def _read_tensors(self) -> None:
        """Note what each region waits for, and what leaves it."""
        for read, kind in enumerate(self.regional.read_kind.tolist()):
            tensor, reader = int(self.regional.read_tensor[read]), int(self.regional.reader[read])
            source, target = self.root[self.costs.tensor_group[tensor]], self.root[reader]
            if kind & TO_OUTPUT or (source == target and not kind):
                continue
            self.needs[target].add((tensor, self.chosen[reader]))
            if not kind:
                self.leaving[source].add(tensor)
                self.after[source].add(target)

    def _extra_s(self, region: int) -> float:
        """Return what a region costs in addition to its groups."""
        device = self.chosen[region]
        crossing_s = self.regional.crossing_s[device] * len(self.leaving[region])
        return float(self.regional.region_s[device] + crossing_s)

    def _rank(self, region: int) -> None:
        """Note the longest path from a region to the end, after those of its readers."""
        stack = [region]
        while stack:
            one = stack[-1]
            missing = [other for other in self.after[one] if other not in self.rank]
            stack += missing
            if not missing:
                longest = max((self.rank[other] for other in self.after[one]), default=0.0)
                takes_s = self.takes_s[self.members[one]].sum() + self._extra_s(one)
                self.rank[stack.pop()] = float(takes_s + longest)

    def _send(self, group: int, kind: int, begin_s: float) -> None:
        """Queue a group's tensors, or those of its Parameters, for the devices that read them."""
        source = self.chosen[group]
        for read in range(self.regional.read_start[group], self.regional.read_start[group + 1]):
            tensor, target = (
                self.regional.read_tensor[read],
                self.chosen[self.regional.reader[read]],
            )
            key = int(tensor), target
            if self.regional.read_kind[read] & FROM_INPUT != kind or key in self.there:
                continue
            self.there[key] = begin_s
            if target != source:
                takes_s = self.costs.transfer_s(int(tensor))[source, target]
                link = source, target
                self.there[key] = self.lanes.add(link, source, target, takes_s, group, begin_s)


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
    "dataflow": _dataflow,
    "pipelined": _pipelined,
    "max_load": _max_load,
}
"""Name of the schedule -> its events."""
