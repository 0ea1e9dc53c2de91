"""Compiled loops of the schedules, over many placements at once.

Each takes the devices of the groups, (num_groups, batch), and fields of `Costs`, which documents
their shapes. `schedule.py` has the definitions of the schedules.

Placements are the inner loop: those of one group are neighbours in memory, and sizes and readers
of a tensor are looked up once for all of them. Each placement has its own sums, in the order of
the groups and tensors, so that the others in the batch do not change its rounding.

The fields are passed one by one, because numba takes 4 µs per call to recognise a record, and a
single placement takes only tens of µs.
"""

from __future__ import annotations

import numpy as np

from device_placement.envs.arrays import (
    Bool,
    Float64,
    Int32,
    Int64,
    PlacementColumns,
    UInt8,
    UInt32,
)
from device_placement.envs.costs import FROM_INPUT, TO_OUTPUT
from device_placement.envs.jit import compiled_above

SMALL = 1000  # elements; Python takes about a millisecond for this many


@compiled_above(SMALL)
def sequential_times(
    devices: PlacementColumns,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency: Float64,
    per_byte: Float64,
) -> Float64:
    """Return (batch,) seconds.

    `latency` and `per_byte` are (num_devices, 2 ** num_devices): sums over the sets of devices
    that a tensor goes to, so that it takes one look-up instead of a loop over devices.
    """
    groups, batch = devices.shape
    times = np.zeros(batch)
    for group in range(groups):
        row = compute_s[group]
        for b in range(batch):
            times[b] += row[devices[group, b]]
    mask = np.zeros(batch, dtype=np.uint16)  # bit d: the tensor is read on device d
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            device = devices[producer, b]
            times[b] += latency[device, mask[b]] + size * per_byte[device, mask[b]]
    return times


@compiled_above(SMALL)
def concurrent_times(
    placements: PlacementColumns,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    input_start: Int32,
    input_tensor: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
    block: int,
) -> Float64:
    """Return (batch,) seconds.

    Blocks of placements are the outer loop, so that their state stays in the cache; then groups
    in list order. When a group is reached, the end of each group that it reads from is known.

    The first groups, as far as all placements of a block agree on them, are scheduled once, in
    the first column, which is then copied to the others. After that the loops over a block have a
    fixed length, and selections instead of branches: in the last block the columns from `width` on
    hold earlier placements, or zeros, and are not read.
    """
    groups, batch = placements.shape
    num_devices = compute_s.shape[1]
    times = np.zeros(batch)
    devices = np.zeros((groups, block), dtype=np.uint8)  # of the placements in the block
    end = np.empty((groups, block))  # seconds at which each group ends; set before it is read
    # Seconds of each tensor's arrival, used only for those that several groups read.
    several = np.flatnonzero(np.diff(reader_start) > 1)
    there = np.empty((tensor_group.size, block, num_devices))
    device_free = np.empty((block, num_devices))  # seconds at which the last group so far ends
    link_free = np.empty((block, num_devices, num_devices))  # the same of moves, by from and to
    ready = np.empty(block)  # seconds at which the current group may start
    for first in range(0, batch, block):
        width = min(block, batch - first)
        devices[:, :width] = placements[:, first : first + width]
        for tensor in several:
            there[tensor] = -1.0  # not moved yet
        device_free[:] = 0.0
        link_free[:] = 0.0
        shared = 0  # groups on which the block agrees
        agreed = 1
        while shared < groups and agreed:
            for b in range(1, width):
                if devices[shared, b] != devices[shared, 0]:
                    agreed = 0
                    break
            shared += agreed
        for group in range(groups):
            if group == shared:
                for earlier in range(shared):
                    end[earlier, :] = end[earlier, 0]
                for tensor in several:
                    if tensor_group[tensor] >= shared:
                        break  # they are ordered by their producers
                    there[tensor] = there[tensor, 0]
                device_free[:] = device_free[0]
                link_free[:] = link_free[0]
            columns = block if group >= shared else 1
            for b in range(columns):
                ready[b] = device_free[b, devices[group, b]]
            for position in range(input_start[group], input_start[group + 1]):
                tensor = input_tensor[position]
                producer, size = tensor_group[tensor], tensor_bytes[tensor]
                # The only reader, so the arrival need not be stored.
                if reader_start[tensor + 1] - reader_start[tensor] == 1:
                    for b in range(columns):
                        own, source = devices[group, b], devices[producer, b]
                        made, free = end[producer, b], link_free[b, source, own]
                        cost = latency_s[source, own] + size * s_per_byte[source, own]
                        moved = max(made, free) + cost
                        link_free[b, source, own] = free if source == own else moved
                        ready[b] = max(ready[b], made if source == own else moved)
                    continue
                for b in range(columns):
                    own, source, made = devices[group, b], devices[producer, b], end[producer, b]
                    free, known = link_free[b, source, own], there[tensor, b, own]
                    cost = latency_s[source, own] + size * s_per_byte[source, own]
                    moved = max(made, free) + cost
                    arrived = made if source == own else (moved if known < 0.0 else known)
                    link_free[b, source, own] = free if source == own or known >= 0.0 else moved
                    there[tensor, b, own] = arrived
                    ready[b] = max(ready[b], arrived)
            row = compute_s[group]
            for b in range(columns):
                device = devices[group, b]
                ended = ready[b] + row[device]
                end[group, b] = ended
                device_free[b, device] = ended
        if shared == groups:
            device_free[:] = device_free[0]
        for b in range(width):
            for device in range(num_devices):
                times[first + b] = max(times[first + b], device_free[b, device])
    return times


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


