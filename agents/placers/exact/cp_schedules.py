"""Objectives of the constraint program, one per schedule; under `dataflow`, a lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from device_placement.agents.placers.exact.cp_bounds import Region, find_regions
from device_placement.agents.placers.exact.cp_program import (
    ConstraintProgram,
    Linear,
    Literal,
    Tensor,
    weighted,
)


def sequential_objective(program: ConstraintProgram) -> Linear:
    """Return the time under `sequential`: the sum of compute, transfers and subgraphs."""
    terms = [program.load(device) for device in program.devices]
    for tensor in program.tensors:
        terms += [one.cost * one.moves for one in program.crossings(tensor)]
    if program.costs.subgraph_s.any():
        terms.append(add_pieces(program))
    total = sum(terms)
    program.model.add(total <= program.upper)
    return total


def pipelined_objective(program: ConstraintProgram) -> Linear:
    """Return the time under `pipelined`: the largest load of a device or link."""
    largest = program.new_time()
    for device in program.devices:
        program.model.add(largest >= program.load(device))
    _add_link_loads(program, largest)
    return largest


def max_load_objective(program: ConstraintProgram) -> Linear:
    """Return the time under `max_load`: the largest compute and communication of a device."""
    largest, pays = program.new_time(), program.costs.pays
    loads = [[program.load(device)] for device in program.devices]
    for tensor in program.tensors:
        crossings = program.crossings(tensor)
        for one in crossings:
            if pays[one.target]:
                loads[one.target].append(one.cost * one.moves)
            if len(program.devices) == 2 and pays[one.sources[0]]:
                loads[one.sources[0]].append(one.cost * one.moves)
        if len(program.devices) > 2:
            for source in program.devices:
                if pays[source]:
                    loads[source] += _sent(program, tensor, source)
    for load in loads:
        program.model.add(largest >= sum(load))
    return largest


def _sent(program: ConstraintProgram, tensor: Tensor, source: int) -> list[Linear]:
    """Return the terms of a device's cost of sending a tensor over its slowest link.

    The cost is a sum of steps from each cost to the next one; a step is paid when a reader is
    on a device that costs at least as much.
    """
    cost = program.whole(program.costs.transfer_s(tensor.number))[source]
    producer, terms, last = program.on[tensor.producer][source], [], 0
    for level in sorted({int(one) for one in cost} - {0}):
        cheaper = [device for device in program.devices if cost[device] < level]
        paid = program.new_bool()
        program.model.add_implication(paid, producer)
        for reader in tensor.readers:
            there = [program.on[reader][device] for device in cheaper]
            program.model.add_bool_or([paid, producer.negated(), *there])
        terms.append((level - last) * paid)
        last = level
    return terms


def add_pieces(program: ConstraintProgram) -> Linear:
    """Return the cost of all subgraphs, as a sum that is not less for any placement.

    The regions are counted by the roots of a forest: each group is a root, or is attached to a
    neighbour on the same device that is nearer to its root. With the fewest roots there is one
    per region. The distances to the root rule out cycles.
    """
    model, groups = program.model, program.costs.num_groups
    price = program.whole(program.costs.subgraph_s).tolist()
    height = [model.new_int_var(0, groups - 1, "") for _ in range(groups)]
    terms = []
    for group, near in enumerate(_neighbours(program)):
        root = program.new_bool()
        hangs = {other: program.new_bool() for other in near}
        model.add_exactly_one([root, *hangs.values()])
        for other, arc in hangs.items():
            model.add(height[group] > height[other]).only_enforce_if(arc)
            for device in program.devices:
                here, there = program.group_on(group, device), program.group_on(other, device)
                model.add_bool_or([arc.negated(), here.negated(), there])
        for device in program.devices:
            if price[device]:
                paid = program.new_bool()
                here = program.group_on(group, device)
                model.add_bool_or([paid, root.negated(), here.negated()])
                terms.append(price[device] * paid)
    return sum(terms)


def _neighbours(program: ConstraintProgram) -> list[list[int]]:
    """Return the groups that each one sends to or reads from, ascending, (num_groups,)."""
    near: list[set[int]] = [set() for _ in range(program.costs.num_groups)]
    for tensor, producer in enumerate(program.costs.tensor_group.tolist()):
        for reader in program.costs.readers(tensor).tolist():
            near[producer].add(reader)
            near[reader].add(producer)
    return [sorted(some) for some in near]


Links = dict[tuple[int, int], Literal]  # (from, to) -> whether a tensor takes it


@dataclass(frozen=True)
class _Move:
    """Tensor that one of its readers may request."""

    tensor: int
    producer: int  # group
    reader: int  # group
    crosses: Links  # producer and reader are on the two ends of the link
    first: Links  # and no earlier reader is there: the tensor is moved now
    arrives: Linear


def concurrent_objective(program: ConstraintProgram, seconds: float) -> Linear:
    """Return the time under `concurrent`: when the last group ends.

    All queues follow the order of the list, so a placement has one schedule: the earliest that
    its constraints allow, and inequalities suffice. Lower bounds come from sums that hold on
    every path, on every device, and in every region of the graph (`find_regions`).

    Args:
        program: the placements.
        seconds: time limit of the bounds of regions.
    """
    last = program.new_time()
    end = [program.new_time() for _ in range(program.costs.num_groups)]
    own = [_own(program, group) for group in range(program.costs.num_groups)]
    for group, time in enumerate(end):
        program.model.add(time >= own[group])
        program.model.add(last >= time)
    for device in program.devices:
        program.model.add(last >= program.load(device))
        _queue_groups(program, device, end)
    moves = _add_moves(program, end, own)
    for source in program.devices:
        for target in program.devices:
            if source != target:
                _queue_moves(program, (source, target), moves, last)
    for region in find_regions(program.costs, seconds):
        _add_region(program, region, end, own)
    return last


def dataflow_objective(program: ConstraintProgram) -> Linear:
    """Return a lower bound of the time under `dataflow`: of every path, device and link.

    A group ends no sooner than those that it reads from, plus the move and its own time; a device
    takes at least the time of its groups, and a link that of its moves. The order in which
    devices take regions, what regions cost, and the factor of split models, which is at least 1,
    are left out: with them, no placement would be faster.
    """
    last = program.new_time()
    groups = range(program.costs.num_groups)
    end = [program.new_time() for _ in groups]
    own = [_own(program, group) for group in groups]
    for group in groups:
        program.model.add(end[group] >= own[group])
        program.model.add(last >= end[group])
    for device in program.devices:
        program.model.add(last >= program.load(device))
    regional = program.costs.regional
    edges = zip(regional.edge_tensor, regional.edge_producer, regional.edge_reader, strict=True)
    for tensor, producer, reader in ((int(a), int(b), int(c)) for a, b, c in edges):
        path: Linear = 0
        if program.space.unit[reader] != program.space.unit[producer]:
            cost = program.whole(program.costs.transfer_s(tensor))
            crosses = _crossing(program, producer, reader)
            path = sum(int(cost[link]) * literal for link, literal in crosses.items())
        program.model.add(end[reader] >= end[producer] + path + own[reader])
    _add_link_loads(program, last)
    return last


def _add_link_loads(program: ConstraintProgram, largest: Linear) -> None:
    """Make a time no less than the load of any link."""
    links: dict[tuple[int, ...], list[Linear]] = {}
    for tensor in program.tensors:
        for one in program.crossings(tensor, by_link=True):
            links.setdefault((*one.sources, one.target), []).append(one.cost * one.moves)
    for link in links.values():
        program.model.add(largest >= sum(link))


def _own(program: ConstraintProgram, group: int) -> Linear:
    """Return the time that a group takes on its device."""
    times = program.compute[group].tolist()
    return sum(times[device] * program.group_on(group, device) for device in program.devices)


def _queue_groups(program: ConstraintProgram, device: int, end: list[Linear]) -> None:
    """Make groups start when those before them in the list have ended on their device."""
    model, free = program.model, None
    for group, time in enumerate(end):
        here, then = program.group_on(group, device), program.new_time()
        takes = int(program.compute[group, device])
        if free is not None:
            model.add(time >= free + takes).only_enforce_if(here)
            model.add(then >= free)
        model.add(then >= time).only_enforce_if(here)
        free = then


def _add_moves(program: ConstraintProgram, end: list[Linear], own: list[Linear]) -> list[_Move]:
    """Add the moves, and return them in queue order: by reader, then by tensor."""
    costs, unit, moves = program.costs, program.space.unit, list[_Move]()
    for tensor, producer in enumerate(costs.tensor_group.tolist()):
        earlier: list[_Move] = []
        for reader in costs.readers(tensor).tolist():
            if unit[reader] == unit[producer]:
                program.model.add(end[reader] >= end[producer] + own[reader])
                continue
            crosses = _crossing(program, producer, reader)
            first = {
                link: _first(program, literal, link[1], [one.reader for one in earlier])
                for link, literal in crosses.items()
            }
            move = _Move(tensor, producer, reader, crosses, first, program.new_time())
            earlier.append(move)
            _await(program, move, earlier, end, own)
        moves += earlier
    return sorted(moves, key=lambda move: (move.reader, move.tensor))


def _crossing(program: ConstraintProgram, producer: int, reader: int) -> Links:
    """Return a literal for each link, true when producer and reader are at its ends."""
    model, devices = program.model, program.devices
    crosses = {(a, b): program.new_bool() for a in devices for b in devices if a != b}
    for (source, target), literal in crosses.items():
        model.add_implication(literal, program.group_on(producer, source))
        model.add_implication(literal, program.group_on(reader, target))
    for device in devices:
        made, read = program.group_on(producer, device), program.group_on(reader, device)
        arrives = [one for (_, b), one in crosses.items() if b == device]
        leaves = [one for (a, _), one in crosses.items() if a == device]
        model.add_bool_or([*arrives, made, read.negated()])
        model.add_bool_or([*leaves, read, made.negated()])
    return crosses


def _first(
    program: ConstraintProgram, crosses: Literal, target: int, earlier: list[int]
) -> Literal:
    """Return the literal for a reader on a target being the first one there."""
    if not earlier:
        return crosses
    first, there = program.new_bool(), [program.group_on(reader, target) for reader in earlier]
    program.model.add_implication(first, crosses)
    for other in there:
        program.model.add_implication(first, other.negated())
    program.model.add_bool_or([first, crosses.negated(), *there])
    return first


def _await(
    program: ConstraintProgram,
    move: _Move,
    moves: list[_Move],
    end: list[Linear],
    own: list[Linear],
) -> None:
    """Make a reader wait for its tensor, whichever of the tensor's moves so far brings it."""
    model = program.model
    cost = program.whole(program.costs.transfer_s(move.tensor))
    path = sum(int(cost[link]) * literal for link, literal in move.crosses.items())
    model.add(end[move.reader] >= end[move.producer] + path + own[move.reader])
    for link, literal in move.first.items():
        made = end[move.producer] + int(cost[link])
        model.add(move.arrives >= made).only_enforce_if(literal)
    for one in moves:
        for (_, target), literal in one.first.items():
            here = program.group_on(move.reader, target)
            ready = one.arrives + int(program.compute[move.reader, target])
            model.add(end[move.reader] >= ready).only_enforce_if(literal, here)


