"""An environment goes back to where it was, in another process if need be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.observation import FORMULATIONS
from scripted import diamond_evaluator, twelve_groups_evaluator


def make(formulation: str) -> DevicePlacementEnv:
    evaluators = [diamond_evaluator(), twelve_groups_evaluator()]
    return DevicePlacementEnv(evaluator=evaluators, formulation=formulation, horizon=5)


def rollout(env: DevicePlacementEnv, actions: list[Any]) -> list[Any]:
    """Everything that is seen of some steps, over several episodes and models."""
    seen: list[Any] = []
    for action in actions:
        observation, reward, terminated, truncated, info = env.step(action)
        seen.append([observation, reward, terminated, truncated, info])
        if terminated or truncated:
            seen.append(env.reset())
    return seen


def as_text(seen: list[Any]) -> str:
    return json.dumps(seen, default=lambda array: np.asarray(array).tolist())


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_what_follows_a_snapshot_is_repeated(formulation: str) -> None:
    env = make(formulation)
    env.reset(seed=3)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(60)]
    rollout(env, actions[:7])
    snapshot = json.dumps(env.snapshot())
    now = env._observe()
    first = as_text(rollout(env, actions[7:]))
    other = make(formulation)  # never reset
    for one in (env, other):
        restored = one.restore(json.loads(snapshot))
        assert all(np.array_equal(restored[key], now[key]) for key in now)
        assert as_text(rollout(one, actions[7:])) == first
    assert "graph_id" in first
