"""Exact placers against all placements, one after the other."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from costed import CostsEvaluator
from costs import costs_with_ends, make_costs, random_costs
from device_placement.agents.placers import make_placer
from device_placement.agents.placers.base import PlacerResult
from device_placement.agents.placers.exact.common import alike_devices
from device_placement.envs import DevicePlacementError, make_evaluator
from device_placement.envs.costs import FREE, Costs
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times
from scripted import diamond_evaluator


def random_problem(seed: int, groups: int, devices: int, **changes: Any) -> Costs:
    """A random graph; some with colours, some with a small device, some with a missing op."""
    generator = np.random.default_rng(seed)
    colour = np.full(groups, FREE, dtype=np.int32)
    memory_bytes = np.full(devices, np.inf)
    if seed % 3 == 0 and groups > 3:
        colour[generator.choice(groups, 2, replace=False)] = 1
    if seed % 3 == 1:
        memory_bytes[-1] = groups / 2
    costs = random_costs(
        generator,
        groups,
        devices,
        **{"colour": colour, "memory_bytes": memory_bytes, "group_bytes": np.ones(groups)}
        | changes,
    )
    if seed % 4 == 0:
        costs.compute_s[generator.integers(groups), generator.integers(1, devices)] = np.inf
    return costs


def solve(costs: Costs, schedule: str, placer: str, **options: Any) -> PlacerResult:
    return make_placer(placer, **options).place(CostsEvaluator(costs, schedule), 100, seed=0)


@pytest.mark.parametrize("seed", range(80))
def test_the_minimum_cut_is_the_optimum(seed: int) -> None:
    free = np.full(2, np.inf)
    costs = random_problem(seed, groups=2 + seed % 11, devices=2, memory_bytes=free)
    found = solve(costs, "sequential", "min_cut")
    assert found.proven
    assert found.time_s == CostsEvaluator(costs).optimum()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES.keys() - {"dataflow"}))
def test_constraint_programming_finds_and_proves_the_optimum(schedule: str, seed: int) -> None:
    devices = 2 + seed % 2
    costs = random_problem(seed, groups=2 + seed % (12 // devices), devices=devices)
    best = CostsEvaluator(costs, schedule).optimum()
    found = solve(costs, schedule, "cp_sat", time_limit_s=300.0, workers=2)
    if math.isinf(best):
        assert found.assignment == ()
        return
    assert found.time_s == best
    assert found.proven
    assert found.bound_s <= best


@pytest.mark.parametrize("seed", range(24))
def test_no_placement_is_below_the_bound_under_dataflow(seed: int) -> None:
    devices = 2 + seed % 2
    generator = np.random.default_rng(seed)
    costs = costs_with_ends(generator, 2 + seed % (12 // devices), devices)
    if seed % 2:
        costs = random_problem(seed, groups=2 + seed % (12 // devices), devices=devices)
    best = CostsEvaluator(costs, "dataflow").optimum()
    found = solve(costs, "dataflow", "cp_sat", time_limit_s=300.0, workers=2)
    if math.isinf(best):
        assert found.assignment == ()
        return
    assert found.bound_s <= best <= found.time_s
    assert not found.proven or found.time_s == best


def test_a_bound_under_dataflow_can_be_a_proof() -> None:
    chain = make_costs([[1.0, 2.0]] * 4, {one: (1.0, [one + 1]) for one in range(3)})
    found = solve(chain, "dataflow", "cp_sat")
    assert (found.assignment, found.time_s, found.proven) == ((0, 0, 0, 0), 4.0, True)
    costly = replace(chain, region_s=np.array([1.0, 1.0]))
    found = solve(costly, "dataflow", "cp_sat")
    assert (found.bound_s, found.time_s, found.proven) == (4.0, 5.0, False)


def test_devices_whose_regions_cost_something_else_are_not_alike() -> None:
    costs = make_costs([[1.0, 1.0]] * 2, {})
    for name in ("region_s", "crossing_s", "split_factor"):
        other = replace(costs, **{name: np.array([1.0, 2.0])})
        assert alike_devices(other) == [[0], [1]]


def shared(seed: int, devices: int, groups: int) -> dict[str, Any]:
    """Memory that all devices, or all but one, share."""
    members = np.ones((1, devices), dtype=np.bool_)
    members[0, seed % devices] = devices == 2
    return {"pool_devices": members, "pool_bytes": np.array([groups * (0.5 + seed % 2)])}


@pytest.mark.parametrize("seed", range(12))
def test_constraint_programming_keeps_to_shared_memory(seed: int) -> None:
    groups, devices = 3 + seed % 3, 3
    costs = random_problem(seed, groups, devices, **shared(seed, devices, groups))
    found = solve(costs, "sequential", "cp_sat", time_limit_s=300.0, workers=2)
    best = CostsEvaluator(costs).optimum()
    assert found.time_s == best or (math.isinf(best) and found.assignment == ())


def test_shared_memory_can_rule_out_the_optimum() -> None:
    pool = {"pool_devices": np.array([[True, True, False]]), "pool_bytes": np.array([1.0])}
    costs = make_costs([[1.0, 1.0, 9.0]] * 3, {}, group_bytes=np.ones(3))
    limited = replace(costs, **pool)
    for schedule in SCHEDULES:
        free, kept = solve(costs, schedule, "cp_sat"), solve(limited, schedule, "cp_sat")
        assert 2 in kept.assignment
        assert kept.proven
        assert free.time_s < kept.time_s == CostsEvaluator(limited, schedule).optimum()


def test_devices_are_alike_only_if_they_share_memory_alike() -> None:
    costs = make_costs([[1.0, 1.0, 1.0]] * 2, {})
    assert alike_devices(costs) == [[0, 1, 2]]
    members = np.array([[True, True, False], [False, False, True]])
    pooled = replace(costs, pool_devices=members, pool_bytes=np.array([2.0, 2.0]))
    assert alike_devices(pooled) == [[0, 1], [2]]
    each = replace(costs, pool_devices=np.eye(3, dtype=np.bool_), pool_bytes=np.full(3, 2.0))
    assert alike_devices(each) == [[0, 1, 2]]


def test_contiguous_splits_refuse_shared_memory_that_limits_them() -> None:
    pool = {"pool_devices": np.array([[True, True, False]]), "group_bytes": np.ones(3)}
    compute = [[1.0, 2.0, 4.0]] * 3
    small = make_costs(compute, {0: (1.0, [1])}, pool_bytes=np.array([2.0]), **pool)
    with pytest.raises(DevicePlacementError, match=r"weights of 3 bytes.*share 2;.*Use cp_sat"):
        solve(small, "max_load", "contiguous")
    large = make_costs(compute, {0: (1.0, [1])}, pool_bytes=np.array([3.0]), **pool)
    assert solve(large, "max_load", "contiguous").time_s == contiguous_optimum(large)
    alone = replace(small, pool_devices=np.array([[True, False, False]]))  # as a limit of its own
    assert solve(alone, "max_load", "contiguous").time_s == contiguous_optimum(alone)


def contiguous_optimum(costs: Costs) -> float:
    """The best of all placements that some order of the devices makes flow one way."""
    edges = [
        (producer, reader)
        for tensor, producer in enumerate(costs.tensor_group.tolist())
        for reader in costs.readers(tensor).tolist()
    ]
    orders = list(permutations(range(costs.num_devices)))
    every = [
        placement
        for placement in product(range(costs.num_devices), repeat=costs.num_groups)
        if any(
            all(order[placement[a]] <= order[placement[b]] for a, b in edges) for order in orders
        )
    ]
    return float(schedule_times(costs, np.array(every), "max_load").min())


@pytest.mark.parametrize("seed", range(40))
def test_the_dynamic_program_finds_the_best_contiguous_split(seed: int) -> None:
    devices = 2 + seed % 2
    links = 1.0 - np.eye(devices)
    costs = random_problem(seed, 2 + seed % 6, devices, latency_s=0.5 * links, s_per_byte=links)
    if seed % 2:  # devices that are alike
        costs.compute_s[:, 1:] = costs.compute_s[:, :1]
        costs.memory_bytes[:] = np.inf
    costs.pays[0] = seed % 5 > 0
    best = contiguous_optimum(costs)
    found = solve(costs, "max_load", "contiguous")
    assert found.time_s == best or (math.isinf(best) and found.assignment == ())


def test_without_contiguity_the_load_can_be_smaller() -> None:
    # 0 -> 1 -> 2: the ends together on one device are no contiguous part.
    costs = make_costs([[3.0, 9.0], [9.0, 3.0], [3.0, 9.0]], {0: (0.0, [1]), 1: (0.0, [2])})
    assert solve(costs, "max_load", "contiguous").time_s > 6
    assert solve(costs, "max_load", "cp_sat", time_limit_s=300.0, workers=2).time_s == 6


def test_subgraphs_that_cost_make_the_cut_a_bound() -> None:
    costs = random_problem(2, 8, 2, subgraph_s=np.array([2.0, 3.0]))
    best = CostsEvaluator(costs).optimum()
    cut = solve(costs, "sequential", "min_cut")
    assert cut.bound_s <= best <= cut.time_s
    assert solve(costs, "sequential", "cp_sat", time_limit_s=300.0, workers=2).time_s == best


@pytest.mark.parametrize(
    ("placer", "schedule", "devices", "reason"),
    [
        ("min_cut", "concurrent", 2, "schedule"),
        ("min_cut", "sequential", 3, "two devices"),
        ("contiguous", "pipelined", 2, "schedule"),
        ("contiguous", "max_load", 3, "transfers"),
    ],
)
def test_what_a_placer_does_not_solve_it_refuses(
    placer: str, schedule: str, devices: int, reason: str
) -> None:
    costs = random_costs(np.random.default_rng(1), 5, devices)
    with pytest.raises(DevicePlacementError, match=reason):
        solve(costs, schedule, placer)


@pytest.mark.parametrize("placer", ["min_cut", "contiguous", "cp_sat"])
def test_costs_are_needed(placer: str) -> None:
    with pytest.raises(DevicePlacementError, match="evaluator='simulator'"):
        make_placer(placer).place(diamond_evaluator(), 10, 0)


@pytest.mark.parametrize("model", ["resnet50", "inception_v3", "bert_base"])
def test_both_prove_the_same_optimum_on_the_machine_of_the_paper(model: str) -> None:
    evaluator = make_evaluator(model, evaluator="simulator", hardware="paper")
    cut = make_placer("min_cut").place(evaluator, 10, 0)
    solved = make_placer("cp_sat", time_limit_s=300.0, workers=2).place(evaluator, 10, 0)
    assert cut.proven
    assert solved.proven
    assert cut.time_s == pytest.approx(solved.time_s, rel=1e-9)
