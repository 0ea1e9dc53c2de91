"""Bounds of pipelines: below every placement, above the bound by loads, tight for chains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constrained import constrained_costs, valid_placements
from costs import make_costs
from device_placement.agents.placers.exact.pipeline_bounds import (
    block_bound,
    chain_bound,
    load_bound,
    pipeline_bound,
)
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.schedule import schedule_times

problems = st.builds(
    constrained_costs, st.integers(0, 2**31), groups=st.integers(2, 6), devices=st.integers(2, 4)
)


def row_of(times: list[float], devices: int, **changes: object) -> Costs:
    """Groups that each read from the one before, equally fast on all devices."""
    tensors = {group: (1.0, [group + 1]) for group in range(len(times) - 1)}
    return make_costs([[one] * devices for one in times], tensors, **changes)


@settings(max_examples=15)
@given(problems)
def test_no_valid_placement_is_below_a_bound(costs: Costs) -> None:
    valid = valid_placements(costs)
    if not valid:
        return
    times = schedule_times(costs, np.array(list(valid)), "pipelined")
    least_s = load_bound(costs)
    bound_s = pipeline_bound(costs, 5.0)
    assert least_s <= bound_s <= times.min() * (1 + 1e-9)
    if "acyclic" in costs.constraints:
        assert chain_bound(costs) <= bound_s


def test_chains_are_cut_whole() -> None:
    # An even share is 5, but no two neighbours take less than 6 together, and one has to be.
    costs = row_of([4.0, 2.0, 4.0], 2, constraints=("acyclic",))
    assert load_bound(costs) == 5.0
    assert chain_bound(costs) == pytest.approx(6.0, rel=1e-5)
    # With room for one group each, the last device gets the last two.
    full = row_of(
        [1.0, 1.0, 2.0, 2.0],
        3,
        constraints=("acyclic",),
        group_bytes=np.array([3.0, 3.0, 1.0, 1.0]),
        memory_bytes=np.array([3.0, 3.0, 3.0]),
    )
    assert load_bound(full) == 2.0
    assert chain_bound(full) == pytest.approx(4.0, rel=1e-5)


def test_blocks_see_that_groups_are_whole() -> None:
    # Three groups of 2 side by side, which no chain joins, on two devices.
    costs = make_costs([[2.0, 2.0]] * 3, {}, constraints=("acyclic",))
    assert load_bound(costs) == chain_bound(costs) == 3.0
    assert block_bound(costs, 0, 3.0, 5.0) == pytest.approx(4.0, rel=1e-3)


def test_data_that_goes_back_leaves_loads_only() -> None:
    assert pipeline_bound(row_of([4.0, 2.0, 4.0], 2)) == 5.0
