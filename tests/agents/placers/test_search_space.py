"""The placements that a placer may choose from, and where it begins."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costed import CostsEvaluator, coloured_and_small
from costs import random_costs
from device_placement.agents.placers.base import Trace
from device_placement.agents.placers.search_space import SearchSpace, first_choice
from device_placement.envs import DevicePlacementError
from scripted import twelve_groups_evaluator


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(2, 4))
def test_units_are_the_colours(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    colour = generator.integers(-1, 3, groups).astype(np.int32)
    costs = random_costs(generator, groups, devices, colour=colour)
    costs.compute_s[generator.random((groups, devices)) < 0.2] = math.inf
    evaluator = CostsEvaluator(costs)
    if evaluator.optimum() == math.inf:
        with pytest.raises(DevicePlacementError, match="which must share one"):
            SearchSpace.of(evaluator)
        return
    space = SearchSpace.of(evaluator)
    every = itertools.product(*(np.flatnonzero(row) for row in space.allowed))
    reached = {tuple(space.assignment(np.array(choice))) for choice in every}
    all_of_them = itertools.product(range(devices), repeat=groups)
    assert reached == {one for one in all_of_them if evaluator.evaluate(one).valid}
    assert (np.diff(np.unique(space.unit, return_index=True)[1]) > 0).all()
    for choice in space.sample(generator, 20):
        assert space.allowed[np.arange(space.num_units), choice].all()
        step = space.neighbour(choice, generator)
        assert (step != choice).sum() == (len(space.moves) > 0)
        assert space.allowed[np.arange(space.num_units), step].all()


def test_the_first_choice_is_the_best_single_or_the_first_that_runs() -> None:
    generator = np.random.default_rng(0)
    evaluator: Any = twelve_groups_evaluator()
    choice, time_s = first_choice(Trace(evaluator, 9), SearchSpace.of(evaluator), generator)
    assert (choice.tolist(), time_s) == ([0] * 12, evaluator.evaluate([0] * 12).time_s)
    evaluator = coloured_and_small(0)  # eight groups fit nowhere
    trace = Trace(evaluator, 100)
    choice, time_s = first_choice(trace, SearchSpace.of(evaluator), generator)
    assert all(math.isnan(one) for _, one in trace.result().evaluations[:3])
    assert math.isfinite(time_s)
    assert not trace.spent
