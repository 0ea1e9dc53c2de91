"""Placers that plan from costs instead of searching: examples worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costed import CostsEvaluator
from costs import make_costs, random_costs
from device_placement.agents.placers import PLACERS, make_placer
from device_placement.agents.placers.baselines import hetero_choice
from device_placement.agents.placers.list_scheduling import first_gap, upward_ranks
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.envs import DevicePlacementError
from device_placement.envs.costs import Costs
from problems import measured

INF = math.inf
# A diamond: 0 feeds 1 and 2 with 2 bytes, 1 feeds 3 with 3 bytes, 2 feeds 3 with 1 byte.
COMPUTE = [[1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]]
TENSORS = {0: (2.0, [1, 2]), 1: (3.0, [3]), 2: (1.0, [3])}
ONES = np.ones(4)


def planned(name: str, costs: Costs, **options: Any) -> list[int]:
    """The one placement that a placer evaluates."""
    evaluator = CostsEvaluator(costs, "concurrent")
    found = make_placer(name, **options).place(evaluator, 10, 0)
    assert evaluator.num_calls == 1
    return list(found.evaluations[0][0])


def published_example() -> Costs:
    """Figure 2 and table 2 of Topcuoglu et al. (TPDS 2002): ten tasks on three processors."""
    compute = [
        [14, 16, 9], [13, 19, 18], [11, 13, 19], [13, 8, 17], [12, 13, 10],
        [13, 16, 9], [7, 15, 11], [5, 11, 14], [18, 12, 20], [21, 7, 16],
    ]  # fmt: skip
    edges = [
        (1, 2, 18), (1, 3, 12), (1, 4, 9), (1, 5, 11), (1, 6, 14), (2, 8, 19), (2, 9, 16),
        (3, 7, 23), (4, 8, 27), (4, 9, 23), (5, 9, 13), (6, 8, 15), (7, 10, 17), (8, 10, 11),
        (9, 10, 13),
    ]  # fmt: skip
    return make_costs(
        compute,
        {},
        tensor_group=np.array([edge[0] - 1 for edge in edges], dtype=np.int32),
        tensor_bytes=np.array([float(edge[2]) for edge in edges]),
        reader_start=np.arange(len(edges) + 1, dtype=np.int32),
        reader=np.array([edge[1] - 1 for edge in edges], dtype=np.int32),
    )


def test_heft_is_that_of_its_paper() -> None:
    costs = published_example()
    ranks = [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667]
    assert upward_ranks(costs) == pytest.approx(ranks, abs=1e-3)
    processors = [3, 1, 3, 2, 3, 2, 3, 1, 2, 2]
    assert planned("heft", costs) == [number - 1 for number in processors]


def test_heft_on_the_diamond() -> None:
    costs = make_costs(COMPUTE, TENSORS)
    # Means: compute 1.5, 3, 3, 1.5; moves 2, 3, 1.
    assert upward_ranks(costs).tolist() == [1.5 + 2 + 7.5, 3 + 3 + 1.5, 3 + 1 + 1.5, 1.5]
    # 0 ends at 1 on device 0; 1 there at 6, on device 1 from 3 to 4; 2 on device 0 at 2; 3 has
    # its inputs on device 0 at 7, on device 1 at 4.
    assert planned("heft", costs) == [0, 1, 0, 1]


def test_heft_keeps_to_what_is_supported_and_to_colours() -> None:
    lacking = make_costs([COMPUTE[0], [5.0, INF], *COMPUTE[2:]], TENSORS)
    assert planned("heft", lacking)[1] == 0
    together = make_costs(COMPUTE, TENSORS, colour=np.array([-1, 7, -1, 7], dtype=np.int32))
    assert planned("heft", together) == [0, 1, 0, 1]
    together = make_costs(COMPUTE, TENSORS, colour=np.array([7, 7, -1, -1], dtype=np.int32))
    # 0 decides for 1, which then ends at 6 on device 0.
    assert planned("heft", together) == [0, 0, 0, 0]


def test_a_gap_is_filled() -> None:
    busy = [(0.0, 2.0), (5.0, 6.0), (7.0, 9.0)]
    assert first_gap(busy, 0.0, 3.0) == 2.0
    assert first_gap(busy, 3.0, 2.0) == 3.0
    assert first_gap(busy, 4.0, 2.0) == 9.0
    assert first_gap(busy, 6.0, 1.0) == 6.0
    assert first_gap(busy, 0.0, INF) == 9.0
    assert first_gap([], 1.5, 3.0) == 1.5


def test_greedy_takes_the_least_growth() -> None:
    # 0 ends at 1 on device 0, at 2 on device 1. 1 then ends at 6 there, at 4 on device 1, which has
    # its input at 3. 2 ends at 2 on device 0, which does not grow the time. 3 has its inputs at 7
    # on device 0, and on device 1 at 4: it ends at 6.
    assert planned("greedy", make_costs(COMPUTE, TENSORS)) == [0, 1, 0, 1]


@pytest.mark.parametrize(("schedule", "expected"), [("sequential", [0, 0]), ("max_load", [0, 1])])
def test_greedy_goes_by_the_schedule(schedule: str, expected: list[int]) -> None:
    # In turn, 1 costs 3 on device 0, on device 1 also 3, and a move of 1. The load is 4 + 3 on
    # device 0, or 4 + 1 there and 3 + 1 on device 1.
    evaluator = CostsEvaluator(make_costs([[4.0, 9.0], [3.0, 3.0]], {0: (1.0, [1])}), schedule)
    found = make_placer("greedy").place(evaluator, 10, 0)
    assert list(found.assignment) == expected


def test_greedy_breaks_ties_by_the_end_and_then_the_load() -> None:
    # The first takes 9 anywhere and goes to device 0; the second could end at 11 or 2 without
    # making the whole longer on device 1; the third ends at 4 there.
    costs = make_costs([[9.0, 9.0], [2.0, 2.0], [2.0, 2.0]], {})
    assert planned("greedy", costs) == [0, 1, 1]


def test_greedy_keeps_to_memory_support_and_colours() -> None:
    lacking = make_costs([COMPUTE[0], [INF, 5.0], *COMPUTE[2:]], TENSORS)
    assert planned("greedy", lacking)[1] == 1
    full = make_costs(COMPUTE, TENSORS, group_bytes=ONES, memory_bytes=np.array([4.0, 1.0]))
    assert planned("greedy", full).count(1) <= 1
    coloured = make_costs(COMPUTE, TENSORS, colour=np.array([7, 7, -1, 7], dtype=np.int32))
    assert planned("greedy", coloured) == [0, 0, 0, 0]


def test_lookahead_keeps_memory_for_what_gains_most() -> None:
    # The first group saves 2 on device 1 and fills it; of the others, two fit and save 4 each.
    costs = make_costs(
        [[3.0, 1.0], *([[5.0, 1.0]] * 3)],
        {},
        group_bytes=np.array([4.0, 2.0, 2.0, 2.0]),
        memory_bytes=np.array([INF, 4.0]),
    )
    evaluator = CostsEvaluator(costs, "sequential")
    assert make_placer("greedy").place(evaluator, 10, 0).assignment == (1, 0, 0, 0)
    assert make_placer("lookahead").place(evaluator, 10, 0).assignment == (0, 1, 1, 0)


def test_lookahead_fills_one_device_before_the_next() -> None:
    # A chain on alike devices; greedily, the load grows least where nothing is yet.
    chain = {group: (0.25, [group + 1]) for group in range(5)}
    costs = make_costs([[1.0, 1.0]] * 6, chain, pays=np.ones(2, dtype=np.bool_))
    evaluator = CostsEvaluator(costs, "max_load")
    assert make_placer("lookahead").place(evaluator, 10, 0).assignment == (0, 0, 0, 1, 1, 1)
    assert make_placer("greedy").place(evaluator, 10, 0).time_s > evaluator.optimum()


def test_lookahead_moves_for_what_comes_later() -> None:
    # Each of the groups after the first saves 2 on device 1; the move there takes 4.
    chain = {group: (4.0, [group + 1]) for group in range(4)}
    evaluator = CostsEvaluator(make_costs([[1.0, 9.0], *([[3.0, 1.0]] * 4)], chain), "sequential")
    assert make_placer("greedy").place(evaluator, 10, 0).assignment == (0, 0, 0, 0, 0)
    assert make_placer("lookahead").place(evaluator, 10, 0).assignment == (0, 1, 1, 1, 1)


def test_m_etf_takes_what_starts_first() -> None:
    # 0 starts at 0 anywhere and ends first on device 0. Then 1 and 2 start there at 1, on
    # device 1 not before 3; 2 ends first. 1 starts at 2, and 3 has its inputs at 7.
    assert planned("m_etf", make_costs(COMPUTE, TENSORS)) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("memory", "colour", "expected"),
    [
        ((3.0, 4.0), (-1, -1, -1, -1), [0, 0, 0, 1]),  # full when 3 comes
        ((2.0, 4.0), (-1, -1, -1, -1), [0, 1, 0, 1]),
        ((1.0, 4.0), (9, -1, -1, 9), [1, 1, 1, 1]),  # 0 and 3 need 2; then 1 and 2 start on 1
        ((3.0, 4.0), (-1, 9, -1, 9), [0, 1, 0, 1]),  # after 0 and 2 there is no room for both
    ],
)
def test_m_etf_keeps_to_memory(
    memory: tuple[float, ...], colour: tuple[int, ...], expected: list[int]
) -> None:
    rules = {"memory_bytes": np.array(memory), "colour": np.array(colour, dtype=np.int32)}
    assert planned("m_etf", make_costs(COMPUTE, TENSORS, group_bytes=ONES, **rules)) == expected


def test_m_etf_keeps_to_shared_memory() -> None:
    pool = {"pool_devices": np.array([[True, False]]), "pool_bytes": np.array([3.0])}
    rules = {"group_bytes": ONES, **pool}
    assert planned("m_etf", make_costs(COMPUTE, TENSORS, **rules)) == [0, 0, 0, 1]
    third = [[*row, 1000.0] for row in COMPUTE]  # slow, but with memory of its own
    pool = {"pool_devices": np.array([[True, True, False]]), "pool_bytes": np.array([3.0])}
    found = planned("m_etf", make_costs(third, TENSORS, group_bytes=ONES, **pool))
    assert sum(device < 2 for device in found) == 3


def test_a_plan_for_too_little_memory_is_invalid() -> None:
    costs = make_costs(COMPUTE, TENSORS, group_bytes=ONES, memory_bytes=np.array([1.0, 1.0]))
    for name in ("heft", "m_etf", "greedy", "lookahead"):
        found = make_placer(name).place(CostsEvaluator(costs), 10, 0)
        assert (found.assignment, len(found.evaluations)) == ((), 1)
    assert make_placer("stages").place(CostsEvaluator(costs), 10, 0).evaluations == ()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 4))
def test_plans_keep_to_the_rules(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    colour = generator.integers(-1, 2, groups).astype(np.int32)
    rules = {"colour": colour, "group_bytes": np.ones(groups)}
    # One device has room for all, so that m-ETF never ends without.
    rules["memory_bytes"] = np.append(generator.integers(0, groups, devices - 1), groups)
    evaluator = CostsEvaluator(random_costs(generator, groups, devices, **rules))
    for name in ("m_etf", "stages"):
        found = make_placer(name).place(evaluator, 100, 0)
        assert found.assignment, name
        assert evaluator.optimum() <= found.time_s
    free = CostsEvaluator(random_costs(generator, groups, devices, colour=colour))
    for name in ("heft", "greedy", "lookahead"):
        assert make_placer(name).place(free, 100, 0).assignment


def test_automatic_takes_the_first_device_that_can() -> None:
    compute = [[1.0, 0.1, 0.1], [INF, INF, 1.0], [INF, 2.0, 0.1], [1.0, INF, 0.1]]
    assert planned("automatic", make_costs(compute, {})) == [0, 2, 1, 0]
    coloured = make_costs(compute, {}, colour=np.array([3, -1, 3, -1], dtype=np.int32))
    assert planned("automatic", coloured) == [1, 2, 1, 0]


def test_automatic_asks_openvino() -> None:
    evaluator = measured()
    found = make_placer("automatic").place(evaluator, 5, 0)
    assert found.assignment == (0,) * evaluator.coarse.num_groups
    coarse = evaluator.coarse
    computed = np.flatnonzero(~coarse.graph.is_constant)
    # The ops of the last group as on the second device, and a lone op of the first group.
    answer = dict.fromkeys(coarse.graph.op_names, "CPU")
    members = [op for op in computed if coarse.op_group[op] == coarse.num_groups - 1]
    answer |= {coarse.graph.op_names[op]: "CPU_F32" for op in (*members, computed[0])}
    core = SimpleNamespace(query_model=lambda model, device: answer)
    fake: Any = SimpleNamespace(
        call=lambda function, *args: function(core, None, *args),
        coarse=coarse,
        devices=evaluator.devices,
        costs=None,
    )
    alone = int((coarse.op_group[computed] == coarse.op_group[computed[0]]).sum()) == 1
    expected = [int(alone), *[0] * (coarse.num_groups - 2), 1]
    assert hetero_choice(fake, SearchSpace.of(fake)).tolist() == expected


@pytest.mark.parametrize("name", ["heft", "m_etf", "stages"])
def test_who_plans_from_costs_says_what_has_them(name: str) -> None:
    assert PLACERS[name].needs_costs
    for evaluator in (measured(), RecordingEvaluator(measured(), 5)):
        with pytest.raises(DevicePlacementError, match="OpenVINOEvaluator, which has no costs"):
            make_placer(name).place(evaluator, 5, 0)


def test_a_search_measures_where_there_are_no_costs() -> None:
    evaluator = measured()
    found = make_placer("local_search").place(evaluator, 5, 0)
    assert len(found.evaluations) == 5
    assert found.time_s == min(time_s for _, time_s in found.evaluations)
