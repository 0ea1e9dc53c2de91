"""Compiled loops over contiguous stages: the best ones, and what they reach from a prefix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int32, Int64
from device_placement.envs.jit import compiled_above
from device_placement.envs.simulation.partial_kernels import (
    MAX_LOAD,
    PIPELINED,
    SMALL,
    CostArrays,
    StateArrays,
)

FEW_CELLS = 200  # of a table of stages; Python takes a few milliseconds for these


class StageArrays(NamedTuple):
    """Units of many problems, and the best stages of the last ones.

    A unit is a group, or all groups of one colour; units are in the order of their first groups.
    Tensors are those that another unit reads, in the order of the units that make them. A set of
    devices is the sum of `set_step` over its members.
    """

    unit: Int32  # (num_problems, max_groups)
    num_units: Int32  # (num_problems,)
    first: Int32  # (num_problems, max_units) group
    unit_s: Float64  # (num_problems, max_units, max_devices) inf where a group can't run
    unit_bytes: Float64  # (num_problems, max_units) of weights
    made_start: Int32  # (num_problems, max_units + 1) where the tensors that each makes begin
    moved_bytes: Float64  # (num_problems, max_tensors)
    maker: Int32  # (num_problems, max_tensors) unit
    read_start: Int32  # (num_problems, max_tensors + 1) where the units that read each begin
    read_by: Int32  # (num_problems, max_reads)
    takes_start: Int32  # (num_problems, max_units + 1) where the tensors that each reads begin
    takes: Int32  # (num_problems, max_reads) tensor
    hold_bytes: Float64  # (num_problems, max_devices) that a device can hold alone
    in_latency_s: Float64  # (num_problems, max_devices) of a move from another one
    in_s_per_byte: Float64  # (num_problems, max_devices)
    out_latency_s: Float64  # (num_problems, max_devices) of a move to another one
    out_s_per_byte: Float64  # (num_problems, max_devices)
    set_step: Int32  # (num_problems, max_devices) 0: not in any set
    # (num_problems, max_units + 1, max_sets) least load of all units from one on
    stage_s: Float64
    is_acyclic: Bool  # (num_problems,) data goes from a device to itself or to a higher one


@compiled_above(FEW_CELLS)
def fill_stages(
    unit_s: Float64,
    unit_bytes: Float64,
    made_start: Int32,
    moved_bytes: Float64,
    read_start: Int32,
    takes_start: Int32,
    takes: Int32,
    hold_bytes: Float64,
    links: Float64,
    pays: Bool,
    moves_load: bool,
    counts: Int64,
    steps: Int64,
    stage_s: Float64,
) -> None:
    """Find the least largest load of the units from each one on, cut into contiguous stages.

    With R(i, S) for the units from i on and the set S of devices, R(i, S) = min over devices d of
    S and ends j of max(load of units i to j - 1 on d, R(j, S without d)). Moves have the usual
    speed of the device's links. A unit that a device can't run counts as one elsewhere.

    Args:
        unit_s: (num_kinds, num_units) of a device of each kind.
        unit_bytes: (num_units,) as the following in `StageArrays`.
        made_start: (num_units + 1,)
        moved_bytes: (num_tensors,)
        read_start: (num_tensors + 1,)
        takes_start: (num_units + 1,)
        takes: (num_reads,)
        hold_bytes: (num_kinds,)
        links: (4, num_kinds) latency and seconds per byte of what comes in, the same out.
        pays: (num_kinds,) whether the device is charged for moves.
        moves_load: whether moves are load of the devices; if not, what comes in is load of a link.
        counts: (num_kinds,) devices.
        steps: (num_kinds,) of the numbers of sets.
        stage_s: (num_units + 1, num_sets) inf, and 0 in the last row; filled.
    """
    num_units = unit_bytes.size
    inside = np.zeros(moved_bytes.size, dtype=np.int64)  # readers of each tensor in the stage
    is_made = np.zeros(moved_bytes.size, dtype=np.bool_)  # in the stage
    for begin in range(num_units - 1, -1, -1):
        for kind in range(counts.size):
            inside[:] = 0
            is_made[:] = False
            work_s = in_s = out_s = held = 0.0
            for unit in range(begin, num_units):
                if unit_s[kind, unit] < np.inf:
                    work_s += unit_s[kind, unit]
                    held += unit_bytes[unit]
                    if held > hold_bytes[kind]:
                        break
                    for at in range(takes_start[unit], takes_start[unit + 1]):
                        tensor = takes[at]
                        inside[tensor] += 1
                        size = moved_bytes[tensor]
                        readers = read_start[tensor + 1] - read_start[tensor]
                        if not is_made[tensor]:
                            if inside[tensor] == 1:
                                in_s += links[0, kind] + size * links[1, kind]
                        elif inside[tensor] == readers:
                            out_s -= links[2, kind] + size * links[3, kind]
                    for tensor in range(made_start[unit], made_start[unit + 1]):
                        is_made[tensor] = True
                        size = moved_bytes[tensor]
                        if inside[tensor] > 0:
                            in_s -= links[0, kind] + size * links[1, kind]
                        if inside[tensor] < read_start[tensor + 1] - read_start[tensor]:
                            out_s += links[2, kind] + size * links[3, kind]
                load_s = work_s
                if not moves_load:
                    load_s = max(work_s, in_s)
                elif pays[kind]:
                    load_s = work_s + in_s + out_s
                for chosen in range(stage_s.shape[1]):
                    if (chosen // steps[kind]) % (counts[kind] + 1) > 0:
                        rest_s = stage_s[unit + 1, chosen - steps[kind]]
                        value_s = max(load_s, rest_s)
                        if value_s < stage_s[begin, chosen]:
                            stage_s[begin, chosen] = value_s


@compiled_above(SMALL)
def reach_in_stages(
    costs: CostArrays,
    state: StateArrays,
    stages: StageArrays,
    rows: Int64,
    result: Float64,
) -> None:
    """Find the time of all groups if those not placed are cut into contiguous stages.

    The next unit and some after it go to a device, the others to devices that hold nothing; where
    data only goes to higher devices, to higher ones.

    Args:
        costs: of the problems.
        state: of the rows.
        stages: of the problems.
        rows: (count,) which rows.
        result: (count, max_devices), filled for the devices of rows with `PIPELINED` or `MAX_LOAD`;
            inf where there is no such cut, or the next group has a colour that is placed.
    """
    max_devices = costs.compute_s.shape[2]
    max_tensors = stages.moved_bytes.shape[1]
    work_s, moves_s = np.empty(max_devices), np.empty(max_devices)
    link_s = np.empty((max_devices, max_devices))  # load by from and to
    unknown_s = np.empty(max_devices)  # of what comes to each from groups that are not placed
    own_link_s = np.empty(max_devices)
    held = np.empty(max_devices)  # bytes of weights
    num_units_on = np.empty(max_devices, dtype=np.int64)
    reads = np.empty((max_devices,), dtype=np.bool_)
    device_of = np.empty(stages.first.shape[1], dtype=np.int64)
    inside, before = np.empty(max_tensors, np.int64), np.empty(max_tensors, np.int64)
    is_made = np.empty(max_tensors, dtype=np.bool_)
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        group, timing = state.cursor[row], costs.timing[problem]
        if group == costs.num_groups[problem] or (timing != PIPELINED and timing != MAX_LOAD):
            continue
        num_devices, num_units = costs.num_devices[problem], stages.num_units[problem]
        next_unit = stages.unit[problem, group]
        result[number, :num_devices] = np.inf
        if stages.first[problem, next_unit] < group:
            continue
        num_tensors = stages.made_start[problem, num_units]
        latency_in, latency_out = stages.in_latency_s[problem], stages.out_latency_s[problem]
        rate_in, rate_out = stages.in_s_per_byte[problem], stages.out_s_per_byte[problem]
        work_s[:] = 0.0
        moves_s[:] = 0.0
        link_s[:] = 0.0
        unknown_s[:] = 0.0
        held[:] = 0.0
        num_units_on[:] = 0
        for unit in range(next_unit):
            device = state.device[row, stages.first[problem, unit]]
            device_of[unit] = device
            work_s[device] += stages.unit_s[problem, unit, device]
            held[device] += stages.unit_bytes[problem, unit]
            num_units_on[device] += 1
        # Loads if all that is not placed is elsewhere.
        for tensor in range(num_tensors):
            maker, size = stages.maker[problem, tensor], stages.moved_bytes[problem, tensor]
            source = device_of[maker] if maker < next_unit else -1
            reads[:] = False
            leaves = False
            for at in range(
                stages.read_start[problem, tensor], stages.read_start[problem, tensor + 1]
            ):
                reader = stages.read_by[problem, at]
                if reader >= next_unit:
                    leaves = True
                elif device_of[reader] != source:
                    leaves = True
                    reads[device_of[reader]] = True
            if source >= 0 and leaves:
                moves_s[source] += latency_out[source] + size * rate_out[source]
            for target in range(num_devices):
                if reads[target]:
                    cost = latency_in[target] + size * rate_in[target]
                    if source >= 0:
                        cost = (
                            costs.latency_s[problem, source, target]
                            + size * costs.s_per_byte[problem, source, target]
                        )
                        link_s[source, target] += cost
                    else:
                        unknown_s[target] += cost
                    moves_s[target] += cost
        unused = 0
        for device in range(num_devices):
            if num_units_on[device] == 0:
                unused += stages.set_step[problem, device]
        for own in range(num_devices):
            if stages.unit_s[problem, next_unit, own] == np.inf:
                continue
            chosen = unused
            if num_units_on[own] == 0:
                chosen -= stages.set_step[problem, own]
            others_s = 0.0
            for device in range(num_devices):
                if stages.is_acyclic[problem] and device < own and num_units_on[device] == 0:
                    chosen -= stages.set_step[problem, device]
                if device != own:
                    load_s = work_s[device]
                    if timing == PIPELINED:
                        load_s = max(load_s, unknown_s[device])
                        for source in range(num_devices):
                            load_s = max(load_s, link_s[source, device])
                    elif costs.pays[problem, device]:
                        load_s += moves_s[device]
                    others_s = max(others_s, load_s)
                own_link_s[device] = link_s[device, own]
            for tensor in range(num_tensors):
                maker = stages.maker[problem, tensor]
                is_made[tensor] = maker < next_unit and device_of[maker] == own
                inside[tensor] = before[tensor] = 0
                for at in range(
                    stages.read_start[problem, tensor], stages.read_start[problem, tensor + 1]
                ):
                    reader = stages.read_by[problem, at]
                    if reader < next_unit and device_of[reader] == own:
                        inside[tensor] += 1
            own_s, own_moves_s, own_held = work_s[own], moves_s[own], held[own]
            other_link_s = unknown_s[own]
            best_s = np.inf
            for unit in range(next_unit, num_units):
                seconds = stages.unit_s[problem, unit, own]
                if seconds < np.inf:
                    own_s += seconds
                    own_held += stages.unit_bytes[problem, unit]
                    if own_held > stages.hold_bytes[problem, own] or own_s >= best_s:
                        break
                    for at in range(
                        stages.takes_start[problem, unit], stages.takes_start[problem, unit + 1]
                    ):
                        tensor = stages.takes[problem, at]
                        size = stages.moved_bytes[problem, tensor]
                        inside[tensor] += 1
                        if is_made[tensor]:
                            start = stages.read_start[problem, tensor]
                            if inside[tensor] == stages.read_start[problem, tensor + 1] - start:
                                own_moves_s -= latency_out[own] + size * rate_out[own]
                        elif inside[tensor] == 1:
                            maker = stages.maker[problem, tensor]
                            if maker < next_unit:
                                source = device_of[maker]
                                cost = (
                                    costs.latency_s[problem, source, own]
                                    + size * costs.s_per_byte[problem, source, own]
                                )
                                own_link_s[source] += cost
                            else:
                                cost = latency_in[own] + size * rate_in[own]
                                other_link_s += cost
                            own_moves_s += cost
                    for tensor in range(
                        stages.made_start[problem, unit], stages.made_start[problem, unit + 1]
                    ):
                        size = stages.moved_bytes[problem, tensor]
                        is_made[tensor] = True
                        if inside[tensor] > 0:
                            cost = latency_in[own] + size * rate_in[own]
                            own_moves_s -= cost
                            other_link_s -= cost
                        start = stages.read_start[problem, tensor]
                        if inside[tensor] < stages.read_start[problem, tensor + 1] - start:
                            own_moves_s += latency_out[own] + size * rate_out[own]
                value_s = max(own_s, others_s)
                if timing == PIPELINED:
                    value_s = max(value_s, other_link_s)
                    for source in range(num_devices):
                        value_s = max(value_s, own_link_s[source])
                elif costs.pays[problem, own]:
                    value_s = max(value_s, own_s + own_moves_s)
                value_s = max(value_s, stages.stage_s[problem, unit + 1, chosen])
                best_s = min(best_s, value_s)
            result[number, own] = best_s
