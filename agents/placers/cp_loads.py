"""Schedules that are sums and largest sums, as objectives of a constraint program."""

from __future__ import annotations

from device_placement.agents.placers.cp_pieces import add_pieces
from device_placement.agents.placers.cp_program import Linear, Program, Tensor


def sequential(program: Program) -> Linear:
    """The sum of compute and transfers, as the schedule of that name, with its subgraphs."""
    terms = [program.load(device) for device in program.devices]
    for tensor in program.tensors:
        terms += [one.cost * one.moves for one in program.crossings(tensor)]
    if program.costs.subgraph_s.any():
        terms.append(add_pieces(program))
    total = sum(terms)
    program.model.add(total <= program.upper)
    return total


def pipelined(program: Program) -> Linear:
    """The largest load of a device or link, as the schedule of that name."""
    largest = program.new_time()
    for device in program.devices:
        program.model.add(largest >= program.load(device))
    links: dict[tuple[int, ...], list[Linear]] = {}
    for tensor in program.tensors:
        for one in program.crossings(tensor, by_link=True):
            links.setdefault((*one.sources, one.target), []).append(one.cost * one.moves)
    for link in links.values():
        program.model.add(largest >= sum(link))
    return largest


def max_load(program: Program) -> Linear:
    """The largest compute and communication of a device, as the schedule of that name."""
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


def _sent(program: Program, tensor: Tensor, source: int) -> list[Linear]:
    """What a device pays for sending a tensor over the slowest link that it takes.

    That is a sum of steps from each cost to the next one, each paid where a reader is on a
    device that costs so much or more.
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
