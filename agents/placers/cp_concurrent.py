"""List scheduling with queues, as a constraint program."""

from __future__ import annotations

from dataclasses import dataclass

from device_placement.agents.placers.cp_program import Linear, Literal, Program, weighted
from device_placement.agents.placers.cp_regions import Region, find_regions

Links = dict[tuple[int, int], Literal]  # (from, to) -> whether a tensor takes it


@dataclass(frozen=True)
class _Move:
    """A tensor that one of its readers may call for."""

    tensor: int
    producer: int  # group
    reader: int  # group
    crosses: Links  # producer and reader are on the two ends of the link
    first: Links  # besides, no earlier reader is there: the tensor is moved now
    arrives: Linear


def concurrent(program: Program, seconds: float) -> Linear:
    """The time at which the last group ends, as the schedule of that name.

    Every order is the list's, so a placement has one schedule: the earliest that its
    constraints allow, and inequalities do for equations. Lower bounds come from sums that hold
    on every path, on every device, and in every region of the graph (`cp_regions`).

    Args:
        program: the placements.
        seconds: what the bounds of regions may take to compute.
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


def _own(program: Program, group: int) -> Linear:
    """The time that a group takes where it is."""
    times = program.compute[group].tolist()
    return sum(times[device] * program.group_on(group, device) for device in program.devices)


def _queue_groups(program: Program, device: int, end: list[Linear]) -> None:
    """A group starts when those before it in the list have ended on its device."""
    model, free = program.model, None
    for group, time in enumerate(end):
        here, then = program.group_on(group, device), program.new_time()
        takes = int(program.compute[group, device])
        if free is not None:
            model.add(time >= free + takes).only_enforce_if(here)
            model.add(then >= free)
        model.add(then >= time).only_enforce_if(here)
        free = then


def _add_moves(program: Program, end: list[Linear], own: list[Linear]) -> list[_Move]:
    """The moves in the order of their queues: that of readers, and of tensors for one reader."""
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


def _crossing(program: Program, producer: int, reader: int) -> Links:
    """A literal for each link, true where producer and reader are on its ends."""
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


def _first(program: Program, crosses: Literal, target: int, earlier: list[int]) -> Literal:
    """Whether a reader, on a target, is the first one there."""
    if not earlier:
        return crosses
    first, there = program.new_bool(), [program.group_on(reader, target) for reader in earlier]
    program.model.add_implication(first, crosses)
    for other in there:
        program.model.add_implication(first, other.negated())
    program.model.add_bool_or([first, crosses.negated(), *there])
    return first


def _await(
    program: Program, move: _Move, moves: list[_Move], end: list[Linear], own: list[Linear]
) -> None:
    """A reader waits for its tensor, whichever of the tensor's moves so far brings it."""
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


def _queue_moves(program: Program, link: tuple[int, int], moves: list[_Move], last: Linear) -> None:
    """A tensor starts when those before it in the queue have left the link."""
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


def _add_region(program: Program, region: Region, end: list[Linear], own: list[Linear]) -> None:
    """From the end of its entry, a region takes what each device has to do, and its least time."""
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
