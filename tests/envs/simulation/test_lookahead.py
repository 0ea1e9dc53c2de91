"""Estimates of what a choice leaves: bounds on all that can follow it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from costs import make_costs, random_costs
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.lookahead import RestArrays, bind, look_ahead
from device_placement.envs.simulation.partial_schedule import PartialSchedules

ROW = np.array([0])


def alike(seed: int, groups: int, devices: int) -> Costs:
    """Random costs of devices in a row that are equally fast, where data moves for nothing."""
    costs = random_costs(np.random.default_rng(seed), groups, devices)
    return dataclasses.replace(
        costs,
        compute_s=np.repeat(costs.compute_s[:, :1], devices, axis=1),
        latency_s=np.zeros((devices, devices)),
        s_per_byte=np.zeros((devices, devices)),
        constraints=("acyclic",),
    )


def end_s(costs: Costs, placed: list[int]) -> list[float]:
    """Estimated end of all groups, for the next group on each device."""
    partial = PartialSchedules([costs], ["pipelined"], num_rows=1)
    outlook = partial.look(ROW)
    for device in placed:
        outlook = partial.place(ROW, np.array([device]))
    found: list[float] = partial.ahead(ROW, outlook).end_s[0].tolist()
    return found


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**16), groups=st.integers(2, 6), devices=st.integers(2, 3))
def test_nothing_that_follows_ends_before_the_estimate(
    seed: int, groups: int, devices: int
) -> None:
    costs = alike(seed, groups, devices)
    generator = np.random.default_rng(seed)
    placed = [0] * generator.integers(groups)
    estimates = end_s(costs, placed)
    free = end_s(dataclasses.replace(costs, constraints=()), placed)
    assert all(bound >= one - 1e-9 for bound, one in zip(estimates, free, strict=True))
    for rest in itertools.product(range(devices), repeat=groups - len(placed)):
        device = np.array([*placed, *rest])
        if (device[costs.edges[0]] <= device[costs.edges[1]]).all():
            loads = np.bincount(device, costs.compute_s[:, 0])
            assert loads.max() >= estimates[rest[0]] - 1e-6


def test_what_follows_a_higher_device_does_not_go_back() -> None:
    costs = make_costs(
        [[1.0] * 3] * 4, {0: (0.0, [1]), 1: (0.0, [2]), 2: (0.0, [3])}, constraints=("acyclic",)
    )
    np.testing.assert_allclose(end_s(costs, []), [4 / 3, 2.0, 4.0])
    # The next group may not go to the first device at all; that is not for an estimate to say.
    np.testing.assert_allclose(end_s(costs, [1])[1:], [2.0, 3.0])


def test_compiled_and_plain_python_agree() -> None:
    partial = PartialSchedules([alike(3, 9, 3)], ["pipelined"], num_rows=1)
    for device in (0, 1, 0):
        partial.place(ROW, np.array([device]))
    outlook = partial.place(ROW, np.array([2]))
    arrays = partial._costs, partial._state, partial._table.rows(RestArrays), ROW
    ends = []
    for bound_by, look in ((bind, look_ahead), (bind.__wrapped__, look_ahead.__wrapped__)):  # type: ignore[attr-defined]
        bound, result = np.zeros((1, 3, 2)), np.zeros((1, 3, 2))
        bound_by(*arrays, bound)
        look(*arrays, outlook.values, bound, result)
        assert bound.sum() > 0.99
        ends.append(result)
    np.testing.assert_array_equal(*ends)
