"""Environments that show costs: where they come from, and the partial schedule step by step."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from costed import CostsEvaluator, coloured_and_small
from costs import random_costs
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    HardwareProfile,
    PlacementError,
    make_evaluator,
)
from device_placement.envs.cost_features import KnownCosts, PartialFeatures, cost_arrays
from device_placement.envs.known_costs import find_costs
from device_placement.envs.profiling.measured_profile import profile_runs
from given_profiles import given_costs
from problems import QUICK, TWO_CPUS, measured
from scripted import twelve_groups_evaluator

ROW = np.array([0])


def random_evaluator(seed: int = 0) -> CostsEvaluator:
    return CostsEvaluator(random_costs(np.random.default_rng(seed), 6, 3), "concurrent")


def test_an_episode_shows_the_partial_schedule() -> None:
    evaluator = random_evaluator()
    env = DevicePlacementEnv(evaluator=evaluator, formulation="construct", costs="profile")
    known = KnownCosts(evaluator.costs, "concurrent")
    partial = PartialFeatures([known], num_rows=1)
    for _ in range(2):
        observation, _ = env.reset(seed=0)
        expected = partial.begin(ROW, ROW)
        for device in (0, 1, 2, 1, 0, 2):
            np.testing.assert_array_equal(observation["partial_schedule"], expected[0])
            observation, *_ = env.step(device)
            expected = partial.place(ROW, np.array([device]))
        assert not observation["partial_schedule"].any()
    for key, array in cost_arrays(known, evaluator.coarse, env.layout).items():
        np.testing.assert_array_equal(observation[key], array)


@pytest.mark.parametrize("formulation", ["assign", "refine"])
def test_only_construct_has_a_partial_schedule(formulation: str) -> None:
    env = DevicePlacementEnv(evaluator=random_evaluator(), formulation=formulation, costs="profile")
    assert "group_device_costs" in env.observation_space.spaces
    assert "partial_schedule" not in env.observation_space.spaces


def test_a_snapshot_in_the_middle_restores_the_partial_schedule() -> None:
    settings = {"formulation": "construct", "costs": "profile"}
    evaluators = [random_evaluator(), random_evaluator(1)]
    env = DevicePlacementEnv(evaluator=evaluators, **settings)
    env.reset(options={"graph_id": 1})
    for device in (2, 1, 1):
        observation, *_ = env.step(device)
    kept = json.loads(json.dumps(env.snapshot()))
    after = env.step(0)[0]
    other = DevicePlacementEnv(evaluator=evaluators, **settings)
    for restored, expected in ((other.restore(kept), observation), (other.step(0)[0], after)):
        for key, array in expected.items():
            np.testing.assert_array_equal(restored[key], array)


def test_one_run_per_device_tells_the_times_of_groups() -> None:
    evaluator = measured()
    known = find_costs(evaluator)
    assert not known.knows_transfers
    assert known.schedule == "sequential"
    assert find_costs(evaluator).costs.compute_s.tolist() == known.costs.compute_s.tolist()  # kept
    singles_s = known.costs.compute_s.sum(axis=0)
    for device in range(2):
        time_s = evaluator.evaluate([device] * evaluator.coarse.num_groups).time_s
        assert singles_s[device] == pytest.approx(time_s, rel=1e-6)


def test_a_measured_environment_takes_a_profile(tmp_path: Path) -> None:
    evaluator = measured()
    profile = given_costs(evaluator.coarse, 2)
    path = tmp_path / "profile.json"
    profile.save(path)
    for given in (profile, path):
        env = DevicePlacementEnv(
            "diamond", TWO_CPUS, formulation="construct", costs="profile", profile=given, **QUICK
        )
        observation, _ = env.reset(seed=0)
        expected = cost_arrays(find_costs(env.evaluator, profile), env.coarse, env.layout)
        for key, array in expected.items():
            np.testing.assert_array_equal(observation[key], array)
        assert observation["costs_known"].tolist() == [1, 1]
        env.close()


def test_a_profile_of_another_model_is_refused() -> None:
    evaluator = measured()
    other = make_evaluator("two_towers", TWO_CPUS, evaluator="simulator", max_groups=6)
    profile = given_costs(other.coarse, 2)
    with pytest.raises(PlacementError, match=r"is of 'two_towers'.*profile this model with"):
        find_costs(evaluator, profile)


def test_a_profile_without_a_device_is_refused() -> None:
    evaluator = measured()
    profile = given_costs(evaluator.coarse, 2).select(["CPU"])
    with pytest.raises(DevicePlacementError, match="Unknown device of 'given' 'CPU_F32'"):
        find_costs(evaluator, profile)


def test_a_profile_needs_costs_that_are_shown() -> None:
    profile = given_costs(measured().coarse, 2)
    with pytest.raises(DevicePlacementError, match="costs='profile'"):
        DevicePlacementEnv("diamond", TWO_CPUS, profile=profile, **QUICK)


def test_an_evaluator_without_costs_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match="neither measures nor has costs"):
        DevicePlacementEnv(evaluator=twelve_groups_evaluator(), costs="profile")


def test_what_agents_see_is_what_is_simulated() -> None:
    evaluator = coloured_and_small(0)
    known = find_costs(evaluator)
    assert known.costs is evaluator.costs
    assert (known.schedule, known.knows_transfers) == ("concurrent", True)


def test_singles_that_did_not_run_leave_their_times() -> None:
    profile = profile_runs(measured())
    assert isinstance(profile, HardwareProfile)
    assert profile.provenance["kind"] == "measured"
