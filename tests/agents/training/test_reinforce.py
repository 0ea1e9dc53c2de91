from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from device_placement.agents.policies.policies import GraphParsingPolicy, NodewisePolicy
from device_placement.agents.training.algorithms import greedy_assignment
from device_placement.agents.training.reinforce import Reinforce
from device_placement.envs import DevicePlacementError
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.graph.features import DEFAULT_BLOCKS
from scripted import diamond_evaluator, twelve_groups_evaluator

pytestmark = pytest.mark.usefixtures("one_thread")


def make(**options: Any) -> Reinforce:
    env = DevicePlacementEnv(evaluator=diamond_evaluator(), reward="inverse")
    return Reinforce(NodewisePolicy, env, seed=0, **options)


def weights_of(rewards: list[float], **options: Any) -> list[float]:
    algorithm = make(n_steps=len(rewards), **options)
    algorithm.rollout_buffer.rewards[:, 0] = rewards
    return [float(one) for one in algorithm._weights()[:, 0]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gamma": 0.5}, [4.0, 1.0, 0.25]),  # gamma^i r_i, as published
        ({"gamma": 1.0, "baseline": "mean"}, [4 - 7 / 3, 2 - 7 / 3, 1 - 7 / 3]),
        ({"gamma": 1.0, "baseline": "moving_average"}, [4 - 7 / 3, 2 - 7 / 3, 1 - 7 / 3]),
        ({"gamma": 0.5, "credit": "buffer"}, [5.25, 5.25, 5.25]),
        ({"gamma": 1.0, "normalize_advantage": True}, [4 / 1.247219, 2 / 1.247219, 1 / 1.247219]),
    ],
)
def test_what_each_action_is_weighted_with(options: Any, expected: list[float]) -> None:
    assert weights_of([4.0, 2.0, 1.0], **options) == pytest.approx(expected, rel=1e-5)


def test_the_average_moves_from_buffer_to_buffer() -> None:
    algorithm = make(n_steps=2, gamma=1.0, baseline="moving_average", decay=0.75)
    weights = []
    for rewards in ([2.0, 4.0], [8.0, 6.0], [5.0, 5.0]):
        algorithm.rollout_buffer.rewards[:, 0] = rewards
        weights.append(algorithm._weights()[:, 0].tolist())
    assert weights == [[-1, 1], [5, 3], [1, 1]]  # the average before: 3, 3, 0.75 * 3 + 0.25 * 7


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_the_update_is_the_published_gradient(n_epochs: int) -> None:
    algorithm = make(n_steps=4, gamma=0.9, learning_rate=1e-3, n_epochs=n_epochs)
    before = {name: one.clone() for name, one in algorithm.policy.state_dict().items()}
    torch.manual_seed(0)
    algorithm.learn(4)
    buffer = algorithm.rollout_buffer
    policy: Any = make(n_steps=4).policy
    policy.load_state_dict(before)
    policy.set_training_mode(True)
    seen = {key: torch.as_tensor(array) for key, array in buffer.observations.items()}
    weights = torch.as_tensor(0.9 ** np.arange(4) * buffer.rewards[:, 0])
    policy.optimizer.param_groups[0]["lr"] = 1e-3
    for _ in range(n_epochs):
        _, log_prob, _ = policy.evaluate_actions(seen, torch.as_tensor(buffer.actions))
        policy.optimizer.zero_grad()
        (-(log_prob * weights).sum()).backward()
        policy.optimizer.step()
    for name, weight in policy.state_dict().items():
        torch.testing.assert_close(algorithm.policy.state_dict()[name], weight, msg=name)


def test_the_average_moves_once_per_buffer() -> None:
    averages = []
    for n_epochs in (1, 4):
        env = DevicePlacementEnv(evaluator=diamond_evaluator(), reward="inverse")
        options: Any = {"baseline": "moving_average", "n_epochs": n_epochs, "seed": 0}
        averages.append(Reinforce(NodewisePolicy, env, n_steps=4, **options).learn(4).average)
    assert averages[0] == averages[1]


def test_it_learns_twelve_groups() -> None:
    evaluator = twelve_groups_evaluator()
    features = (*DEFAULT_BLOCKS, "position_sinusoid")
    env = DevicePlacementEnv(evaluator=evaluator, reward="log_speedup", features=features)
    options: Any = {"baseline": "mean", "normalize_advantage": True, "gamma": 1.0, "n_steps": 16}
    algorithm = Reinforce(NodewisePolicy, env, learning_rate=2e-3, seed=0, **options).learn(640)
    assert greedy_assignment(algorithm, env) == evaluator.ranked()[0][1]


def test_it_is_saved_and_goes_on(tmp_path: Any) -> None:
    env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    options: Any = {"n_steps": 10, "baseline": "moving_average", "seed": 0}
    Reinforce(GraphParsingPolicy, env, **options).learn(20).save(tmp_path / "policy.zip")
    loaded = Reinforce.load(tmp_path / "policy.zip", env=env)
    assert loaded.average is not None
    assert loaded.learn(20, reset_num_timesteps=False).num_timesteps == 40


def test_wrong_options_are_named() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown baseline 'avarage'.*moving_average"):
        make(baseline="avarage")
    with pytest.raises(DevicePlacementError, match=r"Unknown credit 'bufer'.*buffer"):
        make(credit="bufer")
    with pytest.raises(DevicePlacementError, match="Got n_epochs=0"):
        make(n_epochs=0)
    with pytest.raises(DevicePlacementError, match=r"Got decay=1\.5"):
        make(decay=1.5)
