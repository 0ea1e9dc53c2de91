"""Cost features: equal to their definitions, and renumbered with the groups and devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costed import CostsEvaluator
from costs import make_costs, random_costs
from device_placement.envs.cost_features import KnownCosts, PartialFeatures, cost_arrays
from device_placement.envs.costs import Costs
from device_placement.envs.observation import (
    DEVICE_COSTS,
    EDGE_COSTS,
    GRAPH_COSTS,
    GROUP_COSTS,
    GROUP_DEVICE_COSTS,
    LIMIT,
    PARTIAL_SCHEDULE,
    Layout,
)
from device_placement.envs.simulation.partial_schedule import TIMINGS
from partial_plainly import plain_features

ROW = np.array([0])
IN_RUNS = GROUP_DEVICE_COSTS.index(
    "time of the group and of all after it in runs, over the least: sl(excess / m)"
)


def limited(seed: int, groups: int, devices: int) -> Costs:
    """Random costs with memory limits, a pool, and groups that some devices don't run."""
    generator = np.random.default_rng(seed)
    costs = random_costs(
        generator,
        groups,
        devices,
        group_bytes=generator.integers(0, 5, groups).astype(float),
        memory_bytes=np.where(generator.random(devices) < 0.5, 2.0 * groups, np.inf),
        pool_devices=np.ones((1, devices), dtype=np.bool_),
        pool_bytes=np.array([3.0 * groups]),
        pays=generator.random(devices) < 0.7,
    )
    lacks = generator.random((groups, devices)) < 0.2
    lacks[:, 0] = False
    costs.compute_s[lacks] = np.inf
    return costs


@pytest.mark.parametrize("schedule", TIMINGS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16))
def test_partial_features_equal_their_definitions(schedule: str, seed: int) -> None:
    costs = limited(seed, 6, 3)
    partial = PartialFeatures([KnownCosts(costs, schedule)], num_rows=1)
    generator = np.random.default_rng(seed)
    placed: list[int] = []
    seen = partial.begin(ROW, ROW)
    for group in range(costs.num_groups):
        for values, expected in zip(seen[0], plain_features(costs, schedule, placed), strict=True):
            np.testing.assert_allclose(
                values, np.zeros(len(PARTIAL_SCHEDULE)) if expected is None else expected, atol=1e-5
            )
        placed.append(int(generator.choice(np.flatnonzero(np.isfinite(costs.compute_s[group])))))
        seen = partial.place(ROW, np.array(placed[-1:]))
    assert not seen.any()


def arrays_of(costs: Costs, schedule: str = "concurrent") -> dict[str, np.ndarray]:
    coarse = CostsEvaluator(costs, schedule).coarse
    layout = Layout.of([coarse], 1, costs.num_devices, costs=True)
    arrays = cost_arrays(KnownCosts(costs, schedule), coarse, layout)
    pairs = arrays["group_device_costs"]
    assert pairs.shape == (costs.num_groups * costs.num_devices, len(GROUP_DEVICE_COSTS))
    arrays["group_device_costs"] = pairs.reshape(costs.num_groups, costs.num_devices, -1)
    return arrays


def test_features_of_a_diamond_worked_by_hand() -> None:
    compute = [[1.0, 2.0], [5.0, 1.0], [1.0, np.inf], [1.0, 2.0]]
    tensors = {0: (2.0, [1, 2]), 1: (3.0, [3]), 2: (1.0, [3])}
    costs = make_costs(compute, tensors, group_bytes=np.array([1.0, 3.0, 0.0, 0.0]))
    found = arrays_of(costs)
    # S = 1 + 1 + 1 + 1, m = 1; mean times are 1.5, 3, 1 and 1.5; moves are 2, 3 and 1. In runs, the
    # device 0 takes 5 + 1 + 1; the other takes 1, both tensors move, and the rest is 1 + 1.
    np.testing.assert_allclose(
        found["group_device_costs"][1],
        [[1, np.log(6), np.log(5), np.log(3), 0], [1, np.log(2), 0, -np.log(3), np.log(2)]],
        rtol=1e-6,
    )
    assert found["group_device_costs"][2, 1].tolist() == [0] * len(GROUP_DEVICE_COSTS)
    np.testing.assert_allclose(
        found["group_costs"][3],
        [np.log(2), (1.5 + 1 + 3 + 1.5) / 4, 1.5 / 4, 2 / 4, 1 / 4, np.log(5), 0, 0, 1],
        rtol=1e-6,
    )
    # The edges 0 to 1, 0 to 2, 1 to 3, 2 to 3.
    np.testing.assert_allclose(
        found["edge_costs"],
        [
            [np.log(3), 0.5, 1, 0],
            [np.log(3), 0.5, 1, 1],
            [np.log(4), 1, 0.5, 1],
            [np.log(2), 1, 0.5, 0],
        ],
        rtol=1e-6,
    )
    # On device 0 all groups take 8, on device 1 they take 6: the third counts with its mean.
    np.testing.assert_allclose(
        found["device_costs"],
        [
            [np.log(8 / 4), np.log(8 / 6), 0, 1, 0, 1, np.log(3), np.log(3)],
            [np.log(6 / 4), 0, 0.25, 1, 0, 0, np.log(3), np.log(3)],
        ],
        rtol=1e-6,
    )
    assert found["graph_costs"][-5:].tolist() == [0, 1, 0, 0, 0]
    assert found["costs_known"].tolist() == [1, 1]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(3)))
