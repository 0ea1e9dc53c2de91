"""Compiled loops over partial schedules: place groups, look at the next ones, scale the result."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int8, Int32, Int64
from device_placement.envs.jit import compiled_above

SMALL = 1000  # elements of an outlook; Python takes a few milliseconds for these
SEQUENTIAL, CONCURRENT, PIPELINED, MAX_LOAD = range(4)  # how a prefix is timed

# How a feature is scaled: not at all; by a mean group; by the sum of all; by a mean group after the
# least of the devices is subtracted.
AS_IT_IS, OVER_GROUP, OVER_TOTAL, EXCESS = range(4)

OUTLOOK = (
    "arrival_s",
    "free_s",
    "finish_s",
    "compute_s",
    "moves_s",
    "value_s",
    "load_s",
    "bytes_made",
    "bytes_moved",
    "room_bytes",
    "is_previous",
)
"""What is known of the next group on each device; `Outlook` has the meanings."""


class CostArrays(NamedTuple):
    """Costs of many problems, padded; see `Costs` for their meanings."""

    num_groups: Int32  # (num_problems,)
    num_devices: Int32  # (num_problems,)
    timing: Int32  # (num_problems,) `SEQUENTIAL` to `MAX_LOAD`
    compute_s: Float64  # (num_problems, max_groups, max_devices)
    tensor_group: Int32  # (num_problems, max_tensors)
    tensor_bytes: Float64  # (num_problems, max_tensors)
    input_start: Int32  # (num_problems, max_groups + 1)
    input_tensor: Int32  # (num_problems, max_readers)
    latency_s: Float64  # (num_problems, max_devices, max_devices)
    s_per_byte: Float64  # (num_problems, max_devices, max_devices)
    subgraph_s: Float64  # (num_problems, max_devices)
    pays: Bool  # (num_problems, max_devices)
    group_bytes: Float64  # (num_problems, max_groups)
    limit_bytes: Float64  # (num_problems, max_limits) inf where there is none
    limited: Bool  # (num_problems, max_limits, max_devices) whose weights count for the limit


class StateArrays(NamedTuple):
    """State of one partial schedule per row."""

    problem: Int64  # (num_rows,)
    cursor: Int32  # (num_rows,) the next group
    device: Int8  # (num_rows, max_groups) -1: not placed
    end_s: Float64  # (num_rows, max_groups) when each group ends
    there_s: Float64  # (num_rows, max_tensors, max_devices) of a move's arrival; -1: not moved
    sent_s: Float64  # (num_rows, max_tensors) of the slowest move of each tensor
    root: Int32  # (num_rows, max_groups) forest of each device's connected groups
    free_s: Float64  # (num_rows, max_devices) when each device has ended its groups
    link_free_s: Float64  # (num_rows, max_devices, max_devices) the same of moves, by from and to
    load_s: Float64  # (num_rows, max_devices) of compute; with `MAX_LOAD` also of moves
    link_load_s: Float64  # (num_rows, max_devices, max_devices)
    used_bytes: Float64  # (num_rows, max_limits) of weights
    num_placed: Int32  # (num_rows, max_devices) groups on each device
    value_s: Float64  # (num_rows,) the time of what is placed, by the schedule


@compiled_above(SMALL)
def advance(
    costs: CostArrays, state: StateArrays, rows: Int64, actions: Int64, outlook: Float64
) -> None:
    """Place the next group of some rows, then look at the group after it on each device.

    Placing and looking walk the same inputs in the same order, so a look is exact.

    Args:
        costs: of the problems.
        state: of the rows; changed in place.
        rows: (count,) which rows.
        actions: (count,) the device of each next group; -1: only look.
        outlook: (count, max_devices, len(OUTLOOK)), filled for devices of the problem, unless all
            groups of the row are placed.
    """
    max_devices = costs.compute_s.shape[2]
    more_s = np.empty(max_devices)  # of load on each device, for what is sent from it
    link_s = np.empty(max_devices)  # when the link from each device will be free
    link_more_s = np.empty(max_devices)  # of load on the link from each device
    stamped = np.zeros(state.root.shape[1], dtype=np.int64)  # to find each region only once
    stamp = 0
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        placing = actions[number] >= 0
        timing = costs.timing[problem]
        while True:
            group = state.cursor[row]
            if group == costs.num_groups[problem]:
                break
            first, last = 0, int(costs.num_devices[problem])
            if placing:
                first, last = actions[number], actions[number] + 1
            for own in range(first, last):
                compute_s = costs.compute_s[problem, group, own]
                arrival_s = moves_s = made = moved = 0.0
                received_s = 0.0  # of moves that the device pays for
                joined = 0  # regions of the device that the group reads from
                for source in range(max_devices):
                    more_s[source] = link_more_s[source] = 0.0
                    link_s[source] = state.link_free_s[row, source, own]
                start = costs.input_start[problem, group]
                stop = costs.input_start[problem, group + 1]
                for position in range(start, stop):
                    tensor = costs.input_tensor[problem, position]
                    producer = costs.tensor_group[problem, tensor]
                    size = costs.tensor_bytes[problem, tensor]
                    source = state.device[row, producer]
                    if source == own:
                        arrival_s = max(arrival_s, state.end_s[row, producer])
                        made += size
                        continue
                    there_s = state.there_s[row, tensor, own]
                    if there_s >= 0.0:
                        arrival_s = max(arrival_s, there_s)
                        moved += size
                        continue
                    cost = (
                        costs.latency_s[problem, source, own]
                        + size * costs.s_per_byte[problem, source, own]
                    )
                    there_s = max(state.end_s[row, producer], link_s[source]) + cost
                    link_s[source] = there_s
                    arrival_s = max(arrival_s, there_s)
                    moves_s += cost
                    link_more_s[source] += cost
                    if costs.pays[problem, own]:
                        received_s += cost
                    if costs.pays[problem, source] and cost > state.sent_s[row, tensor]:
                        more_s[source] += cost - state.sent_s[row, tensor]
                    if placing:
                        state.there_s[row, tensor, own] = there_s
                        state.sent_s[row, tensor] = max(state.sent_s[row, tensor], cost)
                if costs.subgraph_s[problem, own] > 0.0:
                    stamp += 1
                    if placing:  # the new root, before anything is joined to it
                        state.root[row, group] = group
                        stamped[group] = stamp
                    for position in range(start, stop):
                        tensor = costs.input_tensor[problem, position]
                        root = costs.tensor_group[problem, tensor]
                        if state.device[row, root] == own:
                            while state.root[row, root] != root:
                                root = state.root[row, root]
                            if stamped[root] != stamp:
                                stamped[root] = stamp
                                joined += 1
                                if placing:
                                    state.root[row, root] = group
                finish_s = max(arrival_s, state.free_s[row, own]) + compute_s
                load_s = state.load_s[row, own] + compute_s
                value_s = state.value_s[row]
                if timing == SEQUENTIAL:
                    value_s += compute_s + moves_s
                    value_s += (1 - joined) * costs.subgraph_s[problem, own]
                elif timing == CONCURRENT:
                    value_s = max(value_s, finish_s)
                elif timing == PIPELINED:
                    value_s = max(value_s, load_s)
                    for source in range(costs.num_devices[problem]):
                        if link_more_s[source] > 0.0:
                            link_load_s = state.link_load_s[row, source, own] + link_more_s[source]
                            value_s = max(value_s, link_load_s)
                else:
                    load_s += received_s
                    value_s = max(value_s, load_s)
                    for source in range(costs.num_devices[problem]):
                        if more_s[source] > 0.0:
                            value_s = max(value_s, state.load_s[row, source] + more_s[source])
                if placing:
                    state.device[row, group] = own
                    state.end_s[row, group] = finish_s
                    state.free_s[row, own] = finish_s
                    state.load_s[row, own] = load_s
                    state.value_s[row] = value_s
                    state.num_placed[row, own] += 1
                    for source in range(costs.num_devices[problem]):
                        state.link_free_s[row, source, own] = link_s[source]
                        state.link_load_s[row, source, own] += link_more_s[source]
                        if timing == MAX_LOAD:
                            state.load_s[row, source] += more_s[source]
                    for limit in range(costs.limit_bytes.shape[1]):
                        if costs.limited[problem, limit, own]:
                            state.used_bytes[row, limit] += costs.group_bytes[problem, group]
                    continue
                room = np.inf
                for limit in range(costs.limit_bytes.shape[1]):
                    if costs.limited[problem, limit, own]:
                        left = costs.limit_bytes[problem, limit] - state.used_bytes[row, limit]
                        room = min(room, left - costs.group_bytes[problem, group])
                seen = outlook[number, own]
                seen[0] = arrival_s
                seen[1] = state.free_s[row, own]
                seen[2] = finish_s
                seen[3] = compute_s
                seen[4] = moves_s
                seen[5] = value_s
                seen[6] = load_s
                seen[7] = made
                seen[8] = moved
                seen[9] = room
                seen[10] = group > 0 and state.device[row, group - 1] == own
            if not placing:
                break
            state.cursor[row] += 1
            placing = False


@compiled_above(SMALL)
def scale_features(
    features: Float64, kinds: Int64, runs: Bool, group_s: Float64, total_s: Float64, most: float
) -> None:
    """Scale features of devices in place, and compress those of times: sign(x) log(1 + |x|).

    Args:
        features: (count, max_devices, num_features); set to 0 for devices that don't run the group.
        kinds: (num_features,) how each is scaled.
        runs: (count, max_devices) whether the device runs the group.
        group_s: (count,) seconds of a mean group.
        total_s: (count,) seconds of all groups.
        most: limit of the absolute value of a compressed feature.
    """
    count, max_devices, num_features = features.shape
    for row in range(count):
        for column in range(num_features):
            kind = kinds[column]
            least = np.inf
            if kind == EXCESS:
                for device in range(max_devices):
                    if runs[row, device]:
                        least = min(least, features[row, device, column])
            for device in range(max_devices):
                value = features[row, device, column]
                if not runs[row, device]:
                    value = 0.0
                elif kind != AS_IT_IS:
                    if kind == EXCESS:
                        # Both are infinite after a group on a device that can't run it.
                        value = 0.0 if value == least else value - least
                    value /= total_s[row] if kind == OVER_TOTAL else group_s[row]
                    size = min(np.log1p(abs(value)), most)
                    value = size if value >= 0.0 else -size
                    if np.isnan(value):
                        value = 0.0
                features[row, device, column] = value
