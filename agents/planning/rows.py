"""The loops behind the terms, as machine code over many placements.

Each takes device numbers, (batch, num_groups), and fields of `Costs`, and says how often each
link's latency and time per byte are paid: (batch, 2, num_devices, num_devices), from and to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.compiled import compiled
from device_placement.envs.graph import Float64, Int32

Placements = NDArray[np.uint8]  # (batch, num_groups) device numbers
NOTHING = -1  # what an event waits for that begins at once


@compiled
def moves(
    placements: Placements,
    latency_s: Float64,
    s_per_byte: Float64,
    tensor_group: Int32,
    tensor_bytes: Float64,
    reader_start: Int32,
    reader: Int32,
    slowest_only: bool,
) -> Float64:
    """Every tensor once to each device that reads it; or once only, on the slowest of the links."""
    batch, devices = len(placements), len(latency_s)
    counts = np.zeros((batch, 2, devices, devices))
    for b in range(batch):
        for tensor in range(tensor_group.size):
            source, size = placements[b, tensor_group[tensor]], tensor_bytes[tensor]
            seen, slowest, slowest_s = 1 << source, -1, -1.0
            for position in range(reader_start[tensor], reader_start[tensor + 1]):
                device = placements[b, reader[position]]
                if (seen >> device) & 1:
                    continue
                seen |= 1 << device
                move_s = latency_s[source, device] + size * s_per_byte[source, device]
                if move_s > slowest_s:
                    slowest, slowest_s = device, move_s
                if not slowest_only:
                    counts[b, 0, source, device] += 1.0
                    counts[b, 1, source, device] += size
            if slowest_only and slowest >= 0:
                counts[b, 0, source, slowest] += 1.0
                counts[b, 1, source, slowest] += size
    return counts


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
) -> tuple[Float64, Float64]:
    """The groups, (batch, num_groups), and moves that end last, one waiting for the other.

    An event is a group, or a move of tensor t to device d with the number groups + t D + d.
    """
    batch, groups = placements.shape
    devices = compute_s.shape[1]
    on_path = np.zeros((batch, groups))
    counts = np.zeros((batch, 2, devices, devices))
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
                            begin = link_free[source, device]
                            before[event] = link_last[source, device]
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
                on_path[b, event] = 1.0
            else:
                tensor, device = divmod(event - groups, devices)
                source = placements[b, tensor_group[tensor]]
                counts[b, 0, source, device] += 1.0
                counts[b, 1, source, device] += tensor_bytes[tensor]
            event = before[event]
    return on_path, counts
