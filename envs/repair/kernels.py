"""Compiled search for placements that satisfy constraints: domains, propagation, backtracking.

The domain of a group is a whole number whose bit d says that the group may still go to device d.
Assigning a device to a group shrinks the domains of others:

- ``acyclic``: a group's lowest device is at least that of its producers, its highest at most that
  of its readers. ``neighbours``: they differ by at most 1. Both are exact, as such systems of
  differences are.
- ``no_skip``: each device below the highest one that is needed must get a group whose lowest and
  highest device are around it: a matching of points to intervals, which the sweep solves exactly.
- ``triangle``: an edge between devices may not close a detour. If one group of a detour around an
  edge leaves the device of the producer, the reader must be where that group is.
- Memory: what must go between two devices has to fit into what is free there; a group does not go
  where it alone does not fit.
- Colours: groups of one colour go where the first of them goes.

No device is ruled out that some valid placement has. This module imports numba, so import it only
where a search begins. It is one file, because numba's cache of machine code notices a change only
in the file of the function itself, not in those of the functions that it calls.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64

FOUND, NONE_EXISTS, GAVE_UP = 1, 0, -1
NO_DEVICE = -1
FAILS, KEEPS, SHRINKS = 0, 1, 2  # what a rule does to the domains


class Frame(NamedTuple):
    """Problem as the search sees it; lists of lists are flat, with the starts of each."""

    acyclic: bool
    no_skip: bool
    triangle: bool
    neighbours: bool
    num_devices: int
    domain: Int64  # (num_groups,) devices that run it
    weight: Float64  # (num_groups,) bytes
    limit_devices: Int64  # (num_limits,) bits of the devices that share a limit
    limit_bytes: Float64  # (num_limits,)
    producer_start: Int64  # (num_groups + 1,)
    producer: Int64  # groups that a group reads from
    reader_start: Int64  # (num_groups + 1,)
    reader: Int64  # groups that read from a group
    leads: Bool  # (num_groups, num_groups) whether data of the first gets to the second
    follows: Bool  # (num_groups, num_groups) the same the other way round, as a row is read fast
    member_start: Int64  # (num_limits + 1,)
    member: Int64  # devices that share a limit
    mate_start: Int64  # (num_groups + 1,)
    mate: Int64  # other groups of the same colour
    detour_from: Int64  # (num_detours,) producer of an edge with groups on the way
    detour_to: Int64  # (num_detours,) its reader
    between_start: Int64  # (num_detours + 1,)
    between: Int64  # the groups on the way
    over_start: Int64  # (num_groups + 1,)
    over: Int64  # detours that a group lies on
    begin_start: Int64  # (num_groups + 1,)
    begin: Int64  # detours that begin at a group
    end_start: Int64  # (num_groups + 1,)
    end: Int64  # detours that end at a group


class State(NamedTuple):
    """What the assignments so far leave open."""

    domain: Int64  # (num_groups,)
    low: Int64  # (num_groups,) lowest device of the domain
    high: Int64  # (num_groups,) highest
    fixed: Bool  # (num_groups,) whether a device was assigned
    room: Float64  # (num_limits,) bytes that are free
    sent: Int64  # (num_devices,) bit b of a: data goes from a to b
    reached: Int64  # (num_devices,) bit b of a: b is reached from a


@numba.njit(cache=True)
def new_state(frame: Frame) -> State:
    """Return the state before any assignment."""
    groups = frame.domain.size
    return State(
        frame.domain.copy(),
        np.zeros(groups, dtype=np.int64),
        np.full(groups, frame.num_devices - 1, dtype=np.int64),
        np.zeros(groups, dtype=np.bool_),
        frame.limit_bytes.copy(),
        np.zeros(frame.num_devices, dtype=np.int64),
        np.zeros(frame.num_devices, dtype=np.int64),
    )


@numba.njit(cache=True)
def copy_state(source: State, target: State) -> None:
    """Copy a state into another one of the same sizes."""
    target.domain[:] = source.domain
    target.low[:] = source.low
    target.high[:] = source.high
    target.fixed[:] = source.fixed
    target.room[:] = source.room
    target.sent[:] = source.sent
    target.reached[:] = source.reached


@numba.njit(cache=True)
def keep(state: State, group: int, devices: int) -> bool:
    """Keep only some of a group's devices, given as bits; return whether one is left.

    An update in place, ``domain[group] &= ~devices``, is lost in `search` with numba 0.68.
    """
    domain = state.domain[group] & devices
    state.domain[group] = domain
    return bool(domain != 0)


@numba.njit(cache=True)
def _send(sent: Int64, reached: Int64, source: int, target: int) -> bool:
    """Let data go from a device to another; return whether that leaves no detour."""
    if source == target or (sent[source] >> target) & 1:
        return True
    if source > target or (reached[source] >> target) & 1:
        return False
    after = reached[target] | (1 << target)
    for device in range(source + 1):
        if (device == source or (reached[device] >> source) & 1) and sent[device] & after:
            return False
    for device in range(source + 1):
        if device == source or (reached[device] >> source) & 1:
            reached[device] |= after
    sent[source] |= 1 << target
    return True


@numba.njit(cache=True)
def _links_allow(
    frame: Frame, state: State, sent: Int64, reached: Int64, group: int, device: int
) -> bool:
    """Return whether a device for a group fits the links in use; the two arrays are scratch."""
    copied = False
    for side in range(2):
        start = frame.producer_start if side == 0 else frame.reader_start
        others = frame.producer if side == 0 else frame.reader
        for at in range(start[group], start[group + 1]):
            other = others[at]
            if not state.fixed[other]:
                continue
            place = state.low[other]
            source, target = (place, device) if side == 0 else (device, place)
            if source == target or (state.sent[source] >> target) & 1:
                continue
            if source > target or (state.reached[source] >> target) & 1:
                return False
            if not copied:
                for one in range(sent.size):
                    sent[one], reached[one] = state.sent[one], state.reached[one]
                copied = True
            if not _send(sent, reached, source, target):
                return False
    return True


@numba.njit(cache=True)
def _open_targets(state: State, source: int) -> int:
    """Return the devices, as bits, that data may go to from one: itself, or without a detour."""
    before = 0  # what the source and the devices that lead to it send to
    for device in range(source + 1):
        if device == source or (state.reached[device] >> source) & 1:
            before |= state.sent[device]
    allowed = state.sent[source] | (1 << source)
    for target in range(source + 1, state.sent.size):
        bit = 1 << target
        if not state.reached[source] & bit and not (state.reached[target] | bit) & before:
            allowed |= bit
    return int(allowed)


@numba.njit(cache=True)
def _open_sources(state: State, target: int) -> int:
    """Return the devices, as bits, that data may come from to one: itself, or without a detour."""
    bit = 1 << target
    after = state.reached[target] | bit
    beside = 0  # devices that send there or further, and those that they reach
    for device in range(state.sent.size):
        if state.sent[device] & after:
            beside |= state.reached[device] | (1 << device)
    allowed = bit
    for source in range(target):
        detour = (state.reached[source] & bit) | ((beside >> source) & 1)
        if state.sent[source] & bit or not detour:
            allowed |= 1 << source
    return allowed


@numba.njit(cache=True)
def _filter_links(frame: Frame, state: State, sent: Int64, reached: Int64, group: int) -> bool:
    """Rule out a group's devices that don't fit the links in use; return whether one is left."""
    before, after = 0, 0  # devices of producers and of readers
    for at in range(frame.producer_start[group], frame.producer_start[group + 1]):
        if state.fixed[frame.producer[at]]:
            before |= 1 << state.low[frame.producer[at]]
    for at in range(frame.reader_start[group], frame.reader_start[group + 1]):
        if state.fixed[frame.reader[at]]:
            after |= 1 << state.low[frame.reader[at]]
    allowed, links = state.domain[group], 0
    for device in range(frame.num_devices):
        if (before >> device) & 1:
            allowed &= _open_targets(state, device)
            links += 1
        if (after >> device) & 1:
            allowed &= _open_sources(state, device)
            links += 1
    keep(state, group, allowed)
    if links > 1:  # each of them may be possible alone, and not together
        for device in range(state.low[group], state.high[group] + 1):
            if (allowed >> device) & 1 and not _links_allow(
                frame, state, sent, reached, group, device
            ):
                keep(state, group, ~(1 << device))
    return bool(state.domain[group] != 0)


@numba.njit(cache=True)
def _keep_detours(frame: Frame, state: State, group: int, device: int) -> bool:
    """Shrink the domains around the detours that a group is part of; return whether all have one.

    Whatever lies between the ends of an edge is on the device of one of them.
    """
    low, fixed = state.low, state.fixed
    bit = 1 << device
    for at in range(frame.over_start[group], frame.over_start[group + 1]):
        first, last = frame.detour_from[frame.over[at]], frame.detour_to[frame.over[at]]
        if fixed[first] and low[first] != device and not keep(state, last, bit):
            return False
        if fixed[last] and low[last] != device and not keep(state, first, bit):
            return False
    for side in range(2):
        start = frame.begin_start if side == 0 else frame.end_start
        edges = frame.begin if side == 0 else frame.end
        others = frame.detour_to if side == 0 else frame.detour_from
        for at in range(start[group], start[group + 1]):
            edge = edges[at]
            other = others[edge]
            for place in range(frame.between_start[edge], frame.between_start[edge + 1]):
                middle = frame.between[place]
                left = fixed[middle] and low[middle] != device
                if left and not keep(state, other, 1 << low[middle]):
                    return False
                if fixed[other] and not keep(state, middle, bit | (1 << low[other])):
                    return False
    return True


@numba.njit(cache=True)
def assign(frame: Frame, state: State, group: int, device: int) -> bool:
    """Assign a device to a group, and tell the groups around it; return whether that is possible.

    The state is of no more use if it is not. Call `propagate` afterwards.
    """
    bit = 1 << device
    if state.domain[group] & bit == 0:
        return False
    state.domain[group] = bit
    state.low[group], state.high[group] = device, device
    state.fixed[group] = True
    for limit in range(frame.limit_bytes.size):
        if (frame.limit_devices[limit] >> device) & 1:
            state.room[limit] -= frame.weight[group]
            if state.room[limit] < 0.0:
                return False
    for at in range(frame.mate_start[group], frame.mate_start[group + 1]):
        if not keep(state, frame.mate[at], bit):
            return False
    if not frame.triangle:
        return True
    for at in range(frame.producer_start[group], frame.producer_start[group + 1]):
        other = frame.producer[at]
        if state.fixed[other] and not _send(state.sent, state.reached, state.low[other], device):
            return False
    for at in range(frame.reader_start[group], frame.reader_start[group + 1]):
        other = frame.reader[at]
        if state.fixed[other] and not _send(state.sent, state.reached, device, state.low[other]):
            return False
    if not _keep_detours(frame, state, group, device):
        return False
    sent, reached = np.empty_like(state.sent), np.empty_like(state.reached)
    for at in range(frame.producer_start[group], frame.producer_start[group + 1]):
        other = frame.producer[at]
        if not state.fixed[other] and not _filter_links(frame, state, sent, reached, other):
            return False
    for at in range(frame.reader_start[group], frame.reader_start[group + 1]):
        other = frame.reader[at]
        if not state.fixed[other] and not _filter_links(frame, state, sent, reached, other):
            return False
    return True


@numba.njit(cache=True)
def _tighten(state: State, group: int, low: int, high: int) -> bool:
    """Keep a group between two devices; return whether one is left."""
    domain = state.domain[group]
    low, high = max(low, state.low[group]), min(high, state.high[group])
    while low <= high and not (domain >> low) & 1:
        low += 1
    while high >= low and not (domain >> high) & 1:
        high -= 1
    if low > high:
        return False
    state.low[group], state.high[group] = low, high
    state.domain[group] = domain & ((1 << (high + 1)) - (1 << low))
    return True


@numba.njit(cache=True)
def _order_edges(frame: Frame, state: State) -> bool:
    """Keep groups on or after the devices of their producers; return whether that is possible."""
    groups = state.domain.size
    again = True
    while again:
        for group in range(groups):
            low, high = 0, frame.num_devices - 1
            for at in range(frame.producer_start[group], frame.producer_start[group + 1]):
                other = frame.producer[at]
                low = max(low, state.low[other])
                if frame.neighbours:
                    high = min(high, state.high[other] + 1)
            if not _tighten(state, group, low, high):
                return False
        again = False
        for group in range(groups - 1, -1, -1):
            low, high = 0, frame.num_devices - 1
            for at in range(frame.reader_start[group], frame.reader_start[group + 1]):
                other = frame.reader[at]
                high = min(high, state.high[other])
                if frame.neighbours:
                    low = max(low, state.low[other] - 1)
            before = state.low[group]
            if not _tighten(state, group, low, high):
                return False
            # What rises in this direction may push readers further; a lower end never does,
            # unless only the next device is allowed.
            again |= state.low[group] != before
            if frame.neighbours:
                for at in range(frame.reader_start[group], frame.reader_start[group + 1]):
                    again |= state.high[frame.reader[at]] > state.high[group] + 1
    return True


@numba.njit(cache=True)
def _room(frame: Frame, free: Float64) -> Float64:
    """Return the bytes that are free on each device, (num_devices,), from those of each limit."""
    room = np.full(frame.num_devices, np.inf)
    for limit in range(free.size):
        for at in range(frame.member_start[limit], frame.member_start[limit + 1]):
            room[frame.member[at]] = min(room[frame.member[at]], free[limit])
    return room


@numba.njit(cache=True)
def _room_without_forced(frame: Frame, state: State) -> Float64:
    """Return the bytes that are free on each device once all groups with one device are there.

    So assigning such a group tells `_fits` nothing new.
    """
    free = state.room.copy()
    for group in range(state.domain.size):
        if not state.fixed[group] and state.low[group] == state.high[group]:
            for limit in range(free.size):
                if (frame.limit_devices[limit] >> state.low[group]) & 1:
                    free[limit] -= frame.weight[group]
    return _room(frame, free)


@numba.njit(cache=True)
def _fits(frame: Frame, state: State) -> int:
    """Rule out devices without room for a group; return `FAILS`, `KEEPS` or `SHRINKS`.

    What must go between two devices has to fit into what is free there. A group that is too large
    for the rest of that can't be among them.
    """
    devices = frame.num_devices
    room = _room_without_forced(frame, state)
    tightest, heaviest, result = room.min(), 0.0, KEEPS
    if tightest < 0.0:
        return FAILS
    load = np.zeros((devices, devices))  # bytes to place, by lowest and highest device
    for group in range(state.domain.size):
        weight = frame.weight[group]
        if state.low[group] == state.high[group] or weight == 0.0:
            continue
        if weight > tightest:
            before = state.domain[group]
            for device in range(state.low[group], state.high[group] + 1):
                if weight > room[device]:
                    keep(state, group, ~(1 << device))
            if not _tighten(state, group, 0, devices - 1):
                return FAILS
            if state.domain[group] != before:
                result = SHRINKS
        load[state.low[group], state.high[group]] += weight
        heaviest = max(heaviest, weight)
    # slack[a, b]: what is left between a and b, or between any earlier device and b ...
    slack = np.empty((devices, devices))
    inside = np.zeros(devices)  # bytes that must go between the first device and each
    least = np.inf
    for first in range(devices - 1, -1, -1):
        begun, free = 0.0, 0.0
        for last in range(first, devices):
            begun += load[first, last]
            inside[last] += begun
            free += room[last]
            slack[first, last] = free - inside[last]
            least = min(least, slack[first, last])
    if least < 0.0:
        return FAILS
    if heaviest <= least:
        return result
    from_left, to_right = slack.copy(), slack.copy()
    for first in range(1, devices):
        for last in range(first, devices):
            from_left[first, last] = min(slack[first, last], from_left[first - 1, last])
    for first in range(devices):
        for last in range(devices - 2, first - 1, -1):  # ... or between a and any later device
            to_right[first, last] = min(slack[first, last], to_right[first, last + 1])
    for group in range(state.domain.size):
        weight, low, high = frame.weight[group], state.low[group], state.high[group]
        if low == high or weight <= least:
            continue
        for last in range(low, high):
            if weight > from_left[low, last]:
                low = last + 1
        for first in range(high, low, -1):
            if weight > to_right[first, high]:
                high = first - 1
        if low != state.low[group] or high != state.high[group]:
            if not _tighten(state, group, low, high):
                return FAILS
            result = SHRINKS
    return result


@numba.njit(cache=True)
def _covers(frame: Frame, state: State) -> int:
    """Keep groups where they are needed; return `FAILS`, `KEEPS` or `SHRINKS`.

    Every device below the highest that is needed must get a group: a matching of the empty ones to
    the groups without a device, which the sweep over the devices finds if there is one. Where only
    as many groups can go between two empty devices as there are, each of them goes to one.
    """
    devices, groups = frame.num_devices, state.domain.size
    top = state.low.max()
    taken = 0
    for group in range(groups):
        if state.low[group] == state.high[group]:
            taken |= 1 << state.low[group]
    empty = np.empty(devices, dtype=np.int64)  # the devices to fill
    rank = np.empty(devices + 1, dtype=np.int64)  # how many of them are below each device
    number, empty_bits = 0, 0
    for device in range(devices):
        rank[device] = number
        if device <= top and not (taken >> device) & 1:
            empty[number] = device
            empty_bits |= 1 << device
            number += 1
    rank[devices] = number
    if number == 0:
        return KEEPS
    # Groups by the first and last empty device between their ends.
    waiting = np.zeros((number, number), dtype=np.int64)
    for group in range(groups):
        if state.low[group] < state.high[group] and state.domain[group] & empty_bits:
            first, last = rank[state.low[group]], rank[state.high[group] + 1] - 1
            waiting[first, last] += 1
    ending = np.zeros(number, dtype=np.int64)  # groups that may go here, by their last
    for place in range(number):
        ending += waiting[place]
        for last in range(place, number):
            if ending[last]:
                ending[last] -= 1
                break
        else:
            return FAILS
    begun = np.zeros(number, dtype=np.int64)  # groups whose last is each, of those that began
    for last in range(number):
        # Of the groups that begin at this place or before: how many reach each place or further.
        begun += waiting[last]
        meeting = 0
        for end in range(last, number):
            meeting += begun[end]
        for first in range(last, -1, -1):
            if first < last:
                meeting += begun[first]
            if meeting > last - first + 1:
                continue
            shrinks = False
            inside = empty_bits & ((1 << (empty[last] + 1)) - (1 << empty[first]))
            for group in range(groups):
                domain = state.domain[group]
                if domain & inside and domain & ~inside:
                    keep(state, group, inside)
                    if not _tighten(state, group, 0, devices - 1):
                        return FAILS
                    shrinks = True
            if shrinks:
                return SHRINKS  # the counts are of another state now
    return KEEPS


@numba.njit(cache=True)
def propagate(frame: Frame, state: State) -> bool:
    """Shrink domains as the constraints demand; return whether a placement may be left."""
    for group in range(state.domain.size):
        if not _tighten(state, group, 0, frame.num_devices - 1):
            return False
    while True:
        if frame.acyclic and not _order_edges(frame, state):
            return False
        if frame.limit_bytes.size:
            fits = _fits(frame, state)
            if fits == FAILS:
                return False
            if fits == SHRINKS:
                continue
        if not frame.no_skip:
            return True
        covers = _covers(frame, state)
        if covers != SHRINKS:
            return covers == KEEPS


@numba.njit(cache=True)
def shave(frame: Frame, state: State, group: int) -> bool:
    """Rule out a group's devices by all groups before and after it; return whether one is left.

    For ``acyclic`` only. What is too slow for all groups at once: those that lead to this one must
    fit into the devices up to its own, and those that it leads to into the devices from there on;
    with ``no_skip`` there must be enough other groups for the devices below, and for those above.
    """
    devices, groups = frame.num_devices, state.domain.size
    low, high = state.low[group], state.high[group]
    if frame.limit_bytes.size:
        room = _room(frame, state.room)
        # Bytes before the group that can't be below a device, or after it and not above one.
        left, right = np.zeros(devices), np.zeros(devices)
        for other in range(groups):
            if not state.fixed[other] and frame.weight[other] > 0.0:
                if frame.follows[group, other]:
                    left[state.low[other]] += frame.weight[other]
                elif frame.leads[group, other]:
                    right[state.high[other]] += frame.weight[other]
        own = frame.weight[group]
        while low <= high:
            needed, free, fits = own, 0.0, True
            for device in range(low, -1, -1):
                needed += left[device]
                free += room[device]
                fits &= needed <= free
            if fits:
                break
            low += 1
        while high >= low:
            needed, free, fits = own, 0.0, True
            for device in range(high, devices):
                needed += right[device]
                free += room[device]
                fits &= needed <= free
            if fits:
                break
            high -= 1
    if frame.no_skip:
        top = state.low.max()
        reach_up, reach_down = np.zeros(devices, np.int64), np.zeros(devices, np.int64)
        for other in range(groups):
            if other != group:
                if not frame.leads[group, other]:
                    reach_up[state.high[other]] += 1
                if not frame.follows[group, other]:
                    reach_down[state.low[other]] += 1
        number = 0
        for device in range(devices - 1, -1, -1):
            number += reach_up[device]
            high = min(high, device + number)
        number = 0
        for device in range(top + 1):
            number += reach_down[device]
            low = max(low, device - number)
    return _tighten(state, group, low, high)


@numba.njit(cache=True)
def _next_group(state: State, order: Int64) -> int:
    """Return a group with a single device left, or else the first in order that has none yet."""
    first = -1
    for group in order:
        if not state.fixed[group]:
            if state.low[group] == state.high[group]:
                return int(group)
            if first < 0:
                first = int(group)
    return first


@numba.njit(cache=True)
def _choose(
    state: State, group: int, proposal: Int64, chances: Float64, draw: float, proportional: bool
) -> int:
    """Return a device of the domain: the proposed one, else a drawn one or the nearest."""
    domain, wanted = state.domain[group], int(proposal[group])
    if wanted >= 0 and (domain >> wanted) & 1:
        return wanted
    low, high = state.low[group], state.high[group]
    if not proportional:
        best = -1
        for device in range(low, high + 1):
            near = best < 0 or abs(device - wanted) < abs(best - wanted)
            if (domain >> device) & 1 and near:
                best = device
        return best
    total, number = 0.0, 0
    for device in range(low, high + 1):
        if (domain >> device) & 1:
            total += chances[group, device]
            number += 1
    left = draw * (total if total > 0.0 else number)
    last = int(low)
    for device in range(low, high + 1):
        if (domain >> device) & 1:
            chance = chances[group, device] if total > 0.0 else 1.0
            left -= chance
            if chance > 0.0:
                last = device
                if left < 0.0:
                    break
    return last


@numba.njit(cache=True)
def search(
    frame: Frame,
    order: Int64,
    proposal: Int64,
    chances: Float64,
    draws: Float64,
    proportional: bool,
    max_failures: int,
) -> tuple[int, int, Int64]:
    """Assign devices group by group, and go back where none is left.

    Args:
        frame: the problem.
        order: (num_groups,) in which groups are visited.
        proposal: (num_groups,) devices to keep where possible; `NO_DEVICE`: none.
        chances: (num_groups, num_devices) of the devices for groups whose proposal is not kept.
        draws: random numbers from 0 to 1, used in turn.
        proportional: whether such a device is drawn; otherwise the nearest one is taken.
        max_failures: dead ends after which the search gives up.

    Returns:
        `FOUND`, `NONE_EXISTS` or `GAVE_UP`; the number of dead ends; (num_groups,) devices.
    """
    groups = order.size
    state = new_state(frame)
    stack = [new_state(frame)]
    visited = np.full(groups + 1, -1, dtype=np.int64)
    tried = np.zeros(groups, dtype=np.int64)  # bits of the devices that were just tried
    depth, failures, drawn = 0, 0, 0
    if not propagate(frame, state):
        return NONE_EXISTS, failures, state.low
    while depth < groups:
        if visited[depth] < 0:
            visited[depth] = _next_group(state, order)
        group = visited[depth]
        draw = draws[drawn % draws.size]
        drawn += 1
        if depth == len(stack):
            stack.append(new_state(frame))
        copy_state(state, stack[depth])
        possible = not frame.acyclic or shave(frame, state, group)
        if possible:
            device = _choose(state, group, proposal, chances, draw, proportional)
            tried[depth] = 1 << device
            # The rules of `propagate` look at domains only: with the same ones, all is done.
            possible = assign(frame, state, group, device) and (
                bool((state.domain == stack[depth].domain).all()) or propagate(frame, state)
            )
        else:
            tried[depth] = -1  # all devices
        if possible:
            depth += 1
            visited[depth] = -1
            continue
        failures += 1
        if failures > max_failures:
            return GAVE_UP, failures, state.low
        while True:
            copy_state(stack[depth], state)
            group = visited[depth]
            if keep(state, group, ~tried[depth]) and propagate(frame, state):
                break
            depth -= 1
            if depth < 0:
                return NONE_EXISTS, failures, state.low
    return FOUND, failures, state.low


@numba.njit(cache=True)
def allowed_at_first(frame: Frame) -> Bool:
    """Return the devices that each group may go to while no group has one.

    Returns:
        (num_groups, num_devices)
    """
    groups = frame.domain.size
    allowed = np.zeros((groups, frame.num_devices), dtype=np.bool_)
    state, tried = new_state(frame), new_state(frame)
    if not propagate(frame, state):
        return allowed
    for group in range(groups):
        for device in range(state.low[group], state.high[group] + 1):
            copy_state(state, tried)
            allowed[group, device] = assign(frame, tried, group, device) and propagate(frame, tried)
    return allowed


@numba.njit(cache=True)
def allowed_next(frame: Frame, placed: Int64, group: int) -> Bool:
    """Return the devices that a group may go to, (num_devices,).

    Args:
        frame: the problem.
        placed: (num_groups,) devices so far; `NO_DEVICE` for none.
        group: to place next.
    """
    allowed = np.zeros(frame.num_devices, dtype=np.bool_)
    state = new_state(frame)
    for other in range(placed.size):
        if placed[other] >= 0 and not assign(frame, state, other, placed[other]):
            return allowed
    if not propagate(frame, state):
        return allowed
    if frame.acyclic and not shave(frame, state, group):
        return allowed
    tried = new_state(frame)
    for device in range(state.low[group], state.high[group] + 1):
        copy_state(state, tried)
        allowed[device] = assign(frame, tried, group, device) and propagate(frame, tried)
    return allowed
