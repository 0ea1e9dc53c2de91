"""The connected regions of each device, counted in a constraint program."""

from __future__ import annotations

from device_placement.agents.placers.cp_program import Linear, Program


def add_pieces(program: Program) -> Linear:
    """What all subgraphs cost, as a sum that is not less for any placement.

    The regions are counted by the roots of a forest: each group is a root, or hangs on a
    neighbour on the same device that stands nearer to its root. The fewest roots are one a
    region. The numbers of steps to the root see to it that no cycle hangs on itself.
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


def _neighbours(program: Program) -> list[list[int]]:
    """(num_groups,) the groups that each one gives tensors to or reads them from, ascending."""
    near: list[set[int]] = [set() for _ in range(program.costs.num_groups)]
    for tensor, producer in enumerate(program.costs.tensor_group.tolist()):
        for reader in program.costs.readers(tensor).tolist():
            near[producer].add(reader)
            near[reader].add(producer)
    return [sorted(some) for some in near]
