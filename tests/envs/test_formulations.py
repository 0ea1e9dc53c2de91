from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.envs import DeviceError, DevicePlacementEnv, Evaluation, PlacementError
from device_placement.envs.episode import PENALTY_FACTOR
from problems import measured
from scripted import ScriptedEvaluator, twelve_groups_evaluator


class Picky(ScriptedEvaluator):
    """Refuses every placement in which group 1 is on device 1 and group 0 is not."""

    def evaluate(self, assignment: Any) -> Evaluation:
        if assignment[1] == 1 and assignment[0] == 0:
            return Evaluation.invalid("group 1 does not run there")
        return super().evaluate(assignment)


def scripted(**arguments: Any) -> DevicePlacementEnv:
    return DevicePlacementEnv(evaluator=twelve_groups_evaluator(), **arguments)


def test_assign_proposes_whole_placements_until_the_horizon() -> None:
    env = scripted(horizon=3)
    observation, info = env.reset(seed=0)
    assert observation["placement"][:, -1].all()
    assert info["placement"] == [-1] * 12
    assert not info["valid"]
    assert math.isnan(info["time_s"])
    action = np.arange(12) % 2
    ends = []
    for _ in range(3):
        observation, reward, terminated, truncated, info = env.step(action)
        ends.append((terminated, truncated))
        assert reward == pytest.approx(-1e3 * info["time_s"])
    assert ends == [(False, False), (False, False), (False, True)]
    assert info["placement"] == action.tolist()
    assert observation["placement"].argmax(axis=1).tolist() == action.tolist()
    assert info["speedup"] == pytest.approx(env.baseline().reference_s / info["time_s"])
    assert observation["last_time"][0] == pytest.approx(-math.log(info["speedup"]), rel=1e-5)


def test_assign_with_a_horizon_of_one_terminates() -> None:
    env = scripted(horizon=1)
    env.reset(seed=0)
    assert env.step(np.zeros(12, dtype=int))[2:4] == (True, False)


def test_construct_places_group_after_group() -> None:
    env = scripted(formulation="construct")
    observation, _ = env.reset(seed=0)
    for group in range(12):
        assert observation["cursor"].nonzero()[0].tolist() == [group]
        assert observation["placement"][:, -1].sum() == 12 - group
        observation, reward, terminated, truncated, info = env.step(group % 2)
        assert (terminated, truncated) == (group == 11, False)
        if group < 11:
            assert reward == 0.0
            assert math.isnan(info["time_s"])
    assert info["placement"] == [0, 1] * 6
    assert reward == pytest.approx(-1e3 * info["time_s"])
    assert not observation["cursor"].any()


def test_refine_moves_one_group_and_rewards_the_time_saved() -> None:
    env = scripted(formulation="refine", horizon=4)
    _, info = env.reset(seed=0)
    assert info["placement"] == [0] * 12
    before = info["time_s"]
    total = 0.0
    for action in (2 * 3 + 1, 2 * 3 + 1, 2 * 7 + 1, 2 * 3):
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
    assert info["placement"] == [int(group == 7) for group in range(12)]
    assert total == pytest.approx(1e3 * (before - info["time_s"]))
    assert (terminated, truncated) == (False, True)


def test_refine_starts_from_a_given_placement(tmp_path: Path) -> None:
    evaluator = measured()
    groups = evaluator.coarse.num_groups
    env = DevicePlacementEnv(evaluator=evaluator)
    env.reset(seed=0)
    path = tmp_path / "start.json"
    env.placement([1] * groups).save(path)
    refine = DevicePlacementEnv(evaluator=evaluator, formulation="refine", start=str(path))
    _, info = refine.reset(seed=0)
    assert info["placement"] == [1] * groups
    other = DevicePlacementEnv(evaluator=measured("resnet50"), formulation="refine", start=path)
    with pytest.raises(PlacementError, match="made for the model 'diamond'"):
        other.reset()


def test_an_invalid_placement_costs_twice_the_slowest_single_and_ends_nothing() -> None:
    inner = twelve_groups_evaluator()
    env = DevicePlacementEnv(evaluator=Picky(inner.coarse, inner.devices, inner.time_s))
    env.reset(seed=0)
    action = np.zeros(12, dtype=int)
    action[1] = 1
    _, reward, terminated, truncated, info = env.step(action)
    slowest = max(inner.evaluate([device] * 12).time_s for device in (0, 1))
    assert reward == pytest.approx(-1e3 * PENALTY_FACTOR * slowest)
    assert (terminated, truncated, info["valid"]) == (False, False, False)
    assert info["error"] == "group 1 does not run there"
    assert math.isnan(info["speedup"])


def test_refine_undoes_an_invalid_move() -> None:
    inner = twelve_groups_evaluator()
    evaluator = Picky(inner.coarse, inner.devices, inner.time_s)
    env = DevicePlacementEnv(evaluator=evaluator, formulation="refine")
    first, start = env.reset(seed=0)
    observation, reward, _, _, info = env.step(2 * 1 + 1)
    assert reward == pytest.approx(1e3 * (start["time_s"] - env.baseline().penalty_s))
    assert info["placement"] == [0] * 12
    np.testing.assert_array_equal(observation["placement"], first["placement"])
    _, reward, *_ = env.step(0)
    assert reward == 0.0  # compared with the placement that stands, not with the penalty


def test_the_best_of_the_lifetime_is_kept_singles_included() -> None:
    env = scripted()
    _, info = env.reset(seed=0)
    singles = [env.evaluator.evaluate([device] * 12).time_s for device in (0, 1)]
    assert info["best_time_s"] == min(singles)
    best = env.evaluator.ranked()[0]  # type: ignore[attr-defined]
    env.step(np.array(best[1]))
    *_, info = env.step(np.array([0] * 12))
    assert (info["best_time_s"], info["best_placement"]) == best
    env.reset()
    assert env.placement().to_groups(env.coarse) == tuple(best[1])


def masked(support: list[list[bool]], formulation: str) -> DevicePlacementEnv:
    inner = twelve_groups_evaluator()
    supported = np.ones((12, 2), dtype=bool)
    supported[: len(support)] = support
    coarse = dataclasses.replace(inner.coarse, supported=supported)
    evaluator = ScriptedEvaluator(coarse, inner.devices, inner.time_s)
    return DevicePlacementEnv(evaluator=evaluator, formulation=formulation)


@pytest.mark.parametrize("formulation", ["assign", "refine"])
def test_masks_follow_support_and_a_dead_end_unmasks_everything(formulation: str) -> None:
    env = masked([[True, False], [False, False]], formulation)
    masks = env.action_masks().reshape(12, 2)
    assert masks[0].tolist() == [True, False]
    assert masks[1:].all()


def test_construct_masks_the_group_at_the_cursor() -> None:
    env = masked([[True, False], [False, False]], "construct")
    with pytest.raises(DeviceError, match="No device runs all of"):
        env.reset()
    env = masked([[True, False]], "construct")
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True, False]
    env.step(0)
    assert env.action_masks().tolist() == [True, True]


def test_a_masked_choice_is_an_invalid_evaluation() -> None:
    env = masked([[True, False]], "assign")
    env.reset(seed=0)
    *_, info = env.step(np.ones(12, dtype=int))
    assert not info["valid"]
    assert "does not support group 0" in info["error"]
