"""The schedule `dataflow`: known answers, and regions that are those of the executor."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs  # noqa: F401  # no deadlines
from costs import costs_with_ends, make_costs, random_costs
from dataflow_plainly import dataflow_plainly, regions_plainly
from device_placement.envs import coarsen, load_model, make_evaluator, read_graph
from device_placement.envs.costs import Costs, without_times
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.profiling.random_placements import draw_placements
from device_placement.envs.simulation.region_kernels import WORDS
from device_placement.envs.simulation.schedule import count_parts, find_roots, schedule_times
from device_placement.envs.simulation.simulator import SimulatedEvaluator

# A diamond: 0 feeds 1 and 2 with 2 bytes, 1 feeds 3 with 3 bytes, 2 feeds 3 with 1 byte.
COMPUTE = [[1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]]
TENSORS = {0: (2.0, [1, 2]), 1: (3.0, [3]), 2: (1.0, [3])}


def time_of(costs: Costs, placement: list[int]) -> float:
    return float(schedule_times(costs, np.array([placement]), "dataflow")[0])


def regions_of(costs: Costs, placement: list[int]) -> list[int]:
    return find_roots(costs, np.array([placement], np.uint8).T)[0].tolist()


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ([0, 0, 0, 0], 8.0),
        # 0 ends at 1, its tensor is on device 1 at 3, 1 ends there at 4 and is back at 7; 2 ends
        # at 2 on device 0.
        ([0, 1, 0, 0], 8.0),
        # 1 and 2 are two regions, as the tensors after them differ. 2 has the longer path, so it
        # runs from 3 to 8 and 1 to 9; the tensor of 1 is back at 12.
        ([0, 1, 1, 0], 13.0),
    ],
)
def test_the_diamond_by_hand(placement: list[int], expected: float) -> None:
    assert time_of(make_costs(COMPUTE, TENSORS), placement) == expected


def test_what_regions_and_crossing_tensors_cost_is_work_of_the_device() -> None:
    costs = make_costs(
        COMPUTE,
        TENSORS,
        region_s=np.array([10.0, 20.0]),
        crossing_s=np.array([100.0, 200.0]),
    )
    assert time_of(costs, [0, 0, 0, 0]) == 8 + 10
    # 0 takes 111, and its tensor, which two regions read, is on device 1 at 113. 1 takes 221 and
    # is back at 337. 2 is alone on device 0, and its tensor leaves it, too. 3 takes 11.
    assert regions_of(costs, [0, 1, 0, 0]) == [0, 1, 2, 3]
    assert time_of(costs, [0, 1, 0, 0]) == 337 + 11
    none = without_times(costs)
    assert time_of(none, [0, 1, 0, 0]) == 0


def test_two_towers_run_side_by_side() -> None:
    # Two chains of three groups and two seconds each, joined by a last group.
    tensors = {0: (1.0, [2]), 1: (1.0, [3]), 2: (1.0, [4]), 3: (1.0, [5]), 4: (1.0, [6])}
    costs = make_costs([[2.0, 2.0]] * 7, tensors | {5: (1.0, [6])})
    assert time_of(costs, [0] * 7) == 14
    assert time_of(costs, [0, 1, 0, 1, 0, 1, 0]) == 6 + 1 + 2
    assert regions_of(costs, [0, 1, 0, 1, 0, 1, 0]) == [0, 1, 0, 1, 0, 1, 6]


def test_a_chain_takes_turns() -> None:
    costs = make_costs([[1.0, 3.0]] * 5, {one: (2.0, [one + 1]) for one in range(4)})
    assert time_of(costs, [0, 0, 1, 1, 0]) == 2 + 2 + 6 + 2 + 1
    assert regions_of(costs, [0, 0, 1, 1, 0]) == [0, 0, 2, 2, 4]


def test_a_device_takes_the_region_with_the_longest_path_first() -> None:
    # 0 and 1 are ready at once on device 0; only 1 is read on device 1, by the long group 2.
    costs = make_costs([[3.0, 3.0], [1.0, 1.0], [9.0, 9.0]], {1: (1.0, [2])})
    assert time_of(costs, [0, 0, 1]) == 1 + 1 + 9
    # It does not wait for one that is more urgent and comes later: 3 reads from 2, and is alone.
    costs = make_costs([[4.0, 4.0], [0.5, 0.5], [1.0, 1.0], [9.0, 9.0]], {2: (0.5, [3])})
    assert time_of(costs, [0, 0, 1, 0]) == max(4 + 9, 4 + 9 + 0.5)


def test_inputs_and_outputs_move_but_separate_nothing() -> None:
    # A Parameter feeds 1 and 2; 1 feeds 3; a Result, group 4, and one in group 2 read 3's tensor.
    costs = make_costs(
        [[0.0, 0.0], [2.0, 2.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]],
        {0: (5.0, [1, 2]), 1: (1.0, [3]), 3: (7.0, [4])},
        region_s=np.array([1.0, 1.0]),
        is_input=np.array([True, False, False]),
        is_output=np.array([False, False, False, True]),
        is_idle=np.array([True, False, False, False, True]),
    )
    column = np.array([[0, 1, 0, 1, 0]], np.uint8).T
    assert regions_of(costs, [0, 1, 0, 1, 0]) == [0, 1, 2, 1, 4]
    assert count_parts(costs, column, "dataflow").tolist() == [2]
    assert time_of(costs, [0, 1, 0, 1, 0]) == 5 + (4 + 1) + 7  # both moves, and one region
    assert time_of(costs, [0] * 5) == 5 + 2  # group 2 shares nothing with 1 but the Parameter


@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 5))
def test_many_at_once_are_each_as_the_events_say(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    costs = costs_with_ends(generator, groups, devices)
    placements = generator.integers(0, devices, (70, groups))
    times = schedule_times(costs, placements, "dataflow")
    for row in (0, 1, 63, 64, 69):
        assert times[row] == dataflow_plainly(costs, placements[row].tolist())
        assert times[row] == time_of(costs, placements[row].tolist())


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_single_takes_its_compute_and_its_regions(seed: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    costs = costs_with_ends(generator, 12, devices)
    for device in range(devices):
        placement = [device] * 12
        column = np.array([placement], np.uint8).T
        (parts,) = count_parts(costs, column, "dataflow")
        expected = costs.compute_s[:, device].sum() + parts * costs.region_s[device]
        assert time_of(costs, placement) == expected


def test_more_tensors_cross_than_one_pass_compares() -> None:
    generator = np.random.default_rng(0)
    groups = 3 * 64 * WORDS
    costs = random_costs(generator, groups, 3)
    placements = np.repeat(generator.integers(0, 3, (4, groups // 4)), 4, axis=1)
    for placement in (*placements, generator.integers(0, 3, groups)):
        region = regions_plainly(costs, placement.tolist())
        first: dict[int, int] = {}
        expected = [first.setdefault(one, group) for group, one in enumerate(region)]
        assert regions_of(costs, placement.tolist()) == expected


def test_who_can_not_run_a_group_takes_for_ever() -> None:
    costs = make_costs([[1.0, np.inf], [1.0, 1.0]], {0: (1.0, [1])})
    assert time_of(costs, [1, 0]) == np.inf
    assert time_of(costs, [0, 1]) == 3


def planned(model: ov.Model, coarse: CoarseGraph, placement: list[int]) -> list[frozenset[str]]:
    """The ops of each region that the executor runs."""
    names, groups = coarse.graph.op_names, coarse.op_group.tolist()
    devices = {
        name: f"device {placement[group]}" for name, group in zip(names, groups, strict=True)
    }
    regions = plan_regions(model, devices, dict(zip(names, groups, strict=True)))
    return sorted((frozenset(one.op_names) for one in regions), key=sorted)


def scheduled(costs: Costs, coarse: CoarseGraph, placement: list[int]) -> list[frozenset[str]]:
    """The ops of each region of the schedule that compute."""
    root = regions_of(costs, placement)
    found: dict[int, set[str]] = {}
    graph = coarse.graph
    for op, group in enumerate(coarse.op_group.tolist()):
        if not graph.is_constant[op] and graph.op_types[op] not in ("Parameter", "Result"):
            found.setdefault(root[group], set()).add(graph.op_names[op])
    return sorted((frozenset(one) for one in found.values()), key=sorted)


def two_inputs_and_outputs() -> ov.Model:
    """Inputs that several ops and a Result read, and an output that ops read, too."""
    x, y = (ops.parameter([2], np.float32, name=name) for name in "xy")
    one, other = ops.relu(x), ops.tanh(x)
    two = ops.add(one, y)
    end = ops.multiply(ops.exp(two), other)
    return ov.Model([end, two, x, ops.sigmoid(y)], [x, y], "ends")


@pytest.mark.parametrize(
    ("model", "coarsening"),
    [("diamond", "none"), ("diamond", "fusion"), ("ends", "none"), ("inception_v3", "fusion")],
)
def test_regions_are_those_that_the_executor_runs(model: str, coarsening: str) -> None:
    loaded = two_inputs_and_outputs() if model == "ends" else load_model(model)
    if model == "ends":
        loaded = load_model(loaded)
    graph = read_graph(loaded, "CPU,GPU", simulated=True)
    coarse = coarsen(graph, coarsening)
    evaluator = SimulatedEvaluator(coarse, "CPU,GPU", schedule="dataflow")
    generator = np.random.default_rng(0)
    singles = [(0,) * coarse.num_groups, (1,) * coarse.num_groups]
    for placement in [*singles, *draw_placements(coarse, 12, generator)]:
        found = scheduled(evaluator.costs, coarse, list(placement))
        assert found == planned(loaded, coarse, list(placement))
        assert evaluator.evaluate(placement).num_subgraphs == len(found)


def test_a_single_of_a_model_takes_as_long_as_in_turn() -> None:
    problem = {"model": "inception_v3", "devices": "CPU,GPU", "evaluator": "simulator"}
    flowing, in_turn = (
        make_evaluator(**problem, schedule=schedule) for schedule in ("dataflow", "sequential")
    )
    for device in range(2):
        single = [device] * flowing.coarse.num_groups
        expected = pytest.approx(in_turn.evaluate(single).time_s)
        assert flowing.evaluate(single).time_s == expected
