"""Partial schedules and their features in plain Python, from the definitions, for comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from device_placement.envs.costs import Costs
from device_placement.envs.simulation.schedule import schedule_times
from reached_plainly import ends_reached, filling_reached, stages_reached

Arrivals = dict[tuple[int, int], float]  # seconds by tensor and device


def prefix(costs: Costs, groups: int) -> Costs:
    """The costs of the first groups alone, with the reads among them."""
    tensor = np.repeat(np.arange(costs.num_tensors), np.diff(costs.reader_start))
    kept = costs.reader < groups
    tensors = np.flatnonzero(np.bincount(tensor[kept], minlength=costs.num_tensors))
    counts = np.bincount(tensor[kept], minlength=costs.num_tensors)[tensors]
    return replace(
        costs,
        compute_s=costs.compute_s[:groups],
        tensor_group=costs.tensor_group[tensors],
        tensor_bytes=costs.tensor_bytes[tensors],
        reader_start=np.append(0, counts.cumsum()).astype(np.int32),
        reader=costs.reader[kept],
        group_bytes=costs.group_bytes[:groups],
        colour=costs.colour[:groups],
        is_input=costs.is_input[:0],
        is_output=costs.is_output[:0],
        is_idle=costs.is_idle[:0],
        memory_bytes=np.full(costs.num_devices, np.inf),
        pool_bytes=costs.pool_bytes[:0],
        pool_devices=costs.pool_devices[:0],
    )


def prefix_time(costs: Costs, schedule: str, devices: Sequence[int]) -> float:
    """The time of the first groups; with `dataflow` that of `concurrent`."""
    if not len(devices):
        return 0.0
    chosen = "concurrent" if schedule == "dataflow" else schedule
    return float(schedule_times(prefix(costs, len(devices)), np.array([devices]), chosen)[0])


def squash(x: float) -> float:
    """sign(x) log(1 + |x|), at most 8 in size."""
    return math.copysign(min(math.log1p(abs(x)), 8.0), x)


def plain_features(costs: Costs, schedule: str, devices: Sequence[int]) -> list[list[float] | None]:
    """Features of the next group on each device, in the order of PARTIAL_SCHEDULE.

    None: the device does not run the group.
    """
    group, number = len(devices), costs.num_devices
    inputs = [
        (int(costs.tensor_group[tensor]), tensor)
        for tensor in range(costs.num_tensors)
        if group in costs.readers(tensor)
    ]

    def move(tensor: int, source: int, target: int) -> float:
        return float(costs.transfer_s(tensor)[source, target])

    def replay(
        placed: Sequence[int],
    ) -> tuple[list[float], list[float], dict[tuple[int, int], float]]:
        """Ends of the groups, when devices are free, and arrivals, by `concurrent`."""
        ends: list[float] = []
        free, links = [0.0] * number, {}
        there: Arrivals = {}
        for one, own in enumerate(placed):
            ready = free[own]
            for tensor in range(costs.num_tensors):
                if one not in costs.readers(tensor):
                    continue
                producer = int(costs.tensor_group[tensor])
                source = placed[producer]
                if source == own:
                    ready = max(ready, ends[producer])
                    continue
                if (tensor, own) not in there:
                    begin = max(ends[producer], links.get((source, own), 0.0))
                    there[tensor, own] = begin + move(tensor, source, own)
                    links[source, own] = there[tensor, own]
                ready = max(ready, there[tensor, own])
            ends.append(ready + float(costs.compute_s[one, own]))
            free[own] = ends[-1]
        return ends, free, there

    fastest = [float(min(row[np.isfinite(row)])) for row in costs.compute_s]
    mean = [float(np.mean(row[np.isfinite(row)])) for row in costs.compute_s]
    total = sum(fastest)
    m = total / costs.num_groups
    pairs = number * (number - 1)
    moves = [float(costs.transfer_s(tensor).sum()) / pairs for tensor in range(costs.num_tensors)]
    bottom = [0.0] * costs.num_groups
    for one in range(costs.num_groups - 1, -1, -1):
        after = [
            bottom[reader] + moves[tensor] / 2
            for tensor in range(costs.num_tensors)
            if costs.tensor_group[tensor] == one
            for reader in costs.readers(tensor).tolist()
        ]
        bottom[one] = mean[one] + max(after, default=0.0)
    ends, free, there = replay(devices)
    now = prefix_time(costs, schedule, devices)
    weights = max(float(costs.group_bytes.sum()), 1.0)
    sizes = max(sum(float(costs.tensor_bytes[tensor]) for _, tensor in inputs), 1.0)
    rows: list[dict[str, float] | None] = []
    for own in range(number):
        compute = float(costs.compute_s[group, own])
        if math.isinf(compute):
            rows.append(None)
            continue
        after_ends, _, after_there = replay([*devices, own])
        here = [tensor for producer, tensor in inputs if devices[producer] == own]
        known = [tensor for _, tensor in inputs if (tensor, own) in there]
        new = {
            tensor: devices[producer]
            for producer, tensor in inputs
            if tensor not in here and tensor not in known
        }
        arrivals = [ends[int(costs.tensor_group[tensor])] for tensor in here]
        arrivals += [after_there[tensor, own] for tensor in (*known, *new)]
        room = math.inf
        for members, limit in costs.memory_limits():
            if own in members:
                used = sum(
                    float(costs.group_bytes[g]) for g, d in enumerate(devices) if d in members
                )
                room = min(room, limit - used - float(costs.group_bytes[group]))
        busy = [after_ends[-1] if one == own else free[one] for one in range(number)]
        if schedule in ("pipelined", "max_load"):
            placed = [*devices, own]
            busy = [
                _load(costs, schedule, placed if one == own else devices, one)
                for one in range(number)
            ]
        rows.append(
            {
                "fits": float(room >= 0),
                "finish": after_ends[-1],
                "arrival": max(arrivals, default=0.0),
                "free": free[own],
                "beyond": after_ends[-1] - max(free),
                "work": compute + sum(move(t, s, own) for t, s in new.items()),
                "moves": sum(move(t, s, own) for t, s in new.items()),
                "value": prefix_time(costs, schedule, [*devices, own]),
                "growth": prefix_time(costs, schedule, [*devices, own]) - now,
                "load": _load(costs, schedule, [*devices, own], own),
                "made": sum(float(costs.tensor_bytes[t]) for t in here) / sizes,
                "moved": sum(float(costs.tensor_bytes[t]) for t in known) / sizes,
                "any": float(sum(float(costs.tensor_bytes[t]) for t in here) > 0),
                "previous": float(group > 0 and devices[-1] == own),
                "room": min(max(room / weights, 0.0), 1.0),
                "now_load": _load(costs, schedule, devices, own) / total,
                "remaining": sum(
                    float(row[own]) for row in costs.compute_s[group:] if np.isfinite(row[own])
                )
                / total,
                "now": now / total,
                "position": group / costs.num_groups,
                "tail": after_ends[-1] + bottom[group] - mean[group],
                "used": float(own in devices),
                "room_for_rest": _share(
                    room + float(costs.group_bytes[group]), float(costs.group_bytes[group:].sum())
                ),
                "weights": squash(float(costs.group_bytes[group]) * costs.num_groups / weights),
                "price": (price := _price(costs, devices, own)),
                "estimate": price,  # the rest is added below
                "reached": 0.0,
                "end": _end(costs, schedule, devices, own, busy),
                "full": 0.0,
            }
        )
    for own, row in enumerate(rows):
        if row is not None:
            shared = schedule in ("pipelined", "max_load")
            row["estimate"] += row["end"] if shared else row["value"]
            row["reached"] = row["estimate"] + _runs(costs, group + 1, own)
            if shared:
                row["reached"] = min(
                    stages_reached(costs, schedule, devices, own),
                    filling_reached(costs, schedule, [*devices, own], row["end"], total),
                )
            elif schedule != "sequential":
                row["reached"] = ends_reached(
                    costs,
                    [*devices, own],
                    lambda placed: replay(placed)[0][-1],
                    lambda placed: max(replay(placed)[0]),
                )
            row["full"] = _share(row["load"], row["end"])
    known = [row for row in rows if row is not None]
    if all(math.isinf(row["reached"]) for row in known):
        for row in known:
            row["reached"] = row["estimate"]
    result: list[list[float] | None] = []
    for row in rows:
        if row is None:
            result.append(None)
            continue
        for key in ("beyond", "moves", "growth", "price"):
            row[key] = squash(row[key] / m)
        for key in ("now_load", "remaining", "now"):
            row[key] = squash(row[key])
        result.append(list(row.values()))
    present = [row for row in rows if row is not None]
    keys = ("finish", "arrival", "free", "work", "value", "load", "tail")
    for key in (*keys, "estimate", "reached", "end"):
        column = list(present[0]).index(key)
        least = min(row[key] for row in present)
        for values, row in zip(result, rows, strict=True):
            if values is not None and row is not None:
                values[column] = squash((row[key] - least) / m)
    return result


def _share(one: float, other: float) -> float:
    """one / other, from 0 to 2; 2 if the other is 0."""
    return min(max(one / other, 0.0), 2.0) if other > 0 else 2.0


def _load(costs: Costs, schedule: str, devices: Sequence[int], own: int) -> float:
    """Seconds of compute on a device, with `max_load` also of what it sends and receives."""
    load = sum(float(costs.compute_s[group, own]) for group, d in enumerate(devices) if d == own)
    if schedule != "max_load" or not costs.pays[own]:
        return load
    for tensor in range(costs.num_tensors):
        producer = int(costs.tensor_group[tensor])
        if producer >= len(devices):
            continue
        source = devices[producer]
        readers = [r for r in costs.readers(tensor).tolist() if r < len(devices)]
        targets = {devices[reader] for reader in readers} - {source}
        if source == own:
            load += max((costs.transfer_s(tensor)[own, one] for one in targets), default=0.0)
        elif own in targets:
            load += float(costs.transfer_s(tensor)[source, own])
    return load


def _rooms(costs: Costs, devices: Sequence[int]) -> list[float]:
    """Bytes that each device has left after some groups are placed."""
    rooms = [math.inf] * costs.num_devices
    for members, limit in costs.memory_limits():
        used = sum(float(costs.group_bytes[g]) for g, d in enumerate(devices) if d in members)
        for own in members:
            rooms[own] = min(rooms[own], max(limit - used, 0.0))
    return rooms


def _price(costs: Costs, devices: Sequence[int], own: int) -> float:
    """Seconds that the bytes of the next group would save if they went to the best others."""
    group = len(devices)
    rooms, sizes = _rooms(costs, devices), costs.group_bytes[group:]
    short = {one for one, room in enumerate(rooms) if room < sizes.sum()}
    if len(short) == len(rooms):
        short -= {one for one in short if rooms[one] == max(rooms)}
    if own not in short:
        return 0.0
    offers = []
    for size, times in zip(sizes.tolist(), costs.compute_s[group:].tolist(), strict=True):
        there = min(times[one] for one in short)
        other = min(times[one] for one in range(len(rooms)) if one not in short)
        if math.isinf(other):
            other = max(time for time in times if math.isfinite(time))
        offers.append((max(other - there, 0.0) / size if size else 0.0, size))
    room = sum(rooms[one] for one in short)
    for saved_per_byte, size in sorted(offers, key=lambda offer: -offer[0]):
        room -= size
        if room < 0:
            return saved_per_byte * float(costs.group_bytes[group])
    return 0.0


def _end(
    costs: Costs, schedule: str, devices: Sequence[int], own: int, busy: Sequence[float]
) -> float:
    """Seconds when all ends if devices share the groups not placed, by speed and room.

    busy: seconds of what each device already has.
    """
    least, group = prefix_time(costs, schedule, [*devices, own]), len(devices)
    after = costs.compute_s[group + 1 :]
    if schedule == "sequential":
        return least + sum(min(times) for times in after.tolist())
    rest = [
        sum(
            times[one] if math.isfinite(times[one]) else np.mean([*filter(math.isfinite, times)])
            for times in after.tolist()
        )
        for one in range(costs.num_devices)
    ]
    left = float(costs.group_bytes[group:].sum())
    most = [min(room / left, 1.0) if left else 1.0 for room in _rooms(costs, devices)]
    if sum(most) < 1:
        most = [1.0] * len(most)

    def done(end: float) -> float:
        """The share of the rest that is done by then."""
        total = 0.0
        for at, seconds, limit in zip(busy, rest, most, strict=True):
            if end >= at + seconds * limit:
                total += limit
            elif end > at:
                total += (end - at) / seconds
        return total

    if done(least) >= 1:
        return least
    full = [at + seconds * limit for at, seconds, limit in zip(busy, rest, most, strict=True)]
    later = sorted(one for one in {*busy, *full} if one > least)
    below = least
    for corner in later:  # between two corners the share grows along a line
        if done(corner) >= 1:
            growth = sum(
                (corner - below) / seconds
                for at, seconds, one in zip(busy, rest, full, strict=True)
                if at <= below and corner <= one and seconds > 0
            )
            return below + min((1 - done(below)) / growth, 1.0) * (corner - below)
        below = corner
    return below


def _runs(costs: Costs, group: int, before: int) -> float:
    """The least time of a group and those after it; a switch moves all tensors alive."""
    if group == costs.num_groups:
        return 0.0
    alive = [
        tensor
        for tensor in range(costs.num_tensors)
        if costs.tensor_group[tensor] < group <= max(costs.readers(tensor).tolist())
    ]
    best = math.inf
    for own in range(costs.num_devices):
        if np.isfinite(costs.compute_s[group, own]):
            switch = sum(float(costs.transfer_s(tensor)[before, own]) for tensor in alive)
            begin = float(costs.subgraph_s[own]) if own != before else 0.0
            rest = float(costs.compute_s[group, own]) + _runs(costs, group + 1, own)
            best = min(best, switch + begin + rest)
    return best
