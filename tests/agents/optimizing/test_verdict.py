"""The verdict: bounds that are proven or found, ranges by the profile's error, and words."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from device_placement.agents.optimizing.profiling import (
    FittedProfile,
    fit_profile,
    with_schedule,
)
from device_placement.agents.optimizing.verdict import Prediction, Verdict, best_plan, judge
from device_placement.envs import make_evaluator
from device_placement.envs.simulation.profile import HardwareProfile
from given_profiles import given_costs
from optimized import as_it_is
from problems import measured

NONE = Prediction("dataflow", math.nan, math.nan, math.nan, False, "none would run beside another")


def verdict(hetero: Prediction, dataflow: Prediction = NONE, executor: str = "hetero") -> Verdict:
    return Verdict("OpenVINO AUTO", "all on GPU", 0.05, 16, (hetero, dataflow), executor)


def test_little_to_gain_is_not_worth_it() -> None:
    little = verdict(Prediction("hetero", 0.04, 0.0, 0.09, True))
    assert not little.promising
    assert little.summary == "predicted at most 4 % (0 to 9): not worth it, use all on GPU"
    assert "none would run beside another" in little.describe()
    assert "the profile's own error is 5 %" in little.describe()


def test_much_to_gain_is() -> None:
    much = verdict(Prediction("hetero", 0.5, 0.42, 0.6, True))
    assert much.promising
    assert much.summary == "up to 1.50x (1.42 to 1.60): continuing"


def test_a_rough_profile_rules_nothing_out() -> None:
    rough = verdict(Prediction("hetero", 0.0, 0.0, 0.4, True))
    assert rough.promising
    assert "too rough" in rough.summary
    unknown = verdict(Prediction("hetero", 0.0, 0.0, math.inf, True))
    assert unknown.promising
    assert "unknown" in unknown.summary
    assert unknown.to_json()["predictions"][0]["high"] is None


def test_another_executor_is_named_where_it_promises_more() -> None:
    other = Prediction("dataflow", 0.8, 0.7, 0.9, False)
    found = verdict(Prediction("hetero", 0.01, 0.0, 0.05, True), other)
    assert not found.promising
    assert found.summary.endswith("(or try --executor dataflow)")
    assert "by the best plan found" in found.describe()


def test_the_best_plan_is_the_known_optimum() -> None:
    simulator: Any = make_evaluator("inception_v3", evaluator="simulator", hardware="paper")
    plan, plan_s, bound_s = best_plan(simulator, seconds=20.0)
    assert plan_s == pytest.approx(0.010488, abs=1e-6)
    assert bound_s == pytest.approx(plan_s)
    assert simulator.evaluate(plan).time_s == pytest.approx(plan_s)


def fitted(error: float = 0.02, **changes: Any) -> FittedProfile:
    coarse, devices = measured().coarse, measured().devices
    profile = given_costs(coarse, 2)
    op_s = np.where(coarse.graph.is_constant[:, None], 0.0, 1e-3) * np.ones(2)
    profile = dataclasses.replace(profile, devices=devices, **({"op_s": op_s} | changes))
    return FittedProfile(profile, "sequential", error, 12)


def test_two_equal_devices_in_turn_have_nothing_to_gain() -> None:
    found = judge(measured(), as_it_is(measured()), fitted(), seconds=2.0)
    prediction = found.of_executor
    assert (prediction.gain, prediction.low) == (0.0, 0.0)
    assert prediction.high == pytest.approx(0.02)
    assert prediction.proven
    assert not found.promising
    assert "not worth it" in found.summary


def test_devices_that_are_good_at_different_ops_have() -> None:
    graph = measured().coarse.graph
    fast = np.arange(graph.num_ops) % 4 < 2
    op_s = np.where(fast[:, None], [1e-4, 1e-2], [1e-2, 1e-4])
    free = {"latency_s": np.zeros((2, 2)), "subgraph_s": np.zeros(2)}
    profile = fitted(op_s=np.where(graph.is_constant[:, None], 0.0, op_s), **free)
    faster = dataclasses.replace(
        profile,
        profile=dataclasses.replace(profile.profile, bytes_per_s=np.full((2, 2), np.inf)),
    )
    found = judge(measured(), as_it_is(measured()), faster, seconds=2.0)
    assert found.promising
    assert found.of_executor.gain > 0.4
    assert len(set(found.of_executor.plan)) == 2
    assert found.of_executor.bound_s > 0
    slow = as_it_is(measured(), AUTO=1e-3)  # AUTO is faster than all that placements promise
    assert not judge(measured(), slow, faster, seconds=2.0).promising


def test_a_fit_that_has_no_time_takes_the_fewest_placements_with_the_fewest_cuts() -> None:
    found = fit_profile(measured(), seed=0, deadline=0.0)
    assert len(found.tried) == found.num_placements - 2 == 4
    cuts = [sum(map(int.__ne__, one, one[1:])) for one in found.tried]
    assert cuts == sorted(cuts)
    assert found.knows_transfers
    assert found.profile.provenance["num_held_out"] == 1


def test_a_profile_under_the_other_executor_keeps_its_costs(tmp_path: Any) -> None:
    one = fitted()
    regions = dataclasses.replace(one.profile, region_s=np.array([1.0, 2.0]))
    other = with_schedule(dataclasses.replace(one, profile=regions), "hetero")
    assert other.profile.subgraph_s.tolist() == [1.0, 2.0]
    assert with_schedule(one, "dataflow").schedule == "dataflow"
    one.save(tmp_path / "profile.json")
    again = FittedProfile.load(tmp_path / "profile.json", measured())
    assert (again.schedule, again.error, again.num_placements) == ("sequential", 0.02, 12)
    assert isinstance(again.profile, HardwareProfile)
