"""Constraints in plain words, and small random problems that have them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import networkx as nx
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from costs import random_costs
from device_placement.envs.costs import FREE, Costs
from device_placement.envs.simulation.schedule import broken_rules

settings.register_profile("no deadline", deadline=None)  # the search is compiled first
settings.load_profile("no deadline")

SETS = (
    ("acyclic",),
    ("no_skip",),
    ("acyclic", "no_skip"),
    ("acyclic", "triangle"),
    ("acyclic", "no_skip", "triangle"),
    ("acyclic", "neighbours"),
    ("acyclic", "no_skip", "neighbours"),
)


def satisfies(costs: Costs, placement: Sequence[int], constraint: str) -> bool:
    """Whether a placement satisfies a constraint, by its definition."""
    links = {(placement[one], placement[other]) for one, other in costs.edges.T.tolist()}
    if constraint == "acyclic":
        return all(source <= target for source, target in links)
    if constraint == "no_skip":
        return set(placement) == set(range(max(placement) + 1))
    if constraint == "neighbours":
        return all(target - source in (0, 1) for source, target in links)
    between: nx.DiGraph[int] = nx.DiGraph([link for link in links if link[0] != link[1]])
    return all(
        max(map(len, nx.all_simple_paths(between, source, target))) == 2
        for source, target in between.edges
    )


def valid_placements(costs: Costs) -> set[tuple[int, ...]]:
    """All placements that break no rule."""
    every = np.array(list(product(range(costs.num_devices), repeat=costs.num_groups)))
    broken = broken_rules(costs, np.ascontiguousarray(every.T, dtype=np.uint8))
    every = every[
        (broken == 0) & np.isfinite(costs.compute_s[range(costs.num_groups), every]).all(1)
    ]
    return {tuple(one) for one in every.tolist()}


def constrained_costs(seed: int, groups: int, devices: int, limited: bool = True) -> Costs:
    """Random costs with a random set of constraints; some with limits, colours, missing ops."""
    generator = np.random.default_rng(seed)
    some = SETS[generator.integers(len(SETS))]
    costs = random_costs(
        generator,
        groups,
        devices,
        group_bytes=generator.integers(0, 5, groups).astype(float),
        constraints=some,
    )
    if not limited:
        return costs
    if generator.random() < 0.5:
        costs.memory_bytes[:] = generator.integers(2, 3 + 2 * groups // devices, devices)
    if generator.random() < 0.3:
        one, other = generator.choice(groups, 2, replace=False)
        costs.colour[[one, other]] = 7
    if generator.random() < 0.3:
        costs.compute_s[generator.integers(groups), generator.integers(devices)] = np.inf
    assert (costs.colour != FREE).sum() in (0, 2)
    return costs


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """All subsets, the smallest first."""
    return [some for size in range(len(names) + 1) for some in combinations(names, size)]


problems = st.builds(
    constrained_costs, st.integers(0, 2**31), groups=st.integers(2, 6), devices=st.integers(2, 4)
)
"""Small ones of all kinds."""
