"""List scheduling (HEFT, m-ETF): plan groups one by one, each where it starts or ends first."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.placers.search_space import SearchSpace, needed_costs
from device_placement.envs.arrays import Bool, Float64
from device_placement.envs.costs import Costs
from device_placement.envs.evaluation import Evaluator

Busy = list[tuple[float, float]]  # begin and end of what a device runs, in order


@dataclass(frozen=True)
class Heft:
    """HEFT: largest upward rank first, where it ends first (Topcuoglu et al., TPDS 2002).

    The upward rank follows section 4.1 of the paper, with means over the devices that run a
    group and over all pairs of devices. A group may fill a gap between others. Links have no
    queues. The first group of a colour decides for all of it. Memory is ignored, so the
    placement may be invalid. One evaluation; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Heft().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        costs = needed_costs(evaluator)
        trace, plan = Trace(evaluator, budget), Plan(costs, SearchSpace.of(evaluator))
        busy: list[Busy] = [[] for _ in range(costs.num_devices)]
        for group in np.argsort(-upward_ranks(costs), kind="stable"):
            compute_s, there_s = costs.compute_s[group], plan.there_s(group)
            starts = [
                first_gap(busy[device], there_s[device], compute_s[device])
                for device in range(costs.num_devices)
            ]
            ends = np.where(plan.allowed[plan.unit[group]], np.array(starts) + compute_s, np.inf)
            device = int(np.argmin(ends))
            bisect.insort(busy[device], (starts[device], float(ends[device])))
            plan.put(group, device, float(ends[device]))
        trace.evaluate(plan.assignment())
        return trace.result()


@dataclass(frozen=True)
class MemoryEtf:
    """m-ETF: earliest start first, where memory allows (Jeon et al., SoCC 2020).

    Of all ready groups and devices with room, it takes the pair with the earliest start, then
    the earliest end, then the first group. It is made for identical devices: a free slow one
    comes before a busy fast one. Links have no queues. The first group of a colour takes memory
    for all of it. A group that fits nowhere goes where it starts first; the placement is then
    invalid. One evaluation; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> MemoryEtf().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            DevicePlacementError: when the evaluator measures and so has no costs.
        """
        costs = needed_costs(evaluator)
        trace, plan = Trace(evaluator, budget), Plan(costs, SearchSpace.of(evaluator))
        free_s = np.zeros(costs.num_devices)
        there_s = np.zeros((costs.num_groups, costs.num_devices))
        waits = [{int(costs.tensor_group[one]) for one in row} for row in plan.inputs]
        ready = [group for group, producers in enumerate(waits) if not producers]
        while ready:
            start_s = np.maximum(there_s[ready], free_s)
            end_s = start_s + costs.compute_s[ready]
            open_now = plan.open_now(ready)
            start_s[~open_now], end_s[~open_now] = np.inf, np.inf
            number = np.repeat(ready, costs.num_devices)
            first = int(np.lexsort((number, end_s.ravel(), start_s.ravel()))[0])
            row, device = divmod(first, costs.num_devices)
            group = ready.pop(row)
            free_s[device] = end_s[row, device]
            plan.put(group, device, float(end_s[row, device]))
            for reader in plan.readers[group]:
                waits[reader].discard(group)
                if not waits[reader]:
                    ready.append(reader)
                    there_s[reader] = plan.there_s(reader)
        trace.evaluate(plan.assignment())
        return trace.result()


class Plan:
    """Partial plan: devices and end times of planned groups, and devices left to the others.

    Args:
        costs: of the groups and tensors.
        space: their units.
    """

    def __init__(self, costs: Costs, space: SearchSpace) -> None:
        self.unit = space.unit
        self.allowed = space.allowed.copy()  # (num_units, num_devices); one device after a choice
        self.inputs: list[list[int]] = [[] for _ in range(costs.num_groups)]  # tensors
        self.readers: list[list[int]] = [[] for _ in range(costs.num_groups)]  # groups, once each
        for tensor, producer in enumerate(costs.tensor_group.tolist()):
            for reader in costs.readers(tensor).tolist():
                self.inputs[reader].append(tensor)
                if reader not in self.readers[producer]:
                    self.readers[producer].append(reader)
        self._producer = costs.tensor_group.tolist()
        self._moves = [costs.transfer_s(tensor) for tensor in range(costs.num_tensors)]
        self._sizes = np.bincount(space.unit, costs.group_bytes, minlength=space.num_units)
        self._limits = [devices for devices, _ in costs.memory_limits()]
        self._room = [room for _, room in costs.memory_limits()]  # bytes left of each limit
        self._end_s = np.zeros(costs.num_groups)

    def there_s(self, group: int) -> Float64:
        """Return when all inputs of a group arrive, (num_devices,); its producers are planned."""
        latest = np.zeros(self.allowed.shape[1])
        for tensor in self.inputs[group]:
            producer = self._producer[tensor]
            source = self.allowed[self.unit[producer]].argmax()
            np.maximum(latest, self._end_s[producer] + self._moves[tensor][source], out=latest)
        return latest

    def open_now(self, groups: list[int]) -> Bool:
        """Return where there is room, (count, num_devices); all allowed if there is none."""
        units = self.unit[groups]
        allowed = self.allowed[units]
        decided = allowed.sum(axis=1) == 1
        room = np.full(self.allowed.shape[1], np.inf)
        for devices, left in zip(self._limits, self._room, strict=True):
            room[devices] = np.minimum(room[devices], left)
        open_now = allowed & (decided[:, None] | (self._sizes[units][:, None] <= room))
        return np.asarray(open_now if open_now.any() else allowed)

    def put(self, group: int, device: int, end_s: float) -> None:
        """Plan a group; the first group of a unit places the whole unit."""
        unit = self.unit[group]
        self._end_s[group] = end_s
        for number, devices in enumerate(self._limits):
            if device in devices:
                self._room[number] -= self._sizes[unit]
        self._sizes[unit] = 0.0  # taken once
        self.allowed[unit] = np.arange(self.allowed.shape[1]) == device

    def assignment(self) -> list[int]:
        """Return the devices, (num_groups,), once all groups are planned."""
        devices: list[int] = self.allowed.argmax(axis=1)[self.unit].tolist()
        return devices


def upward_ranks(costs: Costs) -> Float64:
    """Return mean seconds from each group's start to the end of all that follow, (num_groups,)."""
    runs = np.isfinite(costs.compute_s)
    ranks = np.where(runs, costs.compute_s, 0.0).sum(axis=1) / runs.sum(axis=1)
    pairs = costs.num_devices * (costs.num_devices - 1) or 1
    latency_s, s_per_byte = costs.latency_s.sum() / pairs, costs.s_per_byte.sum() / pairs
    follows = np.zeros(costs.num_groups)
    producers = costs.tensor_group
    for tensor in range(costs.num_tensors - 1, -1, -1):  # ordered by their producers
        readers = costs.readers(tensor)
        longest = (ranks[readers] + follows[readers]).max()
        move_s = latency_s + costs.tensor_bytes[tensor] * s_per_byte
        follows[producers[tensor]] = max(follows[producers[tensor]], move_s + longest)
    return np.asarray(ranks + follows)


def first_gap(busy: Busy, there_s: float, compute_s: float) -> float:
    """Return when a device can first run a group whose inputs arrive at `there_s`."""
    start = float(there_s)
    for begin, end in busy[bisect.bisect_left(busy, start, key=lambda one: one[1]) :]:
        if start + compute_s <= begin:
            break
        start = max(start, end)
    return start
