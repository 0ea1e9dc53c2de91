"""Time that is reached if the groups not placed follow a simple rule, where devices overlap."""

from __future__ import annotations

import numpy as np

from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.jit import compiled_above
from device_placement.envs.simulation.partial_kernels import (
    CONCURRENT,
    MAX_LOAD,
    PIPELINED,
    SMALL,
    CostArrays,
    StateArrays,
)
from device_placement.envs.simulation.stage_kernels import StageArrays

LIMITS, RATIO = 4, 1.15  # limits of a device's load: how many, and each over the one before


@compiled_above(SMALL)
def reach_by_ends(
    costs: CostArrays, state: StateArrays, stages: StageArrays, rows: Int64, result: Float64
) -> None:
    """Find the end of all groups if those after the next one go where each ends first.

    Constraints do not count.

    Args:
        costs: of the problems.
        state: of the rows.
        stages: of the problems, for the colours.
        rows: (count,) which rows.
        result: (count, max_devices), filled for the devices of rows with `CONCURRENT`; inf where
            the next group can't run, or a later one finds no room.
    """
    max_groups, max_devices = costs.compute_s.shape[1:]
    max_tensors, max_limits = costs.tensor_bytes.shape[1], costs.limit_bytes.shape[1]
    device_of, end_s = np.empty(max_groups, np.int64), np.empty(max_groups)
    there_s = np.empty((max_tensors, max_devices))
    free_s, link_free_s = np.empty(max_devices), np.empty((max_devices, max_devices))
    used = np.empty(max_limits)
    # Moves that a group needs on the device at hand, and on the best so far: tensors and arrivals.
    move, arrives_s = np.empty(max_tensors, np.int64), np.empty(max_tensors)
    best_move, best_arrives_s = np.empty(max_tensors, np.int64), np.empty(max_tensors)
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        group, num_groups = state.cursor[row], costs.num_groups[problem]
        if group == num_groups or costs.timing[problem] != CONCURRENT:
            continue
        num_devices, unit = costs.num_devices[problem], stages.unit[problem, group]
        leader = stages.first[problem, unit]
        for own in range(num_devices):
            result[number, own] = np.inf
            if stages.unit_s[problem, unit, own] == np.inf:
                continue
            if leader < group and state.device[row, leader] != own:
                continue
            device_of[:group] = state.device[row, :group]
            end_s[:group] = state.end_s[row, :group]
            there_s[:] = state.there_s[row]
            free_s[:] = state.free_s[row]
            link_free_s[:] = state.link_free_s[row]
            used[:] = state.used_bytes[row]
            for other in range(group, num_groups):
                member, size = stages.unit[problem, other], costs.group_bytes[problem, other]
                first = stages.first[problem, member]
                bound = own if other == group else -1
                if first < other:
                    bound = device_of[first]
                start = costs.input_start[problem, other]
                stop = costs.input_start[problem, other + 1]
                chosen, first_s, num_best = -1, np.inf, 0
                for device in range(num_devices):
                    if bound >= 0 and device != bound:
                        continue
                    if stages.unit_s[problem, member, device] == np.inf:
                        continue
                    is_full = False
                    for limit in range(max_limits):
                        if costs.limited[problem, limit, device]:
                            is_full |= used[limit] + size > costs.limit_bytes[problem, limit]
                    if is_full:
                        continue
                    begin_s, num_moves = free_s[device], 0
                    for position in range(start, stop):
                        tensor = costs.input_tensor[problem, position]
                        producer = costs.tensor_group[problem, tensor]
                        source = device_of[producer]
                        ready_s = end_s[producer]
                        if source != device:
                            if there_s[tensor, device] >= 0.0:
                                ready_s = there_s[tensor, device]
                            else:
                                link_s = link_free_s[source, device]
                                for at in range(num_moves):
                                    if device_of[costs.tensor_group[problem, move[at]]] == source:
                                        link_s = arrives_s[at]
                                ready_s = max(ready_s, link_s) + (
                                    costs.latency_s[problem, source, device]
                                    + costs.tensor_bytes[problem, tensor]
                                    * costs.s_per_byte[problem, source, device]
                                )
                                move[num_moves], arrives_s[num_moves] = tensor, ready_s
                                num_moves += 1
                        begin_s = max(begin_s, ready_s)
                    finish_s = begin_s + costs.compute_s[problem, other, device]
                    if finish_s < first_s:
                        chosen, first_s, num_best = device, finish_s, num_moves
                        for at in range(num_moves):
                            best_move[at], best_arrives_s[at] = move[at], arrives_s[at]
                if chosen < 0:
                    break
                device_of[other], end_s[other], free_s[chosen] = chosen, first_s, first_s
                for at in range(num_best):
                    tensor = best_move[at]
                    there_s[tensor, chosen] = best_arrives_s[at]
                    source = device_of[costs.tensor_group[problem, tensor]]
                    link_free_s[source, chosen] = best_arrives_s[at]
                for limit in range(max_limits):
                    if costs.limited[problem, limit, chosen]:
                        used[limit] += size
            else:
                result[number, own] = free_s[:num_devices].max()


