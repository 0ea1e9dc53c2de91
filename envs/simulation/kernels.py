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
)
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
    mask = np.zeros(batch, dtype=np.int64)  # bit d: the tensor is read on device d
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= 1 << np.int64(devices[group, b])
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
