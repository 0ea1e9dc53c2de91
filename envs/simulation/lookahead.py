"""Outlook on all groups that are not placed: the price of memory, and when they would end."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.jit import compiled_above
from device_placement.envs.simulation.partial_kernels import (
    CONCURRENT,
    OUTLOOK,
    SEQUENTIAL,
    SMALL,
    CostArrays,
    StateArrays,
)

FREE_S, FINISH_S, VALUE_S, LOAD_S, ROOM_BYTES = (
    OUTLOOK.index(name) for name in ("free_s", "finish_s", "value_s", "load_s", "room_bytes")
)
HALVINGS = 40  # of the interval in which the end is looked for
ROUNDING = 1e-12  # of shares


class RestArrays(NamedTuple):
    """Sums over a group and all after it, of many problems; 0 at the end."""

    rest_s: Float64  # (num_problems, max_groups + 1, max_devices) all on one device
    fastest_rest_s: Float64  # (num_problems, max_groups + 1) each on its fastest
    rest_bytes: Float64  # (num_problems, max_groups + 1) of weights
    # (num_problems, max_groups + 1, max_devices) in runs, after a group on each device
    run_rest_s: Float64
    is_acyclic: Bool  # (num_problems,) data goes from a device to itself or to a higher one


def rest_of(costs: Costs) -> dict[str, NDArray[Any]]:
    """Return the fields of `RestArrays` for one problem, without its first dimension.

    A group counts with its mean time on devices that can't run it.
    """
    runs = np.isfinite(costs.compute_s)
    known_s = np.where(runs, costs.compute_s, 0.0)
    mean_s = known_s.sum(axis=1) / np.maximum(runs.sum(axis=1), 1)
    all_s = np.where(runs, costs.compute_s, mean_s[:, None])
    sums = {"rest_s": all_s, "fastest_rest_s": all_s.min(axis=1), "rest_bytes": costs.group_bytes}
    result = {
        name: np.concatenate([one[::-1].cumsum(axis=0)[::-1], np.zeros_like(one[:1])])
        for name, one in sums.items()
    }
    return result | {
        "run_rest_s": run_rest_s(costs),
        "is_acyclic": np.array("acyclic" in costs.constraints),
    }


def run_rest_s(costs: Costs) -> Float64:
    """Return the least time of each group and all after it, one after the other, in runs.

    Whenever the device changes, all tensors that are still to be read move. It is exact for a chain
    in ``sequential`` without limits of memory.

    Args:
        costs: of the groups.

    Returns:
        (num_groups + 1, num_devices) seconds, if the group before is on the device.
    """
    groups, devices = costs.num_groups, costs.num_devices
    made = costs.tensor_group.astype(np.int64)
    # Readers are ascending, and every tensor has one.
    last = costs.reader[costs.reader_start[1:] - 1]
    alive, alive_bytes = np.zeros(groups + 1), np.zeros(groups + 1)
    for array, weights in ((alive, np.ones(made.size)), (alive_bytes, costs.tensor_bytes)):
        np.add.at(array, made + 1, weights)
        np.subtract.at(array, last.astype(np.int64) + 1, weights)
    alive, alive_bytes = alive.cumsum(), alive_bytes.cumsum()
    result = np.zeros((groups + 1, devices))
    others = 1.0 - np.eye(devices)
    begin_s = costs.subgraph_s * others
    for group in range(groups - 1, -1, -1):
        from_here_s = costs.compute_s[group] + result[group + 1]
        switch_s = alive[group] * costs.latency_s + alive_bytes[group] * costs.s_per_byte
        result[group] = (switch_s + begin_s + from_here_s).min(axis=1)
    return result


@compiled_above(SMALL)
def look_ahead(
    costs: CostArrays,
    state: StateArrays,
    rest: RestArrays,
    rows: Int64,
    outlook: Float64,
    bound: Float64,
    result: Float64,
) -> None:
    """Estimate for the next groups of some rows what placing them on each device leaves.

    The price of a group's weights is what else their bytes would save. It is the price of a
    fractional knapsack (Dantzig 1957): the groups not placed fill the room in the order of the
    seconds saved per byte, and the first that does not fit sets the price of a byte.

    The end of all is when the devices would end if they shared the groups not placed, each as much
    as its speed and its room allow, without moves; in `SEQUENTIAL` each group is then on its
    fastest device. Where data only goes to higher devices, groups are shared by those from the
    highest on that one of their producers is on.

    Args:
        costs: of the problems.
        state: of the rows.
        rest: of the problems.
        rows: (count,) which rows.
        outlook: (count, max_devices, len(OUTLOOK)), as `advance` fills it.
        bound: (count, max_devices, 2), as `bind` fills it.
        result: (count, max_devices, 2), filled with price and end in seconds.
    """
    max_groups, max_devices = costs.compute_s.shape[1:]
    room = np.empty(max_devices)  # before the group
    is_short = np.zeros(max_devices, dtype=np.bool_)  # of room, with another device to fall back on
    saved_s, density = np.empty(max_groups), np.empty(max_groups)
    share = np.empty(max_devices)  # of the groups not placed that a device has room for
    busy_s = np.empty(max_devices)
    needed = np.empty(max_devices)  # share that must go to each device or higher
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        group, timing = state.cursor[row], costs.timing[problem]
        num_groups, num_devices = costs.num_groups[problem], costs.num_devices[problem]
        if group == num_groups:
            continue
        own_bytes, rest_bytes = costs.group_bytes[problem, group], rest.rest_bytes[problem, group]
        most = -np.inf
        num_short = 0
        for device in range(num_devices):
            room[device] = max(outlook[number, device, ROOM_BYTES] + own_bytes, 0.0)
            is_short[device] = room[device] < rest_bytes
            num_short += is_short[device]
            most = max(most, room[device])
        if num_short == num_devices:  # what has the most room is what one falls back on
            for device in range(num_devices):
                if room[device] == most:
                    is_short[device] = False
                    num_short -= 1
        price_s = 0.0
        if num_short > 0 and own_bytes > 0.0:
            shared_room = 0.0
            for device in range(num_devices):
                if is_short[device]:
                    shared_room += room[device]
            count = num_groups - group
            for other in range(group, num_groups):
                there_s, elsewhere_s, slowest_s = np.inf, np.inf, 0.0
                for device in range(num_devices):
                    seconds = costs.compute_s[problem, other, device]
                    if seconds < np.inf:
                        slowest_s = max(slowest_s, seconds)
                    if is_short[device]:
                        there_s = min(there_s, seconds)
                    else:
                        elsewhere_s = min(elsewhere_s, seconds)
                if elsewhere_s == np.inf:
                    elsewhere_s = slowest_s
                at = other - group
                saved_s[at] = max(elsewhere_s - there_s, 0.0)
                size = costs.group_bytes[problem, other]
                density[at] = saved_s[at] / size if size > 0.0 else 0.0
            filled = 0.0
            for at in np.argsort(-density[:count], kind="mergesort"):
                filled += costs.group_bytes[problem, group + at]
                if filled > shared_room:
                    price_s = density[at] * own_bytes
                    break
        total = 0.0
        for device in range(num_devices):
            share[device] = 1.0
            if room[device] < rest_bytes:
                share[device] = room[device] / rest_bytes
            total += share[device]
        if total < 1.0:  # nothing fits: the time alone counts
            share[:] = 1.0
        for own in range(num_devices):
            result[number, own, 0] = price_s if is_short[own] else 0.0
            least_s = outlook[number, own, VALUE_S]
            if timing == SEQUENTIAL or least_s == np.inf:
                result[number, own, 1] = least_s + rest.fastest_rest_s[problem, group + 1]
                continue
            needed[:] = 0.0
            for device in range(num_devices):
                needed[device] += bound[number, device, 0]
                needed[max(device, own)] += bound[number, device, 1]
            for device in range(num_devices - 2, -1, -1):
                needed[device] += needed[device + 1]
            needed[0] = 1.0
            latest_s = 0.0
            for device in range(num_devices):
                if timing == CONCURRENT:
                    at = FINISH_S if device == own else FREE_S
                    busy_s[device] = outlook[number, device, at]
                elif device == own:
                    busy_s[device] = outlook[number, own, LOAD_S]
                else:
                    busy_s[device] = state.load_s[row, device]
                latest_s = max(latest_s, busy_s[device] + rest.rest_s[problem, group + 1, device])
            low_s, high_s = least_s, max(least_s, latest_s)
            for halving in range(HALVINGS + 1):
                # First of all whether what is placed leaves time enough.
                end_s = low_s if halving == 0 else (low_s + high_s) / 2
                done, missing = 0.0, 0.0
                for device in range(num_devices - 1, -1, -1):
                    left_s = end_s - busy_s[device]
                    rest_s = rest.rest_s[problem, group + 1, device]
                    if left_s >= rest_s * share[device]:
                        done += share[device]
                    elif left_s > 0.0:
                        done += left_s / rest_s
                    missing = max(missing, needed[device] - done)
                if missing <= ROUNDING:
                    high_s = end_s
                    if halving == 0:
                        break
                else:
                    low_s = end_s
            result[number, own, 1] = high_s


@compiled_above(SMALL)
def bind(
    costs: CostArrays, state: StateArrays, rest: RestArrays, rows: Int64, bound: Float64
) -> None:
    """Find the lowest device of the groups after the next one, where data only goes to higher ones.

    It is the highest that a producer is on, or must be on.

    Args:
        costs: of the problems.
        state: of the rows.
        rest: of the problems.
        rows: (count,) which rows.
        bound: (count, max_devices, 2) zeros, to which the shares of these groups are added, by
            their lowest device; those that follow the next group are in the second column.
    """
    max_groups = costs.compute_s.shape[1]
    lowest, follows = np.zeros(max_groups, np.int64), np.zeros(max_groups, np.bool_)
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        group, num_groups = state.cursor[row], costs.num_groups[problem]
        if group == num_groups or not rest.is_acyclic[problem]:
            continue
        rest_s = rest.fastest_rest_s[problem]
        for other in range(group + 1, num_groups):
            least, after = 0, False
            start = costs.input_start[problem, other]
            for at in range(start, costs.input_start[problem, other + 1]):
                producer = costs.tensor_group[problem, costs.input_tensor[problem, at]]
                if producer < group:
                    least = max(least, state.device[row, producer])
                elif producer > group:
                    least = max(least, lowest[producer])
                    after |= follows[producer]
                else:
                    after = True
            lowest[other], follows[other] = least, after
            if rest_s[group + 1] > 0.0:
                share = (rest_s[other] - rest_s[other + 1]) / rest_s[group + 1]
                bound[number, least, int(after)] += share
