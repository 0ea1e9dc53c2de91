"""Walks over valid placements: they stay valid, and come no further from what is wanted."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from constrained import problems, valid_placements
from costs import make_costs
from device_placement.envs.costs import Costs
from device_placement.envs.repair.approach import approach, make_ground
from device_placement.envs.repair.frame import make_frame


@settings(max_examples=25)
@given(problems, st.integers(0, 2**31))
def test_walks_end_at_valid_placements_that_are_no_further_away(costs: Costs, seed: int) -> None:
    generator, valid = np.random.default_rng(seed), valid_placements(costs)
    ground, order = make_ground(make_frame(costs)), generator.permutation(costs.num_groups)
    wanted = generator.integers(costs.num_devices, size=costs.num_groups)
    for start in sorted(valid)[:5]:
        end = approach(ground, np.array(start), wanted, order, costs.num_devices, 3)
        assert tuple(end.tolist()) in valid
        assert (end == wanted).sum() >= (np.array(start) == wanted).sum()


def test_what_follows_moves_along() -> None:
    row = {0: (1.0, [1]), 1: (1.0, [2])}
    costs = make_costs([[1.0] * 3] * 3, row, constraints=("acyclic",))
    ground, wanted = make_ground(make_frame(costs)), np.array([2, 0, 2])
    end = approach(ground, np.array([0, 1, 1]), wanted, np.arange(3), 3, 3)
    assert end.tolist() in ([2, 2, 2], [0, 0, 2])
    assert (end == wanted).sum() == 2
