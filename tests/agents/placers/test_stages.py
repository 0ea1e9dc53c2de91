"""Contiguous stages, cut by hand and against every other cut."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costed import CostsEvaluator
from costs import make_costs
from device_placement.agents.placers import make_placer
from device_placement.agents.placers.stages import cut

INF = math.inf


@pytest.mark.parametrize(
    ("compute", "order", "expected"),
    [
        ([[1.0] * 2, [2.0] * 2, [3.0] * 2, [4.0] * 2, [2.0] * 2], (0, 1), [0, 0, 0, 1, 1]),
        ([[1.0] * 2, [2.0] * 2, [3.0] * 2, [4.0] * 2, [2.0] * 2], (1, 0), [1, 1, 1, 0, 0]),
        ([[2.0, 1.0]] * 3, (0, 1), [0, 1, 1]),  # 2 and 2
        ([[2.0, 1.0]] * 3, (0,), [0, 0, 0]),
        ([[1.0, 1.0], [1.0, INF], [1.0, 1.0], [INF, 1.0]], (0, 1), [0, 0, 1, 1]),
        ([[INF, 1.0], [1.0, INF]], (0, 1), None),
        ([[INF, 1.0], [1.0, INF]], (1, 0), [1, 0]),
        ([[1.0, 1.0, 1.0]] * 4, (2, 0, 1), [2, 2, 0, 0]),  # two are as good as three
    ],
)
def test_stages_are_alike(
    compute: list[list[float]], order: tuple[int, ...], expected: list[int] | None
) -> None:
    costs = np.array(compute)
    found = cut(costs, np.zeros(len(costs)), np.full(costs.shape[1], INF), order)
    assert (None if found is None else found.tolist()) == expected


def test_stages_fit_into_memory() -> None:
    sizes, memory = np.array([1.0, 1.0, 1.0, 5.0]), np.array([2.0, 6.0])
    assert cut(np.ones((4, 2)), sizes, memory, (0, 1)) == pytest.approx([0, 0, 1, 1])
    memory = np.array([1.0, 6.0])
    assert cut(np.ones((4, 2)), sizes, memory, (0, 1)) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_no_other_cut_is_better(seed: int, units: int) -> None:
    generator = np.random.default_rng(seed)
    compute = generator.integers(0, 9, (units, 3)).astype(np.float64)
    compute[generator.random(compute.shape) < 0.1] = INF
    sizes, memory = generator.integers(1, 4, units).astype(np.float64), np.array([9.0, INF, 6.0])
    order = generator.permutation(3).tolist()
    loads = [
        max(compute[begin:end, device].sum() for device, begin, end in stages)
        for first in range(units + 1)
        for second in range(first, units + 1)
        for stages in [list(zip(order, (0, first, second), (first, second, units), strict=True))]
        if all(sizes[begin:end].sum() <= memory[device] for device, begin, end in stages)
    ]
    best = min(loads, default=INF)
    found = cut(compute, sizes, memory, order)
    assert (found is None) == (best == INF)
    if found is not None:
        load = [compute[found == device, device].sum() for device in range(3)]
        assert max(load) == best


def test_the_best_of_all_orders_is_kept() -> None:
    # A cut moves 9 bytes, so one after the other a single is fastest. In a pipeline no cut is
    # below 6; the first stage takes all it can.
    costs = make_costs([[3.0, 2.0]] * 4, {group: (9.0, [group + 1]) for group in range(3)})
    found = make_placer("stages").place(CostsEvaluator(costs, "sequential"), 20, 0)
    assert found.assignment == (1, 1, 1, 1)
    asked = [assignment for assignment, _ in found.evaluations]
    assert asked == [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 1, 1, 0)]
    costs = make_costs([[3.0, 2.0]] * 4, {group: (1.0, [group + 1]) for group in range(3)})
    found = make_placer("stages").place(CostsEvaluator(costs, "pipelined"), 20, 0)
    assert found.time_s == 6.0
    few = make_placer("stages", max_orders=3).place(CostsEvaluator(costs, "pipelined"), 20, 0)
    assert [one for one, _ in few.evaluations] == [(1, 1, 1, 1), (1, 1, 1, 0)]
    one = make_placer("stages", max_orders=1).place(CostsEvaluator(costs, "pipelined"), 20, 0)
    assert [choice for choice, _ in one.evaluations] == [(1, 1, 1, 1)]
    assert len(make_placer("stages").place(CostsEvaluator(costs), 3, 0).evaluations) == 3