@compiled_above(SMALL)
def pipelined_times(
    devices: PlacementColumns,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
) -> Float64:
    """Return (batch,) seconds."""
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    # Seconds of each link, by from and to; the diagonal, which is no link, holds the devices.
    load = np.zeros((batch, num_devices, num_devices))
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)  # bit d: the tensor is read on device d
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            source = devices[producer, b]
            for device in range(num_devices):
                if device != source and (mask[b] >> device) & 1:
                    load[b, source, device] += (
                        latency_s[source, device] + size * s_per_byte[source, device]
                    )
    times = np.zeros(batch)
    for b in range(batch):
        for device in range(num_devices):
            for other in range(num_devices):
                times[b] = max(times[b], load[b, device, other])
    return times


@compiled_above(SMALL)
def max_load_times(
    devices: PlacementColumns,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
    pays: Bool,
) -> Float64:
    """Return (batch,) seconds."""
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    load = np.zeros((batch, num_devices))  # seconds of compute, and of what is sent and received
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)  # bit d: the tensor is read on device d
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            source = devices[producer, b]
            sent = 0.0  # seconds of the slowest of the tensor's moves
            for device in range(num_devices):
                if device != source and (mask[b] >> device) & 1:
                    cost = latency_s[source, device] + size * s_per_byte[source, device]
                    sent = max(sent, cost)
                    if pays[device]:
                        load[b, device] += cost
            if pays[source]:
                load[b, source] += sent
    times = np.zeros(batch)
    for b in range(batch):
        for device in range(num_devices):
            times[b] = max(times[b], load[b, device])
    return times


@compiled_above(SMALL)
def memory_used(devices: PlacementColumns, group_bytes: Float64, num_devices: int) -> Float64:
    """Return (num_devices, batch) bytes of weights."""
    groups, batch = devices.shape
    used = np.zeros((num_devices, batch))
    for group in range(groups):
        for b in range(batch):
            used[devices[group, b], b] += group_bytes[group]
    return used


@compiled_above(SMALL)
def any_differs(devices: PlacementColumns, ones: Int64, others: Int64) -> Bool:
    """Return whether any pair of groups is on two different devices, (batch,)."""
    batch = devices.shape[1]
    differ = np.zeros(batch, dtype=np.bool_)
    for pair in range(ones.size):
        one, other = devices[ones[pair]], devices[others[pair]]
        for b in range(batch):
            differ[b] |= one[b] != other[b]
    return differ


@compiled_above(SMALL)
def count_pieces(
    devices: PlacementColumns, producer: Int32, reader: Int32, num_devices: int
) -> Int32:
    """Return the number of connected regions of each device, (num_devices, batch).

    Every group begins as its own region; an edge inside a device that joins two regions makes one
    less. Here placements are the outer loop, because each needs its own forest, and one forest at
    a time fits into the cache.
    """
    groups, batch = devices.shape
    pieces = np.zeros((num_devices, batch), dtype=np.int32)
    # The parent of each group in the forest, never a larger number; a root is its own parent.
    root = np.empty(groups, dtype=np.int32)
    for b in range(batch):
        for group in range(groups):
            root[group] = group
            pieces[devices[group, b], b] += 1
        for edge in range(producer.size):
            one, other = producer[edge], reader[edge]
            if devices[one, b] == devices[other, b]:
                while root[one] != one:
                    root[one] = root[root[one]]
                    one = root[one]
                while root[other] != other:
                    root[other] = root[root[other]]
                    other = root[other]
                if one != other:
                    root[max(one, other)] = min(one, other)
                    pieces[devices[one, b], b] -= 1
    return pieces
