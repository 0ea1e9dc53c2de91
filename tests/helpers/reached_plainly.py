"""Times that simple rules reach, in plain Python, from the definitions, for comparison."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from device_placement.envs.costs import FREE, Costs
from device_placement.envs.simulation.completion import LIMITS, RATIO

Value = Callable[[Sequence[int]], float]  # seconds of all that is placed


def ends_reached(costs: Costs, placed: Sequence[int], last_end: Value, value: Value) -> float:
    """The time if each group that is not placed goes where it ends first.

    Args:
        costs: of the groups.
        placed: devices of the first ones.
        last_end: when the last group of some placed ones ends.
        value: of all groups.
    """
    devices = [*placed]
    if not _fits(costs, placed[:-1], placed[-1]):
        return math.inf
    while len(devices) < costs.num_groups:
        options = _options(costs, devices)
        if not options:
            return math.inf
        devices.append(min(options, key=lambda one: last_end([*devices, one])))
    return value(devices)


class Loads(NamedTuple):
    """Seconds of load of each device, of each link, and of all moves."""

    device: list[float]
    link: dict[tuple[int, int], float]


def filling_reached(
    costs: Costs, schedule: str, placed: Sequence[int], least_s: float, total_s: float
) -> float:
    """The time if groups not placed fill devices up to the lowest limit that suffices."""
    if "acyclic" in costs.constraints:
        return math.inf
    if math.isinf(least_s) or not _fits(costs, placed[:-1], placed[-1]):
        return math.inf
    power = math.ceil(math.log(least_s / total_s) / math.log(RATIO))
    for step in range(LIMITS):
        devices, limit = [*placed], total_s * RATIO ** (power + step)
        while len(devices) < costs.num_groups:
            before = loads(costs, schedule, devices)
            below, above = dict[int, float](), dict[int, float]()
            for one in _options(costs, devices):
                after = loads(costs, schedule, [*devices, one])
                changed = [
                    late
                    for late, early in zip(after.device, before.device, strict=True)
                    if late > early
                ]
                changed += [time for key, time in after.link.items() if time > before.link[key]]
                changed.append(after.device[one])
                more = sum(after.device) - sum(before.device)
                more += sum(after.link.values()) - sum(before.link.values())
                (below if max(changed) <= limit else above)[one] = (
                    more if max(changed) <= limit else max(changed)
                )
            chosen = below or above
            if not chosen:
                return math.inf
            devices.append(min(chosen, key=chosen.__getitem__))
        found = loads(costs, schedule, devices)
        value = max([*found.device, *found.link.values()])
        if value <= limit:
            break
    return value


def loads(costs: Costs, schedule: str, devices: Sequence[int]) -> Loads:
    """Loads of the first groups; links have some with `pipelined` only."""
    number = costs.num_devices
    device = [0.0] * number
    link = {(one, other): 0.0 for one in range(number) for other in range(number)}
    for group, own in enumerate(devices):
        device[own] += float(costs.compute_s[group, own])
    for tensor in range(costs.num_tensors):
        producer = int(costs.tensor_group[tensor])
        if producer >= len(devices):
            continue
        source = devices[producer]
        targets = {devices[one] for one in costs.readers(tensor).tolist() if one < len(devices)}
        moves = {one: float(costs.transfer_s(tensor)[source, one]) for one in targets - {source}}
        for target, seconds in moves.items():
            if schedule == "pipelined":
                link[source, target] += seconds
            elif costs.pays[target]:
                device[target] += seconds
        if schedule == "max_load" and costs.pays[source]:
            device[source] += max(moves.values(), default=0.0)
    return Loads(device, link)


def _options(costs: Costs, devices: Sequence[int]) -> list[int]:
    """Devices that the next group may go to: that of its colour, or all with room.

    They run all groups of its colour.
    """
    group = len(devices)
    colour = int(costs.colour[group])
    same = costs.colour == colour if colour != FREE else np.arange(costs.num_groups) == group
    runs = np.flatnonzero(np.isfinite(costs.compute_s[same]).all(axis=0)).tolist()
    if same[:group].any():
        runs = [one for one in runs if one == devices[int(same.argmax())]]
    return [one for one in runs if _fits(costs, devices, one)]


def _fits(costs: Costs, devices: Sequence[int], own: int) -> bool:
    for members, limit in costs.memory_limits():
        there = [number for number, one in enumerate([*devices, own]) if one in members]
        if own in members and costs.group_bytes[there].sum() > limit:
            return False
    return True


def stages_reached(costs: Costs, schedule: str, placed: Sequence[int], own: int) -> float:
    """The time if the next unit and some after it go to a device, the others to unused ones."""
    cuts = _Cuts(costs, schedule)
    group = len(placed)
    if cuts.unit[group] in cuts.unit[:group]:
        return math.inf
    start = cuts.unit[group]
    at = {cuts.unit[one]: device for one, device in enumerate(placed)}
    used = set(at.values())
    others = [
        cuts.load(device, {unit for unit, one in at.items() if one == device}, at)
        for device in range(costs.num_devices)
        if device != own
    ]
    unused = frozenset(
        one
        for one in range(costs.num_devices)
        if one not in used | {own} and ("acyclic" not in costs.constraints or one > own)
    )
    members = {unit for unit, one in at.items() if one == own}
    best = math.inf
    for unit in range(start, cuts.count):
        if math.isfinite(cuts.seconds(unit, own)):
            members.add(unit)
        elif unit == start:
            return math.inf
        if cuts.bytes_of(members) > costs.reachable_bytes()[own]:
            break
        here = cuts.load(own, members, at)
        best = min(best, max([*others, here, cuts.rest(unit + 1, unused)]))
    return best


class _Cuts:
    """Units in the order of their first groups, their loads, and their best stages."""

    def __init__(self, costs: Costs, schedule: str) -> None:
        self.costs, self.schedule = costs, schedule
        colours = costs.colour.tolist()
        first = [
            number if colour == FREE else colours.index(colour)
            for number, colour in enumerate(colours)
        ]
        order = sorted({*first})
        self.unit = [order.index(one) for one in first]
        self.count = len(order)
        self.rest = functools.cache(self._rest)
        self.into = [self._typical(one, 0) for one in range(costs.num_devices)]
        self.out = [self._typical(one, 1) for one in range(costs.num_devices)]

    def _typical(self, device: int, axis: int) -> tuple[float, float]:
        """Latency and seconds per byte of moves to a device (0) or from it (1)."""
        others = [one for one in range(self.costs.num_devices) if one != device]
        mean = min if "acyclic" in self.costs.constraints else np.mean
        latency, rate = (
            float(mean([links.take(device, 1 - axis)[one] for one in others]))
            for links in (self.costs.latency_s, self.costs.s_per_byte)
        )
        return latency, rate

    def seconds(self, unit: int, device: int) -> float:
        """Seconds that a unit runs."""
        return sum(
            float(self.costs.compute_s[group, device])
            for group, one in enumerate(self.unit)
            if one == unit
        )

    def bytes_of(self, members: set[int]) -> float:
        """Weights of some units."""
        return sum(
            float(self.costs.group_bytes[group])
            for group, one in enumerate(self.unit)
            if one in members
        )

    def load(
        self,
        device: int,
        members: set[int],
        at: dict[int, int],
        means: tuple[tuple[float, float], ...] = (),
    ) -> float:
        """Load of a device with these units, and of the links to it; the others are elsewhere.

        Args:
            device: number of it.
            members: units on it.
            at: where units are; moves from others have the mean speed.
            means: of moves in and out, if not those of the device.
        """
        into, out = means or (self.into[device], self.out[device])
        work = sum(self.seconds(unit, device) for unit in members)
        moved, links = 0.0, dict[int, float]()
        for tensor in range(self.costs.num_tensors):
            size = float(self.costs.tensor_bytes[tensor])
            maker = self.unit[self.costs.tensor_group[tensor]]
            readers = {self.unit[one] for one in self.costs.readers(tensor).tolist()} - {maker}
            if maker in members and readers - members:
                moved += out[0] + size * out[1]
            elif maker not in members and readers & members:
                source = -1 if means else at.get(maker, -1)
                cost = into[0] + size * into[1]
                if source >= 0:
                    cost = float(self.costs.transfer_s(tensor)[source, device])
                moved += cost
                links[source] = links.get(source, 0.0) + cost
        if self.schedule == "pipelined":
            return max([work, *links.values()])
        return work + moved if self.costs.pays[device] else work

    def _rest(self, begin: int, devices: frozenset[int]) -> float:
        """Least largest load of the units from one on, in stages."""
        if begin == self.count:
            return 0.0
        best = math.inf
        for device in devices:
            members = set[int]()
            for unit in range(begin, self.count):
                if math.isfinite(self.seconds(unit, device)):
                    members.add(unit)
                if self.bytes_of(members) > self.costs.reachable_bytes()[device]:
                    break
                here = self.load(device, members, {}, self._means(device))
                best = min(best, max(here, self.rest(unit + 1, devices - {device})))
        return best

    def _means(self, device: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Speeds of moves in and out, over all devices of the kind."""
        kind = [one for one in range(self.costs.num_devices) if self._alike(one, device)]
        into, out = (np.mean([of[one] for one in kind], axis=0) for of in (self.into, self.out))
        return (float(into[0]), float(into[1])), (float(out[0]), float(out[1]))

    def _alike(self, one: int, other: int) -> bool:
        limits, pays = self.costs.reachable_bytes(), self.costs.pays
        return (
            all(self.seconds(unit, one) == self.seconds(unit, other) for unit in range(self.count))
            and limits[one] == limits[other]
            and bool(pays[one] == pays[other])
        )
