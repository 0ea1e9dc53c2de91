"""Repair: what it returns is valid, keeps what it can, and can be anything valid."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constrained import constrained_costs, problems, satisfies, subsets, valid_placements
from costs import make_costs, random_costs
from device_placement.benchmarks.suite.problems import open_problem, problems_of
from device_placement.envs.constraints import BROKEN, CONSTRAINTS, first_broken, parse_constraints
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DeviceError, DevicePlacementError
from device_placement.envs.repair.nearest import smallest_conflict
from device_placement.envs.repair.repairer import REPAIRS, Repairer, check_satisfiable
from device_placement.envs.simulation.schedule import broken_rules
from device_placement.envs.simulation.simulator import as_simulated

seeds = st.integers(0, 2**31)
CHAIN = {0: (1.0, [1]), 1: (1.0, [2]), 2: (1.0, [3])}


def chain(devices: int, **changes: object) -> Costs:
    """Four groups in a row."""
    return make_costs([[1.0] * devices] * 4, CHAIN, **changes)


@settings(max_examples=50)
@given(problems, seeds)
def test_constraints_are_what_their_definitions_say(costs: Costs, seed: int) -> None:
    columns = np.random.default_rng(seed).integers(costs.num_devices, size=(costs.num_groups, 40))
    broken = first_broken(costs, columns.astype(np.uint8))
    for column, code in zip(columns.T.tolist(), broken.tolist(), strict=True):
        wrong = [name for name in costs.constraints if not satisfies(costs, column, name)]
        # Detours are only looked for where data goes forward.
        assert (code > 0) == bool(wrong)
        assert code == 0 or BROKEN[code - 1] == wrong[0]


@settings(max_examples=50)
@given(problems, seeds)
def test_repaired_placements_are_valid_and_valid_ones_stay(costs: Costs, seed: int) -> None:
    generator = np.random.default_rng(seed)
    repairer, valid = Repairer(costs), valid_placements(costs)
    proposal = generator.integers(costs.num_devices, size=costs.num_groups)
    for way in REPAIRS[1:]:
        found = repairer.repair(way, proposal, generator)
        assert found.found == bool(valid)
        assert found.impossible == (not valid)
        if found.found:
            assert tuple(found.assignment.tolist()) in valid
            assert found.changes == (found.assignment != proposal).sum()
    for one in list(valid)[:3]:
        for way in REPAIRS:
            kept = repairer.repair(way, list(one), generator)
            assert kept.found
            assert (tuple(kept.assignment.tolist()), kept.changes) == (one, 0)


@settings(max_examples=30)
@given(problems, seeds)
def test_nearest_moves_as_few_groups_as_possible(costs: Costs, seed: int) -> None:
    generator = np.random.default_rng(seed)
    valid = valid_placements(costs)
    proposal = generator.integers(costs.num_devices, size=costs.num_groups)
    found = Repairer(costs).nearest(proposal)
    if valid:
        changes = (np.array(list(valid)) != proposal).sum(axis=1)
        assert found.changes == changes.min()


@settings(max_examples=15)
@given(st.builds(constrained_costs, seeds, groups=st.just(4), devices=st.just(3)))
def test_every_valid_placement_is_drawn(costs: Costs) -> None:
    repairer, valid = Repairer(costs), valid_placements(costs)
    generator = np.random.default_rng(0)
    drawn = {tuple(repairer.uniform(generator).assignment.tolist()) for _ in range(60 * len(valid))}
    assert drawn >= valid
    assert drawn <= valid | ({tuple([-1] * 4)} if not valid else set())


def test_a_device_without_probability_is_drawn_only_where_nothing_else_is_left() -> None:
    repairer, generator = Repairer(chain(3, constraints=("acyclic",))), np.random.default_rng(0)
    chances = np.tile([1.0, 0.0, 1.0], (4, 1))
    drawn = np.array([repairer.sample(chances, generator).assignment for _ in range(50)])
    assert set(np.unique(drawn)) == {0, 2}
    chances[0] = [0.0, 0.0, 1.0]
    chances[3] = [1.0, 0.0, 0.0]
    drawn = np.array([repairer.sample(chances, generator).assignment for _ in range(20)])
    assert (drawn[:, 0] <= drawn[:, 3]).all()


@settings(max_examples=50)
@given(problems, seeds)
def test_masks_keep_all_that_is_valid(costs: Costs, seed: int) -> None:
    repairer, valid = Repairer(costs), valid_placements(costs)
    first = repairer.allowed_at_first
    for one in valid:
        assert first[range(costs.num_groups), one].all()
    for one in list(valid)[:2]:
        for group in range(costs.num_groups):
            placed = np.where(np.arange(costs.num_groups) < group, one, -1)
            allowed = repairer.allowed(placed, group)
            later = [other for other in valid if other[:group] == one[:group]]
            assert {other[group] for other in later} <= set(np.flatnonzero(allowed).tolist())


@given(seeds, st.integers(2, 6), st.integers(2, 4))
def test_masks_are_exact_without_limits_and_detours(seed: int, groups: int, devices: int) -> None:
    costs = constrained_costs(seed, groups, devices, limited=False)
    if costs.constraints not in (("acyclic",), ("acyclic", "no_skip"), ("acyclic", "neighbours")):
        costs = dataclasses.replace(costs, constraints=("acyclic", "no_skip"))
    repairer, valid = Repairer(costs), valid_placements(costs)
    generator = np.random.default_rng(seed)
    placed = np.full(groups, -1)
    for group in range(groups):
        allowed = np.flatnonzero(repairer.allowed(placed, group)).tolist()
        prefix = tuple(placed[:group].tolist())
        assert set(allowed) == {other[group] for other in valid if other[:group] == prefix}
        placed[group] = generator.choice(allowed)


def test_search_gives_up_after_so_many_dead_ends_and_says_so() -> None:
    # Five weights of 3 into devices of 5, 5 and 8: never, though the sum fits.
    costs = random_costs(
        np.random.default_rng(0),
        5,
        3,
        group_bytes=np.full(5, 3.0),
        memory_bytes=np.array([5.0, 5.0, 8.0]),
        constraints=("no_skip",),
    )
    stopped = Repairer(costs, max_failures=1).fix([0] * 5)
    assert not stopped.found
    assert not stopped.impossible
    assert Repairer(costs).fix([0] * 5).impossible


def test_larger_problems_are_repaired_within_all_limits() -> None:
    generator = np.random.default_rng(3)
    costs = random_costs(
        generator,
        240,
        36,
        group_bytes=generator.integers(1, 9, 240).astype(float),
        memory_bytes=np.full(36, 48.0),
        constraints=("acyclic", "no_skip"),
    )
    repairer = Repairer(costs)
    balanced = repairer.balanced()
    assert balanced.found
    near = balanced.assignment.copy()
    near[::10] = generator.integers(36, size=24)
    for way in ("fix", "sample"):
        found = repairer.repair(way, near, generator)
        assert found.found
        column = found.assignment.astype(np.uint8)[:, None]
        assert first_broken(costs, column).tolist() == [0]
        assert (np.bincount(found.assignment, costs.group_bytes) <= 48).all()


def test_where_searches_end_in_dead_ends_a_walk_does_not() -> None:
    problem = problems_of("mcm")["generated:4000000011 on 36 chips"]
    evaluator = as_simulated(open_problem(problem), "")
    costs, generator = evaluator.costs, np.random.default_rng(0)
    repairer = Repairer(costs, evaluator.coarse.supported)
    found = [
        repairer.repair(way, generator.integers(36, size=costs.num_groups), generator)
        for way in ("fix", "sample")
        for _ in range(4)
    ]
    assert all(one.found for one in found)
    assert max(one.failures for one in found) > 2
    placements = np.array([one.assignment for one in found], dtype=np.uint8)
    assert not broken_rules(costs, np.ascontiguousarray(placements.T)).any()
    assert len({one.assignment.tobytes() for one in found}) == len(found)


@settings(max_examples=40)
@given(problems)
def test_the_smallest_conflict_is_named(costs: Costs) -> None:
    names = [*costs.constraints]
    if np.isfinite(costs.memory_bytes).any():
        names.append("memory")
    if (costs.colour >= 0).any():
        names.append("colour")
    smallest = None
    for some in subsets(names):
        if {"triangle", "neighbours"} & {*some} and "acyclic" not in some:
            continue
        relaxed = dataclasses.replace(
            costs,
            constraints=tuple(name for name in some if name in BROKEN),
            memory_bytes=costs.memory_bytes
            if "memory" in some
            else np.full(costs.num_devices, np.inf),
            colour=costs.colour if "colour" in some else np.full_like(costs.colour, -1),
        )
        if not valid_placements(relaxed):
            smallest = some
            break
    found = smallest_conflict(costs, None)
    assert found == smallest


def test_errors_name_the_conflict() -> None:
    small = chain(2, group_bytes=np.array([1.0, 9.0, 1.0, 1.0]), memory_bytes=np.array([4.0, 5.0]))
    with pytest.raises(DevicePlacementError, match=r"group 1 with 9 bytes .* more than 5"):
        check_satisfiable(dataclasses.replace(small, constraints=("acyclic", "memory")))
    full = chain(2, group_bytes=np.full(4, 3.0), memory_bytes=np.array([4.0, 5.0]))
    with pytest.raises(DevicePlacementError, match=r"12 bytes that don't fit .* hold 9"):
        check_satisfiable(dataclasses.replace(full, constraints=("memory",)))
    # The last group must come after all others, and fits only where one of them must be.
    tight = chain(
        2,
        group_bytes=np.array([1.0, 1.0, 1.0, 4.0]),
        memory_bytes=np.array([4.0, 3.0]),
        constraints=("acyclic", "memory"),
    )
    with pytest.raises(DevicePlacementError, match="'acyclic' and 'memory' together"):
        check_satisfiable(tight)
    lacking = chain(2, constraints=("acyclic",))
    lacking.compute_s[2] = np.inf
    with pytest.raises(DevicePlacementError, match="no device runs"):
        check_satisfiable(lacking)


def test_constraints_are_parsed_in_one_order() -> None:
    assert parse_constraints("no_skip, acyclic") == ("acyclic", "no_skip")
    assert parse_constraints([*CONSTRAINTS]) == tuple(CONSTRAINTS)
    assert parse_constraints("") == ()
    with pytest.raises(DevicePlacementError, match="Did you mean 'acyclic'"):
        parse_constraints("acylic")
    with pytest.raises(DevicePlacementError, match="give 'acyclic,triangle'"):
        parse_constraints("triangle")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match=r"shape \(3,\)"):
        Repairer(chain(2, constraints=("acyclic",))).fix([0, 0, 0])
    many = random_costs(np.random.default_rng(0), 3, 61, constraints=("acyclic",))
    with pytest.raises(DeviceError, match="up to 60"):
        Repairer(many).fix([0, 0, 0])
