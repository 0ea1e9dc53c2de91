"""Off-the-shelf SB3 algorithms, made with the presets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import nn

from device_placement.agents.extractors import GraphFeaturesExtractor
from device_placement.agents.presets import preset
from device_placement.envs.errors import DevicePlacementError, choose

Env = gym.Env[Any, Any]

ALGORITHMS: Mapping[str, type[OnPolicyAlgorithm]] = {
    "ppo": PPO,
    "a2c": A2C,
    "maskable_ppo": MaskablePPO,
}


def make_algorithm(
    name: str,
    env: Env,
    *,
    formulation: str,
    seed: int,
    torch_device: str = "cpu",
    tensorboard_log: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> BaseAlgorithm:
    """An untrained algorithm with the settings of its preset.

    Args:
        name: ``ppo``, ``a2c`` or ``maskable_ppo``.
        env: a `DevicePlacementEnv`, wrapped or not; the preset names the reward it should have.
        formulation: that of the environment.
        seed: of the weights, the sampled actions and the environment.
        torch_device: where the network lives.
        tensorboard_log: folder for TensorBoard.
        overrides: arguments of the algorithm's class that differ from the preset.

    Raises:
        DevicePlacementError: on an unknown name, formulation or torch device.

    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> algorithm = make_algorithm("ppo", env, formulation="assign", seed=0)
    >>> len(greedy_assignment(algorithm, env)) == env.unwrapped.coarse.num_groups
    True
    """
    make = choose("algorithm", name, ALGORITHMS)
    check_torch_device(torch_device)
    chosen = preset(name, formulation)
    policy = {
        "features_extractor_class": GraphFeaturesExtractor,
        "features_extractor_kwargs": dict(chosen["extractor"]),
        **chosen["policy"],
    }
    settings = {
        **_in_steps(chosen.get("episodes", {}), env),
        **chosen["algorithm"],
        **(overrides or {}),
    }
    algorithm = make(
        "MultiInputPolicy",
        env,
        policy_kwargs=policy,
        seed=seed,
        device=torch_device,
        tensorboard_log=tensorboard_log,
        **settings,
    )
    _silence_critic(algorithm)
    return algorithm


def load_algorithm(
    name: str, path: str | os.PathLike[str], env: Env, torch_device: str = "cpu"
) -> BaseAlgorithm:
    """A saved algorithm, ready to go on learning.

    Raises:
        DevicePlacementError: on an unknown name.
    """
    return choose("algorithm", name, ALGORITHMS).load(Path(path), env=env, device=torch_device)


def check_torch_device(name: str) -> None:
    """Check that torch knows a device and has it.

    Raises:
        DevicePlacementError: when it does not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where torch has no CUDA
        reason = str(error).strip().splitlines()[0]
        raise DevicePlacementError(
            f"torch can't use the device {name!r}: {reason}. Use cpu, or cuda on a machine that "
            "has it with a torch built for it."
        ) from error


def greedy_assignment(algorithm: BaseAlgorithm, env: Env) -> list[int]:
    """The placement at the end of one episode in which the policy takes its likeliest actions.

    Args:
        algorithm: trained on environments like this one.
        env: a `DevicePlacementEnv`, wrapped or not.

    Returns:
        (num_groups,) device of each group: the last proposal in ``assign``, the finished
        placement in ``construct`` and ``refine``.
    """
    observation, info = env.reset()
    done = False
    while not done:
        masks = _masks(algorithm, env)
        action, _ = algorithm.predict(observation, deterministic=True, **masks)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    return list(info["placement"])


def _in_steps(episodes: Mapping[str, int], env: Env) -> dict[str, int]:
    """Arguments counted in episodes of `construct`, in steps: one a group."""
    groups = env.get_wrapper_attr("layout").max_groups
    return {argument: count * groups for argument, count in episodes.items()}


def _masks(algorithm: BaseAlgorithm, env: Env) -> dict[str, Any]:
    """What `predict` takes besides; only MaskablePPO takes masks."""
    if not isinstance(algorithm, MaskablePPO):
        return {}
    return {"action_masks": env.get_wrapper_attr("action_masks")()}


def _silence_critic(algorithm: OnPolicyAlgorithm) -> None:
    """Let every value begin at 0.

    Random first values would drown the rewards, whose differences are often a few percent.
    """
    value_net = algorithm.policy.value_net
    assert isinstance(value_net, nn.Linear)
    nn.init.zeros_(value_net.weight)
    nn.init.zeros_(value_net.bias)
