"""What simple rules reach from a partial schedule: equal to plain Python, and really reached."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costed import CostsEvaluator
from costs import make_costs, random_costs
from device_placement.agents.placers import make_placer
from device_placement.envs.arrays import Float64
from device_placement.envs.costs import FREE, Costs
from device_placement.envs.jit import _machine_code
from device_placement.envs.simulation.completion import reach_by_ends, reach_by_filling
from device_placement.envs.simulation.lookahead import RestArrays
from device_placement.envs.simulation.partial_kernels import MAX_LOAD, PIPELINED
from device_placement.envs.simulation.partial_schedule import TIMINGS, PartialSchedules
from device_placement.envs.simulation.schedule import schedule_times
from device_placement.envs.simulation.stage_kernels import (
    StageArrays,
    fill_stages,
    reach_in_stages,
)
from device_placement.envs.simulation.stages import stages_of
from reached_plainly import filling_reached, stages_reached

ROW = np.array([0])
OVERLAPPING = ("pipelined", "max_load")


def begun(costs: Costs, schedule: str, placed: list[int]) -> PartialSchedules:
    """A partial schedule with some groups placed."""
    partial = PartialSchedules([costs], [schedule], num_rows=1)
    for device in placed:
        partial.place(ROW, np.array([device]))
    return partial


def reached_s(partial: PartialSchedules) -> list[float]:
    """What is reached with the next group on each device."""
    found: list[float] = partial.ahead(ROW, partial.look(ROW)).reached_s[0].tolist()
    return found


def coloured(seed: int, groups: int, devices: int) -> Costs:
    """Random costs with colours, kinds of alike devices, limits, and devices that do not pay."""
    generator = np.random.default_rng(seed)
    colour = np.where(generator.random(groups) < 0.5, generator.integers(0, 2, groups), FREE)
    costs = random_costs(
        generator,
        groups,
        devices,
        colour=colour.astype(np.int32),
        group_bytes=generator.integers(0, 5, groups).astype(float),
        memory_bytes=np.where(generator.random(devices) < 0.3, 2.0 * groups, np.inf),
        pays=generator.random(devices) < 0.7,
    )
    if generator.random() < 0.5:
        costs.compute_s[:, 1] = costs.compute_s[:, 0]
    costs.compute_s[generator.random(groups) < 0.2, -1] = np.inf
    if generator.random() < 0.3:
        costs = dataclasses.replace(costs, constraints=("acyclic",))
    return costs


def drawn(costs: Costs, groups: int, seed: int) -> list[int]:
    """Devices of the first groups, at random, those of one colour together."""
    generator, placed = np.random.default_rng(seed), list[int]()
    for group in range(groups):
        same = [one for one in range(group) if costs.colour[one] == costs.colour[group] != FREE]
        runs = np.flatnonzero(np.isfinite(costs.compute_s[group]))
        placed.append(placed[same[0]] if same else int(generator.choice(runs)))
    return placed


@pytest.mark.parametrize("schedule", OVERLAPPING)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**16))
def test_both_rules_equal_plain_python_with_colours(schedule: str, seed: int) -> None:
    costs = coloured(seed, 6, 3)
    placed = drawn(costs, seed % 6, seed)
    partial = begun(costs, schedule, placed)
    ahead = partial.ahead(ROW, partial.look(ROW))
    total_s = float(costs.compute_s.min(axis=1).sum())
    expected = [
        min(
            stages_reached(costs, schedule, placed, own),
            filling_reached(costs, schedule, [*placed, own], ahead.end_s[0, own], total_s)
            if own in options(costs, placed)
            else np.inf,
        )
        for own in range(3)
    ]
    if not np.isfinite(expected).any():
        expected = ahead.estimate_s[0].tolist()
    np.testing.assert_allclose(ahead.reached_s[0], expected)


def options(costs: Costs, placed: list[int]) -> list[int]:
    """Devices that run all of the next group's colour, or the one that the colour is on."""
    group = len(placed)
    colour = costs.colour[group]
    same = [one for one in range(6) if one == group or costs.colour[one] == colour != FREE]
    runs = np.flatnonzero(np.isfinite(costs.compute_s[same]).all(axis=0)).tolist()
    return [one for one in runs if same[0] >= group or one == placed[same[0]]]