def test_renumbered_devices_have_renumbered_features(seed: int, order: list[int]) -> None:
    costs = limited(seed, 6, 3)
    # No two devices are equally fast: of those the rules of what is reached take the first.
    costs.compute_s[:] += np.random.default_rng(seed).random(costs.compute_s.shape)
    both = np.ix_(order, order)
    other = replace(
        costs,
        compute_s=costs.compute_s[:, order],
        latency_s=costs.latency_s[both],
        s_per_byte=costs.s_per_byte[both],
        memory_bytes=costs.memory_bytes[order],
        pool_devices=costs.pool_devices[:, order],
        pays=costs.pays[order],
    )
    one, two = arrays_of(costs), arrays_of(other)
    for key in ("group_costs", "edge_costs", "graph_costs"):
        np.testing.assert_allclose(one[key], two[key], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        one["group_device_costs"][:, order], two["group_device_costs"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        one["device_costs"][order], two["device_costs"], rtol=1e-5, atol=1e-6
    )
    partial = [PartialFeatures([KnownCosts(each, "max_load")], 1) for each in (costs, other)]
    seen, renumbered = (each.begin(ROW, ROW) for each in partial)
    for group in range(costs.num_groups):
        np.testing.assert_allclose(seen[:, order], renumbered, rtol=1e-5, atol=1e-6)
        device = int(np.flatnonzero(np.isfinite(costs.compute_s[group]))[-1])
        seen = partial[0].place(ROW, np.array([device]))
        renumbered = partial[1].place(ROW, np.array([order.index(device)]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16))
def test_renumbered_groups_have_renumbered_features(seed: int) -> None:
    """Two copies of a graph side by side, numbered one after the other or in turns."""
    generator = np.random.default_rng(seed)
    half = random_costs(generator, 4, 2)
    readers = {
        int(half.tensor_group[tensor]): (half.tensor_bytes[tensor], half.readers(tensor).tolist())
        for tensor in range(half.num_tensors)
    }
    links = {"latency_s": half.latency_s, "s_per_byte": half.s_per_byte}
    work = generator.integers(1, 9, (8, 2)).astype(float)
    new = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # number in turns of each group of the first graph
    tensors = {}
    for base in (0, 4):
        for producer, (size, ends) in readers.items():
            tensors[base + producer] = (float(size), [base + end for end in ends])
    renamed = {
        int(new[producer]): (size, [int(new[end]) for end in ends])
        for producer, (size, ends) in tensors.items()
    }
    moved = np.empty_like(work)
    moved[new] = work
    found = arrays_of(make_costs(work, tensors, **links))
    renumbered = arrays_of(make_costs(moved, renamed, **links))
    for key in ("graph_costs", "device_costs"):
        np.testing.assert_allclose(found[key], renumbered[key], rtol=1e-5, atol=1e-6)
    for one in (found, renumbered):  # which groups are in a run depends on their order
        one["group_device_costs"][..., IN_RUNS] = 0.0
    for key in ("group_costs", "group_device_costs"):
        np.testing.assert_allclose(found[key], renumbered[key][new], rtol=1e-5, atol=1e-6)


def test_each_column_has_a_description() -> None:
    found = arrays_of(random_costs(np.random.default_rng(0), 6, 3))
    widths = {
        "group_device_costs": GROUP_DEVICE_COSTS,
        "group_costs": GROUP_COSTS,
        "edge_costs": EDGE_COSTS,
        "device_costs": DEVICE_COSTS,
        "graph_costs": GRAPH_COSTS,
    }
    for key, columns in widths.items():
        assert found[key].shape[-1] == len(columns)


@pytest.mark.parametrize("schedule", TIMINGS)
def test_a_model_that_computes_nothing_has_finite_features(schedule: str) -> None:
    for bytes_ in (0.0, 4.0):
        costs = make_costs([[0.0, 0.0]] * 3, {0: (bytes_, [1, 2])})
        arrays = arrays_of(costs, schedule)
        assert all((np.abs(array) < LIMIT).all() for array in arrays.values())
        partial = PartialFeatures([KnownCosts(costs, schedule)], num_rows=1)
        for device in (0, 1, 0):
            assert np.isfinite(partial.place(ROW, np.array([device]))).all()


def test_a_device_that_does_not_run_the_group_leaves_finite_features() -> None:
    costs = limited(3, 6, 3)
    costs.compute_s[:, 1] = np.inf
    partial = PartialFeatures([KnownCosts(costs, "concurrent")], num_rows=1)
    for _ in range(5):
        assert np.isfinite(partial.place(ROW, np.array([1]))).all()
