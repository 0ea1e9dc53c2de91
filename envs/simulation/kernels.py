"""The loops behind the schedules, as machine code over many placements.

Each takes the devices of the groups, (num_groups, batch), and fields of `Costs`. `schedule.py`
says what they compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.graph.computation_graph import Bool, Float64, Int32
from device_placement.envs.jit import compiled

Devices = NDArray[np.uint8]  # (num_groups, batch) the batch lies innermost in memory


@compiled
def sequential_times(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency: Float64,
    per_byte: Float64,
) -> Float64:
    """(batch,) seconds, by sums over sets of devices for `latency` and `per_byte`."""
    groups, batch = devices.shape
    times = np.zeros(batch)
    for group in range(groups):
        row = compute_s[group]
        for b in range(batch):
            times[b] += row[devices[group, b]]
    mask = np.zeros(batch, dtype=np.uint16)
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


@compiled
def concurrent_times(
    placements: Devices,
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
    """(batch,) seconds, for `block` placements at a time, whose state stays in the cache."""
    groups, batch = placements.shape
    num_devices = compute_s.shape[1]
    times = np.zeros(batch)
    devices = np.zeros((groups, block), dtype=np.uint8)
    end = np.empty((groups, block))
    there = np.empty((tensor_group.size, block, num_devices))
    device_free = np.empty((block, num_devices))
    link_free = np.empty((block, num_devices, num_devices))
    ready = np.empty(block)
    for first in range(0, batch, block):
        width = min(block, batch - first)
        devices[:, :width] = placements[:, first : first + width]
        there[:] = -1.0  # not moved yet
        device_free[:] = 0.0
        link_free[:] = 0.0
        for group in range(groups):
            for b in range(block):
                ready[b] = device_free[b, devices[group, b]]
            for position in range(input_start[group], input_start[group + 1]):
                tensor = input_tensor[position]
                producer, size = tensor_group[tensor], tensor_bytes[tensor]
                if reader_start[tensor + 1] - reader_start[tensor] == 1:
                    for b in range(block):
                        own, source = devices[group, b], devices[producer, b]
                        made, free = end[producer, b], link_free[b, source, own]
                        cost = latency_s[source, own] + size * s_per_byte[source, own]
                        moved = max(made, free) + cost
                        link_free[b, source, own] = free if source == own else moved
                        ready[b] = max(ready[b], made if source == own else moved)
                    continue
                for b in range(block):
                    own, source, made = devices[group, b], devices[producer, b], end[producer, b]
                    free, known = link_free[b, source, own], there[tensor, b, own]
                    cost = latency_s[source, own] + size * s_per_byte[source, own]
                    moved = max(made, free) + cost
                    arrived = made if source == own else (moved if known < 0.0 else known)
                    link_free[b, source, own] = free if source == own or known >= 0.0 else moved
                    there[tensor, b, own] = arrived
                    ready[b] = max(ready[b], arrived)
            row = compute_s[group]
            for b in range(block):
                device = devices[group, b]
                ended = ready[b] + row[device]
                end[group, b] = ended
                device_free[b, device] = ended
        for b in range(width):
            for device in range(num_devices):
                times[first + b] = max(times[first + b], device_free[b, device])
    return times


@compiled
def pipelined_times(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
) -> Float64:
    """(batch,) seconds."""
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    load = np.zeros((batch, num_devices, num_devices))  # of links; of devices: the diagonal
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)
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


@compiled
def max_load_times(
    devices: Devices,
    compute_s: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    latency_s: Float64,
    s_per_byte: Float64,
    pays: NDArray[np.bool_],
) -> Float64:
    """(batch,) seconds."""
    groups, batch = devices.shape
    num_devices = compute_s.shape[1]
    load = np.zeros((batch, num_devices))
    for group in range(groups):
        for b in range(batch):
            device = devices[group, b]
            load[b, device] += compute_s[group, device]
    mask = np.zeros(batch, dtype=np.uint16)
    for tensor in range(tensor_group.size):
        mask[:] = 0
        for position in range(reader_start[tensor], reader_start[tensor + 1]):
            group = reader[position]
            for b in range(batch):
                mask[b] |= np.uint16(1) << devices[group, b]
        producer, size = tensor_group[tensor], tensor_bytes[tensor]
        for b in range(batch):
            source = devices[producer, b]
            sent = 0.0
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


@compiled
def memory_used(devices: Devices, group_bytes: Float64, num_devices: int) -> Float64:
    """(num_devices, batch) bytes of weights."""
    groups, batch = devices.shape
    used = np.zeros((num_devices, batch))
    for group in range(groups):
        for b in range(batch):
            used[devices[group, b], b] += group_bytes[group]
    return used


@compiled
def any_differs(devices: Devices, ones: NDArray[np.int64], others: NDArray[np.int64]) -> Bool:
    """(batch,) whether one of a pair of groups is on another device than the other."""
    batch = devices.shape[1]
    differ = np.zeros(batch, dtype=np.bool_)
    for pair in range(ones.size):
        one, other = devices[ones[pair]], devices[others[pair]]
        for b in range(batch):
            differ[b] |= one[b] != other[b]
    return differ


@compiled
def count_pieces(
    devices: Devices, producer: Int32, reader: Int32, num_devices: int
) -> NDArray[np.int32]:
    """(num_devices, batch) connected regions of each device."""
    groups, batch = devices.shape
    pieces = np.zeros((num_devices, batch), dtype=np.int32)
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
