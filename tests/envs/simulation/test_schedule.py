from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costs import make_costs, random_costs
from dataflow_plainly import dataflow_plainly
from device_placement.envs import DevicePlacementError, PlacementError
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.schedule import (
    BLOCK,
    SCHEDULES,
    broken_rules,
    count_subgraphs_by_device,
    schedule_times,
)

# A diamond: 0 feeds 1 and 2 with 2 bytes, 1 feeds 3 with 3 bytes, 2 feeds 3 with 1 byte.
COMPUTE = [[1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]]
DIAMOND = make_costs(COMPUTE, {0: (2.0, [1, 2]), 1: (3.0, [3]), 2: (1.0, [3])})


def time_of(costs: Costs, placement: list[int], schedule: str) -> float:
    return float(schedule_times(costs, np.array([placement]), schedule)[0])


@pytest.mark.parametrize(
    ("schedule", "placement", "expected"),
    [
        ("sequential", [0, 0, 0, 0], 8.0),
        ("sequential", [1, 1, 1, 1], 10.0),
        ("sequential", [0, 1, 0, 0], 1 + 1 + 1 + 1 + 2 + 3),
        ("sequential", [0, 1, 1, 0], 1 + 1 + 5 + 1 + 2 + 3 + 1),  # 0's tensor moves once
        ("concurrent", [0, 0, 0, 0], 8.0),
        # 0 ends at 1, its tensor is on device 1 at 3, 1 ends there at 4 and is back at 7; 2 ends
        # at 2 on device 0.
        ("concurrent", [0, 1, 0, 0], 8.0),
        # On device 1 group 1 runs from 3 to 4 and 2 from 4 to 9; the link back brings 1's tensor
        # at 7 and 2's at 10.
        ("concurrent", [0, 1, 1, 0], 11.0),
        ("pipelined", [0, 0, 0, 0], 8.0),
        ("pipelined", [0, 1, 0, 0], 3.0),  # device 0: 3, device 1: 1, links: 2 and 3
        ("pipelined", [0, 1, 1, 0], 6.0),  # device 1: 6, the link back: 4
        ("max_load", [0, 0, 0, 0], 8.0),
        ("max_load", [0, 1, 0, 0], 3 + 2 + 3),  # device 0: what it runs, sends and receives
        ("max_load", [0, 1, 1, 0], 6 + 2 + 3 + 1),  # device 1
    ],
)
def test_the_diamond_by_hand(schedule: str, placement: list[int], expected: float) -> None:
    assert time_of(DIAMOND, placement, schedule) == expected


def test_a_tensor_is_sent_once_to_each_device_and_waits_for_its_link() -> None:
    # 0 feeds 1, 2 and 3; 1 is on device 1, 2 and 3 on device 2.
    costs = make_costs([[1.0] * 3] * 4, {0: (4.0, [1, 2, 3])})
    placement = [0, 1, 2, 2]
    assert time_of(costs, placement, "sequential") == 4 + 2 * 4
    assert time_of(costs, placement, "concurrent") == 1 + 4 + 1 + 1  # the links run side by side
    assert time_of(costs, placement, "pipelined") == 4  # each of the two links
    assert time_of(costs, placement, "max_load") == max(1 + 4, 1 + 4, 2 + 4)  # sent once
    # Two tensors on one link: the second one waits.
    costs = make_costs([[1.0] * 2] * 4, {0: (4.0, [2]), 1: (4.0, [3])})
    assert time_of(costs, [0, 0, 1, 1], "concurrent") == 1 + 4 + 4 + 1


def test_the_links_have_latency_bandwidth_and_direction() -> None:
    links = {
        "latency_s": np.array([[0.0, 0.5], [0.25, 0.0]]),
        "s_per_byte": np.array([[0.0, 2.0], [1.0, 0.0]]),
    }
    costs = make_costs([[1.0, 1.0]] * 2, {0: (3.0, [1])}, **links)
    assert time_of(costs, [0, 1], "sequential") == 2 + 0.5 + 6
    assert time_of(costs, [1, 0], "sequential") == 2 + 0.25 + 3


def test_who_does_not_pay_is_not_charged_for_communication() -> None:
    free = make_costs(COMPUTE, {0: (2.0, [1, 2])}, pays=np.array([False, True]))
    assert time_of(free, [0, 1, 0, 0], "max_load") == 3  # device 0; device 1 has 1 + 2
    assert time_of(free, [1, 0, 1, 1], "max_load") == 9 + 2  # sends 2
    assert time_of(free, [0, 1, 1, 1], "max_load") == 8 + 2  # receives 2


def test_each_subgraph_is_charged_where_that_is_asked_for() -> None:
    costs = make_costs(COMPUTE, {0: (2.0, [1, 2])}, subgraph_s=np.array([10.0, 100.0]))
    # Group 3 is on its own; 0 and 2 are joined on device 0.
    assert time_of(costs, [0, 1, 0, 0], "sequential") == 4 + 2 + 20 + 100
    pieces = count_subgraphs_by_device(costs, np.array([[0, 1, 0, 0]], dtype=np.uint8).T)
    assert pieces[:, 0].tolist() == [2, 1]