@pytest.mark.parametrize("schedule", OVERLAPPING)
def test_a_chain_is_cut_as_well_as_contiguous_stages_can_be(schedule: str) -> None:
    generator = np.random.default_rng(3)
    times = generator.integers(1, 9, 12).astype(float)
    sizes = generator.integers(1, 9, 11).astype(float)
    costs = make_costs(
        np.repeat(times[:, None], 3, axis=1).tolist(),
        {one: (size, [one + 1]) for one, size in enumerate(sizes.tolist())},
    )
    cuts = [
        [0] * one + [1] * (other - one) + [2] * (12 - other)
        for one in range(13)
        for other in range(one, 13)
    ]
    best_s = schedule_times(costs, np.array(cuts), schedule).min()
    assert min(reached_s(begun(costs, schedule, []))) <= best_s + 1e-9
    found = make_placer("lookahead").place(CostsEvaluator(costs, schedule), 10, 0)
    assert found.time_s <= best_s + 1e-9


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16))
def test_who_follows_what_is_reached_reaches_it(seed: int) -> None:
    costs = random_costs(np.random.default_rng(seed), 9, 3)
    partial = PartialSchedules([costs], ["concurrent"], num_rows=1)
    promised, placed = np.inf, list[int]()
    for _ in range(costs.num_groups):
        found = reached_s(partial)
        assert min(found) <= promised + 1e-9
        promised = min(found)
        placed.append(int(np.argmin(found)))
        partial.place(ROW, np.array(placed[-1:]))
    assert schedule_times(costs, np.array([placed]), "concurrent")[0] == pytest.approx(promised)


@pytest.mark.parametrize("schedule", ["concurrent", *OVERLAPPING])
def test_where_nothing_is_reached_the_estimate_counts(schedule: str) -> None:
    # The first group is where the other one of its colour can't run.
    costs = make_costs(
        [[1.0, 2.0], [1.0, np.inf]], {0: (1.0, [1])}, colour=np.array([7, 7], dtype=np.int32)
    )
    # A problem with more devices pads the table.
    other = random_costs(np.random.default_rng(0), 2, 4)
    partial = PartialSchedules([costs, other], [schedule, schedule], num_rows=1)
    ahead = partial.ahead(ROW, partial.place(ROW, np.array([1])))
    np.testing.assert_array_equal(ahead.reached_s, ahead.estimate_s)
    assert np.isfinite(ahead.reached_s[0, 0])


@pytest.mark.parametrize("timing", [PIPELINED, MAX_LOAD])
def test_the_slowest_devices_are_left_out_of_very_many_sets(timing: int) -> None:
    costs = random_costs(np.random.default_rng(0), 5, 9)
    costs.compute_s[:] = np.arange(1.0, 10.0)
    found = stages_of(costs, timing)
    assert found["set_step"].tolist() == [1, 2, 4, 8, 16, 32, 64, 0, 0]
    assert found["stage_s"].shape == (6, 128)
    assert np.isfinite(found["stage_s"][:, 1:]).all()


@pytest.mark.parametrize("schedule", TIMINGS)
def test_compiled_and_plain_python_agree(schedule: str) -> None:
    costs = coloured(5, 9, 3)
    partial = begun(costs, schedule, drawn(costs, 4, 1))
    rest = partial._table.rows(RestArrays)
    arrays = partial._costs, partial._state, partial._table.rows(StageArrays), ROW
    end_s, total_s = partial.ahead(ROW, partial.look(ROW)).end_s, rest.fastest_rest_s[:, 0]
    rules: list[tuple[Any, tuple[Float64, ...]]] = [
        (reach_by_ends, ()),
        (reach_in_stages, ()),
        (reach_by_filling, (total_s, end_s)),
    ]
    found = []
    for is_compiled in (True, False):
        times = np.full((len(rules), 1, 3), 99.0)
        for (rule, more), result in zip(rules, times, strict=True):
            call = _machine_code(rule.__wrapped__) if is_compiled else rule.__wrapped__
            call(*arrays, *more, result)
        found.append(times)
    np.testing.assert_array_equal(*found)
    assert (found[0] != 99.0).any() == (schedule != "sequential")


@pytest.mark.parametrize("timing", [PIPELINED, MAX_LOAD])
def test_compiled_and_plain_stages_agree(timing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = coloured(8, 9, 3)
    found = []
    for fill in (_machine_code(fill_stages.__wrapped__), fill_stages.__wrapped__):  # type: ignore[attr-defined]
        monkeypatch.setattr("device_placement.envs.simulation.stages.fill_stages", fill)
        found.append(stages_of(costs, timing)["stage_s"])
    np.testing.assert_array_equal(*found)