def _queue_moves(
    program: ConstraintProgram, link: tuple[int, int], moves: list[_Move], last: Linear
) -> None:
    """Make tensors start when those before them in the queue have left the link."""
    model, free, load = program.model, None, []
    for move in moves:
        taken, then = move.first[link], program.new_time()
        takes = int(program.whole(program.costs.transfer_s(move.tensor))[link])
        load.append(takes * taken)
        if free is not None:
            model.add(move.arrives >= free + takes).only_enforce_if(taken)
            model.add(then >= free)
        model.add(then >= move.arrives).only_enforce_if(taken)
        free = then
    model.add(last >= sum(load))


def _add_region(
    program: ConstraintProgram, region: Region, end: list[Linear], own: list[Linear]
) -> None:
    """Bound a region's time by the work of each device, and by its least time."""
    model = program.model
    entry, *inside, exit_ = region.groups.tolist()
    spent = end[exit_] - end[entry]
    for device in program.devices:
        literals = [program.group_on(group, device) for group in inside]
        load = weighted(literals, program.compute[inside, device])
        model.add(spent >= load + own[exit_])
    if region.least_s is None:
        return
    least = program.whole(region.least_s)
    pairs = {(a, b): program.new_bool() for a in program.devices for b in program.devices}
    for pair, literal in pairs.items():
        if least[pair] > program.upper:
            model.add(literal == 0)
    for device in program.devices:
        here = [one for (a, _), one in pairs.items() if a == device]
        model.add_exactly_one([*here, program.group_on(entry, device).negated()])
        here = [one for (_, b), one in pairs.items() if b == device]
        model.add_exactly_one([*here, program.group_on(exit_, device).negated()])
    model.add(spent >= weighted(list(pairs.values()), [least[pair] for pair in pairs]))