def test_what_is_not_allowed_takes_for_ever() -> None:
    lacking = make_costs([[1.0, np.inf], [1.0, 1.0]], {})
    assert time_of(lacking, [1, 0], "sequential") == np.inf
    small = make_costs(
        [[1.0, 1.0]] * 2, {}, group_bytes=np.array([3.0, 4.0]), memory_bytes=np.array([5.0, 9.0])
    )
    assert time_of(small, [0, 0], "pipelined") == np.inf
    assert time_of(small, [0, 1], "pipelined") == 1
    coloured = make_costs([[1.0, 1.0]] * 3, {}, colour=np.array([4, -1, 4], dtype=np.int32))
    assert time_of(coloured, [0, 1, 1], "max_load") == np.inf
    assert time_of(coloured, [0, 1, 0], "max_load") == 2
    column = np.array([[0, 1, 1]], dtype=np.uint8).T
    assert broken_rules(coloured, column).tolist() == [2]


def test_devices_that_share_memory_hold_no_more_than_it_has() -> None:
    costs = make_costs(
        [[1.0, 1.0, 1.0]] * 3,
        {},
        group_bytes=np.array([3.0, 4.0, 5.0]),
        memory_bytes=np.array([np.inf, 5.0, np.inf]),
        pool_devices=np.array([[True, True, False], [False, True, True]]),
        pool_bytes=np.array([8.0, 9.0]),
    )
    every = np.array(list(product(range(3), repeat=3)))
    plain = [[sum(costs.group_bytes[row == device]) for device in range(3)] for row in every]
    fits = [one[1] <= 5 and one[0] + one[1] <= 8 and one[1] + one[2] <= 9 for one in plain]
    assert 0 < sum(fits) < len(fits)
    for schedule in SCHEDULES:
        assert np.isfinite(schedule_times(costs, every, schedule)).tolist() == fits
        one_by_one = [time_of(costs, row.tolist(), schedule) < np.inf for row in every]
        assert one_by_one == fits
    assert costs.reachable_bytes().tolist() == [8, 5, 9]


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown schedule 'sequental'.*sequential"):
        schedule_times(DIAMOND, np.zeros((1, 4), dtype=np.uint8), "sequental")


@pytest.mark.parametrize("wrong", [-1, 2, 256])
def test_a_number_that_names_no_device_is_refused(wrong: int) -> None:
    with pytest.raises(PlacementError, match=rf"Got devices .*{wrong}.*numbered 0 to 1"):
        schedule_times(DIAMOND, np.array([[0, wrong, 1, 1]]), "sequential")


def plainly(costs: Costs, p: list[int], schedule: str) -> float:
    """The formulas once more, in the plainest way."""
    devices = range(costs.num_devices)
    load = [0.0] * costs.num_devices
    link = {(a, b): 0.0 for a in devices for b in devices}
    end: dict[int, float] = {}
    device_free, link_free = [0.0] * costs.num_devices, dict.fromkeys(link, 0.0)
    there: dict[tuple[int, int], float] = {}
    talk = [0.0] * costs.num_devices
    for tensor, producer in enumerate(costs.tensor_group.tolist()):
        source = p[producer]
        wanted = {p[reader] for reader in costs.readers(tensor)} - {source}
        moves = {b: float(costs.transfer_s(tensor)[source, b]) for b in wanted}
        for target, cost in moves.items():
            link[source, target] += cost
            talk[target] += cost
        talk[source] += max(moves.values(), default=0.0)
    for group in range(costs.num_groups):
        own = p[group]
        load[own] += float(costs.compute_s[group, own])
        start = device_free[own]
        for tensor, producer in enumerate(costs.tensor_group.tolist()):
            if group in costs.readers(tensor):
                source = p[producer]
                if source == own:
                    there[tensor, own] = end[producer]
                elif (tensor, own) not in there:
                    begin = max(end[producer], link_free[source, own])
                    there[tensor, own] = begin + float(costs.transfer_s(tensor)[source, own])
                    link_free[source, own] = there[tensor, own]
                start = max(start, there[tensor, own])
        end[group] = device_free[own] = start + float(costs.compute_s[group, own])
    return {
        "sequential": sum(load) + sum(link.values()),
        "concurrent": max(end.values()),
        "dataflow": dataflow_plainly(costs, p),
        "pipelined": max(*load, *link.values()),
        "max_load": max(a + b for a, b in zip(load, talk, strict=True)),
    }[schedule]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 14), st.integers(1, 5))
def test_many_at_once_are_each_as_the_formula_says(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    costs = random_costs(generator, groups, devices)
    placements = generator.integers(0, devices, (BLOCK + 3, groups))
    for schedule in SCHEDULES:
        times = schedule_times(costs, placements, schedule)
        for row in (0, 1, BLOCK - 1, BLOCK, BLOCK + 2):
            assert times[row] == plainly(costs, placements[row].tolist(), schedule)


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 12))
@settings(deadline=None, max_examples=15)
def test_placements_that_agree_on_their_first_groups(seed: int, devices: int, first: int) -> None:
    generator = np.random.default_rng(seed)
    groups = 12
    costs = random_costs(generator, groups, devices)
    base = generator.integers(0, devices, groups)
    placements = generator.integers(0, devices, (BLOCK + 3, groups))
    placements[:, :first] = base[:first]
    rows = [*range(0, BLOCK, 5), *range(BLOCK - 2, BLOCK + 3)]
    for schedule in SCHEDULES:
        times = schedule_times(costs, placements, schedule)[rows]
        expected = [plainly(costs, one, schedule) for one in placements[rows].tolist()]
        assert times.tolist() == expected
