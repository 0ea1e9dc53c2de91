"""A budget that ends with the time, or at a bound."""

from __future__ import annotations

import math
import time

from device_placement.agents.optimizing.clock import Clock, TimedBudget


def test_a_budget_ends_with_its_time_or_its_bound() -> None:
    assert not TimedBudget(deadline=math.inf).spent
    assert TimedBudget(deadline=time.monotonic()).spent
    assert TimedBudget(deadline=math.inf, bound_reached=True).spent
    few = TimedBudget(deadline=math.inf, num_possible=2)
    few.count(improves=True)
    assert not few.spent
    few.count(improves=False)
    assert few.spent


def test_a_clock_knows_what_is_left() -> None:
    clock = Clock(1000.0)
    assert 0 <= clock.elapsed_s < 1000
    assert 0 < clock.left_s <= 1000
    assert Clock(0.0).left_s == 0
