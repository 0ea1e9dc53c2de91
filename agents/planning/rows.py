"""The loops behind the terms, as machine code over many placements.

Each takes device numbers, (batch, num_groups), and fields of `Costs`, and gives rows of
num_groups * num_devices compute terms, then num_devices^2 latencies and as many times per byte.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.compiled import compiled
from device_placement.envs.graph import Bool, Float64, Int32

Placements = NDArray[np.uint8]  # (batch, num_groups) device numbers
NOTHING = -1  # what an event waits for that begins at once


@compiled
def paid(
    placements: Placements,
    num_devices: int,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
) -> Float64:
    """Every group and every move."""
    batch, groups = placements.shape
    latency = groups * num_devices
    per_byte = latency + num_devices * num_devices
    rows = np.zeros((batch, per_byte + num_devices * num_devices))
    for b in range(batch):
        for group in range(groups):
            rows[b, group * num_devices + placements[b, group]] += 1.0
        for tensor in range(tensor_group.size):
            source = placements[b, tensor_group[tensor]]
            seen = 1 << source
            for position in range(reader_start[tensor], reader_start[tensor + 1]):
                device = placements[b, reader[position]]
                if (seen >> device) & 1 == 0:
                    seen |= 1 << device
                    link = source * num_devices + device
                    rows[b, latency + link] += 1.0
                    rows[b, per_byte + link] += tensor_bytes[tensor]
    return rows


@compiled
def largest_queue(
    placements: Placements,
    compute_s: Float64,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
) -> Float64:
    """The groups of the busiest device or the moves of the busiest link."""
    batch, groups = placements.shape
    devices = compute_s.shape[1]
    latency = groups * devices
    per_byte = latency + devices * devices
    rows = np.zeros((batch, per_byte + devices * devices))
    for b in range(batch):
        load = np.zeros((devices, devices))  # of links; of devices: the diagonal
        largest = 0
        for chosen in (False, True):  # first the loads, then the rows of the largest
            for group in range(groups):
                device = placements[b, group]
                if not chosen:
                    load[device, device] += compute_s[group, device]
                elif largest == device * devices + device:
                    rows[b, group * devices + device] += 1.0
            for tensor in range(tensor_group.size):
                source = placements[b, tensor_group[tensor]]
                seen = 1 << source
                for position in range(reader_start[tensor], reader_start[tensor + 1]):
                    device = placements[b, reader[position]]
                    if (seen >> device) & 1:
                        continue
                    seen |= 1 << device
                    link, size = source * devices + device, tensor_bytes[tensor]
                    if not chosen:
                        load[source, device] += (
                            latency_s[source, device] + size * s_per_byte[source, device]
                        )
                    elif largest == link:
                        rows[b, latency + link] += 1.0
                        rows[b, per_byte + link] += size
            largest = int(np.argmax(load))
    return rows


@compiled
def largest_load(
    placements: Placements,
    compute_s: Float64,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    pays: Bool,
) -> Float64:
    """The groups of the device with the largest load, what it sends and what it receives."""
    batch, groups = placements.shape
    devices = compute_s.shape[1]
    latency = groups * devices
    per_byte = latency + devices * devices
    rows = np.zeros((batch, per_byte + devices * devices))
    for b in range(batch):
        load = np.zeros(devices)
        largest = 0
        for chosen in (False, True):  # first the loads, then the row of the largest
            for group in range(groups):
                device = placements[b, group]
                if not chosen:
                    load[device] += compute_s[group, device]
                elif device == largest:
                    rows[b, group * devices + device] += 1.0
            for tensor in range(tensor_group.size):
                source, size = placements[b, tensor_group[tensor]], tensor_bytes[tensor]
                seen, slowest, slowest_s = 1 << source, -1, -1.0
                for position in range(reader_start[tensor], reader_start[tensor + 1]):
                    device = placements[b, reader[position]]
                    if (seen >> device) & 1:
                        continue
                    seen |= 1 << device
                    link = source * devices + device
                    move_s = latency_s[source, device] + size * s_per_byte[source, device]
                    if move_s > slowest_s:
                        slowest, slowest_s = link, move_s
                    if pays[device] and not chosen:
                        load[device] += move_s
                    elif pays[device] and device == largest:
                        rows[b, latency + link] += 1.0
                        rows[b, per_byte + link] += size
                if slowest >= 0 and pays[source]:
                    if not chosen:
                        load[source] += slowest_s
                    elif source == largest:
                        rows[b, latency + slowest] += 1.0
                        rows[b, per_byte + slowest] += size
            largest = int(np.argmax(load))
    return rows


@compiled
def longest_path(
    placements: Placements,
    compute_s: Float64,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    input_start: Int32,
    input_tensor: Int32,
) -> Float64:
    """The groups and moves that end last, one waiting for the other.

    An event is a group, or a move of tensor t to device d with the number groups + t D + d.
    """
    batch, groups = placements.shape
    devices = compute_s.shape[1]
    latency = groups * devices
    per_byte = latency + devices * devices
    rows = np.zeros((batch, per_byte + devices * devices))
    end = np.empty(groups + tensor_group.size * devices)
    before = np.empty(end.size, dtype=np.int64)  # what an event waited for last
    for b in range(batch):
        end[:] = -1.0  # not yet
        device_free, device_last = np.zeros(devices), np.full(devices, NOTHING)
        link_free, link_last = np.zeros((devices, devices)), np.full((devices, devices), NOTHING)
        for group in range(groups):
            device = placements[b, group]
            ready, waits_for = device_free[device], device_last[device]
            for position in range(input_start[group], input_start[group + 1]):
                tensor = input_tensor[position]
                producer = tensor_group[tensor]
                source, event = placements[b, producer], producer
                if source != device:
                    event = groups + tensor * devices + device
                    if end[event] < 0.0:
                        begin, before[event] = end[producer], producer
                        if link_free[source, device] > begin:
                            begin, before[event] = (
                                link_free[source, device],
                                link_last[source, device],
                            )
                        move_s = latency_s[source, device]
                        move_s += tensor_bytes[tensor] * s_per_byte[source, device]
                        end[event] = begin + move_s
                        link_free[source, device], link_last[source, device] = end[event], event
                if end[event] > ready:
                    ready, waits_for = end[event], event
            end[group], before[group] = ready + compute_s[group, device], waits_for
            device_free[device], device_last[device] = end[group], group
        event = device_last[np.argmax(device_free)]
        while event != NOTHING:
            if event < groups:
                rows[b, event * devices + placements[b, event]] += 1.0
            else:
                tensor, device = divmod(event - groups, devices)
                link = placements[b, tensor_group[tensor]] * devices + device
                rows[b, latency + link] += 1.0
                rows[b, per_byte + link] += tensor_bytes[tensor]
            event = before[event]
    return rows
