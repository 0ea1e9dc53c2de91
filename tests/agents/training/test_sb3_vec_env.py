from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from device_placement.agents import SB3VecEnv, make_algorithm
from device_placement.agents.presets import PRESETS, preset
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    DevicePlacementVectorEnv,
)
from rollouts import same, simulator

COPIES = 3
STEPS = {"assign": 1280, "construct": 3200}


pytestmark = pytest.mark.usefixtures("one_thread")


def both(**settings: Any) -> tuple[SB3VecEnv, DummyVecEnv]:
    arguments = {"evaluator": [simulator()], "horizon": 4} | settings
    native = DevicePlacementVectorEnv(COPIES, autoreset_mode="SameStep", **arguments)
    return SB3VecEnv(native), DummyVecEnv([lambda: DevicePlacementEnv(**arguments)] * COPIES)


def check_infos(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        last, expected = one.get("terminal_observation"), other.get("terminal_observation")
        if expected is not None:
            assert last is not None
            for key, array in expected.items():
                np.testing.assert_array_equal(last[key], array)
        for key in other.keys() - {"terminal_observation"}:
            value = float(other[key]) if isinstance(other[key], float) else other[key]
            assert same(one[key], value), f"{key}: {one[key]!r}, not {value!r}"


@pytest.mark.parametrize("formulation", ["assign", "construct"])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("models", [1, 2])
def test_rollouts_are_those_of_dummy_vec_env(formulation: str, horizon: int, models: int) -> None:
    evaluators = [simulator(), simulator("resnet50", max_groups=12)][:models]
    ours, theirs = both(evaluator=evaluators, formulation=formulation, horizon=horizon)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.seed(5) == theirs.seed(5)
    observation, expected = ours.reset(), theirs.reset()
    ours.action_space.seed(0)
    for _ in range(40):
        assert observation.keys() == expected.keys()
        for key, array in expected.items():
            np.testing.assert_array_equal(observation[key], array)
            assert observation[key].dtype == array.dtype
            assert observation[key].flags.writeable
            assert observation[key].flags.c_contiguous
        check_infos(ours.reset_infos, theirs.reset_infos)
        masks = [env.env_method("action_masks") for env in (ours, theirs)]
        np.testing.assert_array_equal(*masks)
        actions = np.stack([ours.action_space.sample() for _ in range(COPIES)])
        observation, rewards, dones, infos = ours.step(actions)
        expected, their_rewards, their_dones, their_infos = theirs.step(actions)
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(dones, their_dones)
        assert rewards.dtype == their_rewards.dtype
        check_infos(infos, their_infos)


@pytest.mark.parametrize(
    ("name", "formulation"),
    [
        (name, formulation)
        for name, one in PRESETS.items()
        for formulation in one.formulations
        if formulation != "refine"
    ],
)
def test_training_is_the_same_as_on_dummy_vec_env(name: str, formulation: str) -> None:
    weights = []
    costs = preset(name, formulation).costs
    for env in both(formulation=formulation, reward="log_speedup", costs=costs):
        algorithm = make_algorithm(name, env, formulation=formulation, seed=1)
        algorithm.learn(200)
        weights.append(torch.nn.utils.parameters_to_vector(algorithm.policy.parameters()))
    assert torch.equal(*weights)


def test_attributes_and_methods_are_reached() -> None:
    envs, _ = both()
    envs.reset()
    assert envs.get_attr("layout", [0, 2]) == [envs.env.layout] * 2
    assert envs.has_attr("action_masks")
    assert not envs.has_attr("no_such_name")
    assert envs.env_is_wrapped(Monitor) == [False] * COPIES
    assert np.shape(envs.env_method("action_masks", indices=1)) == (1, 8)
    with pytest.raises(AttributeError, match=r"'action_mask'.*Did you mean 'action_masks'"):
        envs.env_method("action_mask")
    envs.set_attr("note", "shared")
    assert envs.get_attr("note") == ["shared"] * COPIES
    with pytest.raises(DevicePlacementError, match="share 'note'"):
        envs.set_attr("note", "of one", indices=0)
    envs.close()
    assert envs.env.closed


def test_options_choose_the_models() -> None:
    envs, _ = both(evaluator=[simulator(), simulator("resnet50", max_groups=12)])
    envs.set_options([{"graph_id": 1}, {"graph_id": 0}, {}])
    assert envs.reset()["graph_id"][:2, 0].tolist() == [1, 0]


def test_stable_baselines_wrappers_take_it() -> None:
    envs = VecMonitor(both()[0])
    envs.reset()
    for _ in range(4):
        *_, infos = envs.step(np.zeros((COPIES, 4), dtype=int))
    assert [info["episode"]["l"] for info in infos] == [4] * COPIES


def test_only_the_same_step_resets_fit() -> None:
    with pytest.raises(DevicePlacementError, match=r"'NextStep'.*autoreset_mode='SameStep'"):
        SB3VecEnv(DevicePlacementVectorEnv(2, "diamond"))
