"""Compiled walk from a valid placement towards a proposal, over valid placements only.

It is exact where it matters: each step is checked whole. So it finds something valid wherever one
valid placement is known, also under constraints that make a search run into dead ends. This module
imports numba, so import it only where a walk begins.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.repair.kernels import Frame


class Ground(NamedTuple):
    """Part of a `Frame` that a walk needs.

    Numba's cache of machine code notices changes of this class, as it is in this file.
    """

    rules: Bool  # (4,) acyclic, no_skip, triangle, neighbours
    domain: Int64  # (num_groups,) devices that run it, as bits
    weight: Float64  # (num_groups,) bytes
    limit_devices: Int64  # (num_limits,) bits of the devices that share a limit
    limit_bytes: Float64  # (num_limits,)
    producer_start: Int64  # (num_groups + 1,)
    producer: Int64  # groups that a group reads from
    reader_start: Int64  # (num_groups + 1,)
    reader: Int64  # groups that read from a group
    mate_start: Int64  # (num_groups + 1,)
    mate: Int64  # other groups of the same colour


def make_ground(frame: Frame) -> Ground:
    """Return the part of a frame that a walk needs."""
    rules = [frame.acyclic, frame.no_skip, frame.triangle, frame.neighbours]
    same = {name: getattr(frame, name) for name in Ground._fields[1:]}
    return Ground(rules=np.array(rules), **same)


@numba.njit(cache=True)
def _is_valid(ground: Ground, placed: Int64, sent: Int64, reached: Int64, room: Float64) -> bool:
    """Return whether a placement breaks no rule; the last three arrays are scratch."""
    groups, devices = placed.size, sent.size
    for limit in range(room.size):
        room[limit] = ground.limit_bytes[limit]
    for device in range(devices):
        sent[device] = 0
    used = 0
    for group in range(groups):
        device = placed[group]
        if not (ground.domain[group] >> device) & 1:
            return False
        used |= 1 << device
        for at in range(ground.mate_start[group], ground.mate_start[group + 1]):
            if placed[ground.mate[at]] != device:
                return False
        for at in range(ground.reader_start[group], ground.reader_start[group + 1]):
            other = placed[ground.reader[at]]
            if (ground.rules[0] and other < device) or (ground.rules[3] and other > device + 1):
                return False
            if other != device:
                sent[device] |= 1 << other
    if ground.rules[1] and used & (used + 1):
        return False
    for limit in range(room.size):
        for group in range(groups):
            if (ground.limit_devices[limit] >> placed[group]) & 1:
                room[limit] -= ground.weight[group]
        if room[limit] < 0.0:
            return False
    if ground.rules[2]:
        for device in range(devices - 1, -1, -1):
            reached[device] = sent[device]
            for other in range(device + 1, devices):
                if (sent[device] >> other) & 1:
                    if sent[device] & reached[other]:
                        return False
                    reached[device] |= reached[other]
    return True


@numba.njit(cache=True)
def approach(
    ground: Ground, start: Int64, wanted: Int64, order: Int64, num_devices: int, rounds: int
) -> Int64:
    """Move groups to where they are wanted as long as more of them are there after each move.

    With a group that moves up, those that it leads to move up to its device, if they are below;
    with one that moves down, those that lead to it move down. A move after which the placement is
    not valid, or no more groups are where they are wanted, is taken back.

    Args:
        ground: the problem.
        start: (num_groups,) a valid placement.
        wanted: (num_groups,) devices.
        order: (num_groups,) in which groups are tried.
        num_devices: number of devices.
        rounds: how often each group is tried at most.

    Returns:
        (num_groups,) a valid placement.
    """
    groups = start.size
    placed, tried = start.copy(), start.copy()
    sent, reached = np.empty(num_devices, np.int64), np.empty(num_devices, np.int64)
    room = np.empty(ground.limit_bytes.size)
    for _ in range(rounds):
        moved = False
        for group in order:
            device = wanted[group]
            if placed[group] == device or device < 0 or device >= num_devices:
                continue
            first, last = group, group  # what moves is between them; elsewhere tried is placed
            tried[group] = device
            for at in range(ground.mate_start[group], ground.mate_start[group + 1]):
                mate = ground.mate[at]
                tried[mate] = device
                first, last = min(first, mate), max(last, mate)
            if ground.rules[0] and device > placed[group]:
                last = groups - 1
                for other in range(first, groups):  # producers first
                    for at in range(ground.producer_start[other], ground.producer_start[other + 1]):
                        tried[other] = max(tried[other], tried[ground.producer[at]])
            elif ground.rules[0]:
                first = 0
                for other in range(last, -1, -1):
                    for at in range(ground.reader_start[other], ground.reader_start[other + 1]):
                        tried[other] = min(tried[other], tried[ground.reader[at]])
            gain = 0
            for other in range(first, last + 1):
                gain += tried[other] == wanted[other]
                gain -= placed[other] == wanted[other]
            moves = gain > 0 and _is_valid(ground, tried, sent, reached, room)
            for other in range(first, last + 1):
                if moves:
                    placed[other] = tried[other]
                else:
                    tried[other] = placed[other]
            moved |= moves
        if not moved:
            break
    return placed
