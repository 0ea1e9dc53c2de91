"""Compiled loops of the schedule `dataflow`: the regions of placements, and how long they take.

They are written as those in `kernels.py`, but placements are the outer loop, because each has
regions of its own.
"""

from __future__ import annotations

import numpy as np

from device_placement.envs.arrays import (
    Bool,
    Float64,
    Int32,
    PlacementColumns,
    UInt8,
    UInt32,
)
from device_placement.envs.costs import FROM_INPUT, TO_OUTPUT
from device_placement.envs.jit import compiled_above
from device_placement.envs.simulation.kernels import SMALL

WORDS = 4  # of 64 bits, for as many crossing tensors: a register of the processor


@compiled_above(SMALL)
def region_roots(
    placements: PlacementColumns,
    num_tensors: int,
    edge_tensor: UInt32,
    edge_producer: UInt32,
    edge_reader: UInt32,
) -> UInt32:
    """Return the smallest group of each group's region, (batch, num_groups).

    The regions are those of `executors.regions.find_regions`: the two groups on the ends of an
    edge within a device share one if the same crossing tensors are before them, and the same
    after them. The sets are bits of `WORDS` words at a time, so that memory grows with the graph
    only, and a pass over the edges each way fills them. Placements are the outer loop, because
    each has crossing tensors of its own.
    """
    groups, batch = placements.shape
    edges, span = edge_tensor.size, 64 * WORDS
    roots = np.empty((batch, groups), dtype=np.uint32)
    device = np.empty(groups, dtype=np.uint8)
    number = np.empty(num_tensors, dtype=np.int32)  # of each crossing tensor; -1: no number
    bit = np.empty(edges, dtype=np.int32)  # number of the tensor that crosses here; -1: none does
    first = np.empty(num_tensors, dtype=np.int32)  # edge to its first reader elsewhere
    last = np.empty(num_tensors, dtype=np.int32)  # edge to its last one
    known = np.empty((groups, WORDS), dtype=np.uint64)  # tensors before or after each group
    inner = np.empty(edges, dtype=np.uint32)  # edges whose ends may share a region, so far
    for b in range(batch):
        for group in range(groups):
            device[group] = placements[group, b]
        number[:] = -1
        count, left = 0, 0
        for edge in range(edges):
            bit[edge] = -1
            if device[edge_producer[edge]] == device[edge_reader[edge]]:
                inner[left] = edge
                left += 1
                continue
            tensor = edge_tensor[edge]
            if number[tensor] < 0:  # in the order of first readers, which are near in the graph
                number[tensor] = count
                first[count] = edge
                count += 1
            bit[edge] = number[tensor]
            last[number[tensor]] = edge
        for low in range(0, count, span):
            high = min(low + span, count)
            for after in range(2):
                known[:] = 0
                # Edges are ordered by their readers, and so, both ways, have their sources' sets.
                begin, step = first[low], 1
                if after:
                    begin, step = last[low:high].max(), -1
                for edge in range(begin, -1 if after else edges, step):
                    source, target = edge_producer[edge], edge_reader[edge]
                    if after:
                        source, target = target, source
                    for word in range(WORDS):
                        known[target, word] |= known[source, word]
                    if low <= bit[edge] < high:
                        place = bit[edge] - low
                        known[target, place // 64] |= np.uint64(1) << np.uint64(place % 64)
                kept = 0
                for position in range(left):
                    edge = inner[position]
                    one, other = edge_producer[edge], edge_reader[edge]
                    differ = np.uint64(0)
                    for word in range(WORDS):
                        differ |= known[one, word] ^ known[other, word]
                    inner[kept] = edge
                    kept += differ == 0
                left = kept
        root = roots[b]
        for group in range(groups):
            root[group] = group
        for position in range(left):
            one, other = edge_producer[inner[position]], edge_reader[inner[position]]
            while root[one] != one:
                root[one] = root[root[one]]
                one = root[one]
            while root[other] != other:
                root[other] = root[root[other]]
                other = root[other]
            root[max(one, other)] = min(one, other)
        for group in range(groups):  # roots come first
            root[group] = root[root[group]]
    return roots


@compiled_above(SMALL)
def dataflow_times(
    placements: PlacementColumns,
    roots: UInt32,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    read_start: UInt32,
    read_tensor: UInt32,
    reader: UInt32,
    read_kind: UInt8,
    edge_start: UInt32,
    edge_producer: UInt32,
    edge_reader: UInt32,
    is_idle: Bool,
    latency_s: Float64,
    s_per_byte: Float64,
    region_s: Float64,
    crossing_s: Float64,
    split_factor: Float64,
) -> Float64:
    """Return (batch,) seconds.

    `roots` is the result of `region_roots`. A region goes by its smallest group, and arrays of
    regions have a place for each group.

    Of all devices, the one that can start a region soonest does so. Nothing that starts later can
    make another region ready before, so the device knows all that are ready then. When a region
    starts, its end is known, and its tensors join the queues of the links, each of which takes
    tensors of one device only. Placements are the outer loop, as each has another order of events.
    """
    groups, batch = placements.shape
    num_devices = compute_s.shape[1]
    times = np.zeros(batch)
    device = np.empty(groups, dtype=np.uint8)
    following = np.empty(groups, dtype=np.uint32)  # next group of the same region; `groups`: none
    newest = np.empty(groups, dtype=np.uint32)  # the smallest group so far of each region
    seconds = np.empty(groups)  # that each region takes
    rank = np.empty(groups)  # seconds of the longest path from each region to the end
    waiting = np.empty(groups, dtype=np.int32)  # reads from regions that have not started
    unread = np.empty(groups, dtype=np.int32)  # reads by regions whose rank is not known
    stack = np.empty(groups, dtype=np.uint32)  # regions to deal with
    ready = np.empty(groups)  # seconds at which the inputs so far are there
    # Of each device, the regions that wait for none to start, the most urgent one last.
    listed = np.empty((num_devices, groups), dtype=np.uint32)
    length = np.empty(num_devices, dtype=np.int32)  # of each list
    soonest = np.empty(num_devices)  # seconds at which the first one listed is ready
    free = np.empty(num_devices)  # seconds at which each device has ended its regions so far
    link_free = np.empty((num_devices, num_devices))  # the same of moves, by from and to
    there = np.empty(num_devices)  # seconds of a tensor's arrival
    for b in range(batch):
        root = roots[b]
        free[:] = 0.0
        link_free[:] = 0.0
        soonest[:] = np.inf
        length[:] = 0
        finish, slowest, top, is_split = 0.0, 0.0, 0, False
        for group in range(groups):
            device[group] = placements[group, b]
            newest[group] = groups
            seconds[group] = rank[group] = ready[group] = 0.0
            waiting[group] = unread[group] = 0
        for group in range(groups):
            own = device[group]
            slowest = max(slowest, compute_s[group, own])
            is_split |= own != device[0]
            if is_idle[group]:
                free[own] += compute_s[group, own]
            else:
                seconds[root[group]] += compute_s[group, own]
        if slowest == np.inf:
            times[b] = np.inf
            continue
        for group in range(groups - 1, -1, -1):
            following[group] = newest[root[group]]
            newest[root[group]] = group
            if root[group] == group and not is_idle[group]:
                if is_split:
                    seconds[group] *= split_factor[device[group]]
                seconds[group] += region_s[device[group]]
        for edge in range(edge_producer.size):
            one, other = root[edge_producer[edge]], root[edge_reader[edge]]
            if one != other:
                waiting[other] += 1
                unread[one] += 1
        left = tensor_group.size  # the tensor last found to leave its region; none
        for read in range(reader.size):
            tensor = read_tensor[read]
            own = root[tensor_group[tensor]]
            if read_kind[read] == 0 and root[reader[read]] != own and tensor != left:
                seconds[own] += crossing_s[device[own]]
                left = tensor
        # Ranks, from the last regions to the first.
        for group in range(groups):
            if root[group] == group and unread[group] == 0:
                stack[top] = group
                top += 1
        while top:
            top -= 1
            region = stack[top]
            rank[region] += seconds[region]
            group = region
            while group < groups:
                for edge in range(edge_start[group], edge_start[group + 1]):
                    before = root[edge_producer[edge]]
                    if before != region:
                        rank[before] = max(rank[before], rank[region])
                        unread[before] -= 1
                        if unread[before] == 0:
                            stack[top] = before
                            top += 1
                group = following[group]
        # Inputs of the model are there from the beginning.
        moved = tensor_group.size  # the tensor of the last read; none
        seen = 0  # devices on which it is or arrives, as bits
        for read in range(reader.size):
            if read_kind[read] & FROM_INPUT:
                tensor = read_tensor[read]
                source = int(device[tensor_group[tensor]])
                if tensor != moved:
                    moved, seen, there[source] = tensor, 1 << source, 0.0
                target = int(device[reader[read]])
                if not (seen >> target) & 1:
                    seen |= 1 << target
                    cost = latency_s[source, target]
                    cost += tensor_bytes[tensor] * s_per_byte[source, target]
                    link_free[source, target] += cost
                    there[target] = link_free[source, target]
                if read_kind[read] & TO_OUTPUT:
                    finish = max(finish, there[target])
                else:
                    region = root[reader[read]]
                    ready[region] = max(ready[region], there[target])
        for group in range(groups):
            if root[group] == group and waiting[group] == 0 and not is_idle[group]:
                stack[top] = group
                top += 1
        while True:
            while top:  # list the regions that no longer wait for others to start
                top -= 1
                region = stack[top]
                own, urgency = device[region], rank[region]
                place = length[own]
                while place:
                    other = listed[own, place - 1]
                    if rank[other] < urgency or (rank[other] == urgency and other > region):
                        break
                    listed[own, place] = other
                    place -= 1
                listed[own, place] = region
                length[own] += 1
                soonest[own] = min(soonest[own], ready[region])
            own, now = num_devices, np.inf
            for other in range(num_devices):
                when = max(free[other], soonest[other])
                if when < now:
                    own, now = other, when
            if own == num_devices:
                break
            place = length[own] - 1
            while ready[listed[own, place]] > now:
                place -= 1
            region = listed[own, place]
            length[own] -= 1
            for later in range(place, length[own]):
                listed[own, later] = listed[own, later + 1]
            end = now + seconds[region]
            free[own] = end
            soonest[own] = np.inf
            for place in range(length[own] - 1, -1, -1):
                soonest[own] = min(soonest[own], ready[listed[own, place]])
                if soonest[own] <= end:  # the device starts one as soon as it is free
                    break
            there[own] = end
            group, moved = region, tensor_group.size
            while group < groups:
                for read in range(read_start[group], read_start[group + 1]):
                    if read_kind[read] & FROM_INPUT:
                        continue
                    tensor = read_tensor[read]
                    if tensor != moved:
                        moved, seen = tensor, 1 << own
                    other = reader[read]
                    target = int(device[other])
                    if not (seen >> target) & 1:
                        seen |= 1 << target
                        cost = (
                            latency_s[own, target] + tensor_bytes[tensor] * s_per_byte[own, target]
                        )
                        link_free[own, target] = max(end, link_free[own, target]) + cost
                        there[target] = link_free[own, target]
                    if read_kind[read]:
                        finish = max(finish, there[target])
                    elif root[other] != region:
                        other = root[other]
                        ready[other] = max(ready[other], there[target])
                        waiting[other] -= 1
                        if waiting[other] == 0:
                            stack[top] = other
                            top += 1
                group = following[group]
        for other in range(num_devices):
            finish = max(finish, free[other])
        times[b] = finish
    return times
