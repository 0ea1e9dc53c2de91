"""The schedule `dataflow` once more, in the plainest way: event by event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from device_placement.envs.costs import Costs
from device_placement.envs.executors.regions import find_regions

Read = tuple[int, int, int]  # tensor, its group, a group that reads it


def reads_of(costs: Costs) -> tuple[list[Read], list[Read], list[Read]]:
    """The reads that may separate regions, those of model inputs, those by model outputs."""
    inner, inputs, outputs = list[Read](), list[Read](), list[Read]()
    for tensor, producer in enumerate(costs.tensor_group.tolist()):
        start = int(costs.reader_start[tensor])
        for position, reader in enumerate(costs.readers(tensor).tolist(), start):
            if costs.is_output.size and costs.is_output[position]:
                outputs.append((tensor, producer, reader))
            elif costs.is_input.size and costs.is_input[tensor]:
                inputs.append((tensor, producer, reader))
            else:
                inner.append((tensor, producer, reader))
    return inner, inputs, outputs


def regions_plainly(costs: Costs, p: Sequence[int]) -> list[int]:
    """The region of each group; one that computes nothing is alone."""
    inner, _, _ = reads_of(costs)
    tensor, producer, reader = np.array(inner, np.int64).reshape(-1, 3).T
    return [int(one) for one in find_regions(producer, reader, tensor, np.array(p, np.int64))]


def dataflow_plainly(costs: Costs, p: Sequence[int]) -> float:
    """The time of a placement."""
    inner, inputs, outputs = reads_of(costs)
    idle = costs.is_idle if costs.is_idle.size else np.zeros(costs.num_groups, np.bool_)
    region = regions_plainly(costs, p)
    members: dict[int, list[int]] = {}
    for group, one in enumerate(region):
        if not idle[group]:
            members.setdefault(one, []).append(group)
    home = {one: p[groups[0]] for one, groups in members.items()}
    first = {one: groups[0] for one, groups in members.items()}

    between = [read for read in inner if region[read[1]] != region[read[2]]]
    seconds = dict.fromkeys(members, 0.0)
    for one, groups in members.items():
        leaving = {tensor for tensor, producer, _ in between if region[producer] == one}
        seconds[one] = float(sum(costs.compute_s[group, p[group]] for group in groups))
        if costs.split_factor.size and len(set(p)) > 1:
            seconds[one] *= float(costs.split_factor[home[one]])
        if costs.region_s.size:
            seconds[one] += float(costs.region_s[home[one]])
        if costs.crossing_s.size:
            seconds[one] += len(leaving) * float(costs.crossing_s[home[one]])

    rank: dict[int, float] = {}
    for one in sorted(members, reverse=True):  # numbered topologically
        later = [rank[region[reader]] for _, maker, reader in between if region[maker] == one]
        rank[one] = seconds[one] + max(later, default=0.0)

    arrival: dict[tuple[int, int], float] = {}  # by tensor and device
    link_free: dict[tuple[int, int], float] = {}

    def send(reads: Sequence[Read], time_s: float) -> None:
        for tensor, producer, reader in sorted(reads):
            link = p[producer], p[reader]
            if (tensor, link[1]) in arrival:
                continue
            arrival[tensor, link[1]] = time_s
            if link[0] != link[1]:
                begin = max(time_s, link_free.get(link, 0.0))
                takes_s = float(costs.transfer_s(tensor)[link])
                link_free[link] = arrival[tensor, link[1]] = begin + takes_s

    given = {int(tensor) for tensor in np.flatnonzero(costs.is_input)}
    made = [read for read in inner + outputs if read[0] not in given]
    send([read for read in inputs + outputs if read[0] in given], 0.0)
    free = [0.0] * costs.num_devices
    for group in np.flatnonzero(idle):
        free[p[group]] += float(costs.compute_s[group, p[group]])
    ends: dict[int, float] = {}
    waiting, running = set(members), set[int]()
    now = 0.0
    while True:
        for one in sorted(running, key=lambda one: ends[one]):
            if ends[one] <= now:
                running.remove(one)
                send([read for read in made if region[read[1]] == one], ends[one])
        for device in range(costs.num_devices):
            needs = {
                one: [(t, device) for t, m, g in inner if region[g] == one != region[m]]
                + [(t, device) for t, _, g in inputs if region[g] == one]
                for one in waiting
                if home[one] == device
            }
            ready = [
                one
                for one, keys in needs.items()
                if all(arrival.get(key, np.inf) <= now for key in keys)
            ]
            if ready and free[device] <= now:
                chosen = min(ready, key=lambda one: (-rank[one], first[one]))
                free[device] = ends[chosen] = now + seconds[chosen]
                waiting.remove(chosen)
                running.add(chosen)
        later = [time_s for time_s in (*arrival.values(), *free) if time_s > now]
        if not later:
            break
        now = min(later)
    assert not waiting
    reached = [arrival[tensor, p[reader]] for tensor, _, reader in outputs]
    return float(max([*ends.values(), *free, *reached], default=0.0))