@compiled_above(SMALL)
def reach_by_filling(
    costs: CostArrays,
    state: StateArrays,
    stages: StageArrays,
    rows: Int64,
    total_s: Float64,
    least_s: Float64,
    result: Float64,
) -> None:
    """Find the time of all groups if those after the next one fill devices up to a limit.

    Each goes where it and its moves take the least time of those devices whose load stays below the
    limit; if there is none, where the load is least. Limits are the first `LIMITS` powers of
    `RATIO`, times the fastest time of all groups, that are not below an estimate. The lowest that
    all groups stay below counts, or the highest; as long as the estimate hardly grows, what is
    found for a group is found again for those after it. Where data only goes to higher devices,
    which most of these placements break, nothing is found; other constraints do not count.

    Args:
        costs: of the problems.
        state: of the rows.
        stages: of the problems, for the colours.
        rows: (count,) which rows.
        total_s: (count,) of all groups, each on its fastest device.
        least_s: (count, max_devices) estimate of the time of all groups.
        result: (count, max_devices), lowered for the devices of rows with `PIPELINED` or
            `MAX_LOAD`, unless a group finds no room.
    """
    max_groups, max_devices = costs.compute_s.shape[1:]
    max_tensors, max_limits = costs.tensor_bytes.shape[1], costs.limit_bytes.shape[1]
    device_of = np.empty(max_groups, np.int64)
    is_there = np.empty((max_tensors, max_devices), dtype=np.bool_)
    was_there = np.empty((max_tensors, max_devices), dtype=np.bool_)
    sent_s, used = np.empty(max_tensors), np.empty(max_limits)
    load_s, link_load_s = np.empty(max_devices), np.empty((max_devices, max_devices))
    # Moves that a group needs on the device at hand, and on the best so far: tensors, their costs,
    # and what they add to the load of their source, or of the link from it.
    move, move_s = np.empty(max_tensors, np.int64), np.empty(max_tensors)
    more_s = np.empty(max_tensors)
    best_move, best_move_s = np.empty(max_tensors, np.int64), np.empty(max_tensors)
    best_more_s = np.empty(max_tensors)
    for number in range(rows.size):
        row = rows[number]
        problem = state.problem[row]
        group, num_groups = state.cursor[row], costs.num_groups[problem]
        is_pipelined = costs.timing[problem] == PIPELINED
        if group == num_groups or (not is_pipelined and costs.timing[problem] != MAX_LOAD):
            continue
        if stages.is_acyclic[problem]:
            continue
        num_devices, unit = costs.num_devices[problem], stages.unit[problem, group]
        leader = stages.first[problem, unit]
        was_there[:] = state.there_s[row] >= 0.0
        for own in range(num_devices):
            if stages.unit_s[problem, unit, own] == np.inf or least_s[number, own] == np.inf:
                continue
            if leader < group and state.device[row, leader] != own:
                continue
            power = 0.0
            if least_s[number, own] > 0.0 and total_s[number] > 0.0:
                power = np.ceil(np.log(least_s[number, own] / total_s[number]) / np.log(RATIO))
            for step in range(LIMITS):
                limit_s = total_s[number] * RATIO ** (power + step)
                device_of[:group] = state.device[row, :group]
                is_there[:] = was_there
                sent_s[:] = state.sent_s[row]
                load_s[:] = state.load_s[row]
                link_load_s[:] = state.link_load_s[row]
                used[:] = state.used_bytes[row]
                value_s = state.value_s[row]
                for other in range(group, num_groups):
                    member, size = stages.unit[problem, other], costs.group_bytes[problem, other]
                    first = stages.first[problem, member]
                    bound = own if other == group else -1
                    if first < other:
                        bound = device_of[first]
                    start = costs.input_start[problem, other]
                    stop = costs.input_start[problem, other + 1]
                    chosen, late, best_s, num_best = -1, True, np.inf, 0
                    best_load_s = best_then_s = 0.0
                    for device in range(num_devices):
                        if bound >= 0 and device != bound:
                            continue
                        if stages.unit_s[problem, member, device] == np.inf:
                            continue
                        is_full = False
                        for limit in range(max_limits):
                            if costs.limited[problem, limit, device]:
                                is_full |= used[limit] + size > costs.limit_bytes[problem, limit]
                        if is_full:
                            continue
                        seconds, sum_s = costs.compute_s[problem, other, device], 0.0
                        source_s, num_moves = 0.0, 0  # largest load of a source, or of a link
                        for position in range(start, stop):
                            tensor = costs.input_tensor[problem, position]
                            source = device_of[costs.tensor_group[problem, tensor]]
                            if source == device or is_there[tensor, device]:
                                continue
                            cost = (
                                costs.latency_s[problem, source, device]
                                + costs.tensor_bytes[problem, tensor]
                                * costs.s_per_byte[problem, source, device]
                            )
                            more = cost
                            if not is_pipelined:
                                if costs.pays[problem, device]:
                                    seconds += cost
                                more = 0.0
                                if costs.pays[problem, source]:
                                    more = max(cost - sent_s[tensor], 0.0)
                            move[num_moves], move_s[num_moves] = tensor, cost
                            more_s[num_moves] = more
                            num_moves += 1
                            sum_s += more
                            if more > 0.0:
                                late_s = link_load_s[source, device]
                                if not is_pipelined:
                                    late_s = load_s[source]
                                for at in range(num_moves):
                                    if device_of[costs.tensor_group[problem, move[at]]] == source:
                                        late_s += more_s[at]
                                source_s = max(source_s, late_s)
                        then_s = max(load_s[device] + seconds, source_s)
                        is_late = then_s > limit_s
                        key_s = then_s if is_late else seconds + sum_s
                        if (late and not is_late) or (late == is_late and key_s < best_s):
                            chosen, late, best_s, num_best = device, is_late, key_s, num_moves
                            best_load_s, best_then_s = seconds, then_s
                            for at in range(num_moves):
                                best_move[at], best_move_s[at] = move[at], move_s[at]
                                best_more_s[at] = more_s[at]
                    if chosen < 0:
                        value_s = np.inf
                        break
                    value_s = max(value_s, best_then_s)
                    if value_s > limit_s and (step < LIMITS - 1 or value_s >= result[number, own]):
                        break
                    device_of[other] = chosen
                    load_s[chosen] += best_load_s
                    for at in range(num_best):
                        tensor = best_move[at]
                        source = device_of[costs.tensor_group[problem, tensor]]
                        is_there[tensor, chosen] = True
                        sent_s[tensor] = max(sent_s[tensor], best_move_s[at])
                        if is_pipelined:
                            link_load_s[source, chosen] += best_more_s[at]
                        else:
                            load_s[source] += best_more_s[at]
                    for limit in range(max_limits):
                        if costs.limited[problem, limit, chosen]:
                            used[limit] += size
                if value_s <= limit_s or step == LIMITS - 1:
                    result[number, own] = min(result[number, own], value_s)
                    break
