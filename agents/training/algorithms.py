"""Algorithms of stable-baselines3 and ours, made from presets or loaded from files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from device_placement.agents.policies.gnn import MessageLayer
from device_placement.agents.policies.policies import (
    ConstructPolicy,
    FeaturesPolicy,
    GraphParsingPolicy,
    MaskableConstructPolicy,
    MaskableFeaturesPolicy,
    MaskableNodewisePolicy,
    NodewisePolicy,
)
from device_placement.agents.policies.rnn import RnnPolicy
from device_placement.agents.presets import PRESETS, preset
from device_placement.agents.training.reinforce import Reinforce
from device_placement.agents.training.weights import load_state
from device_placement.envs.errors import DevicePlacementError, choose, unknown

Env = gym.Env[Any, Any]
EXTRACTOR = "extractor."  # prefix of the features extractor's arguments
FIXED = (
    "policy",
    "env",
    "observation_space",
    "action_space",
    "num_edge_features",
    "policy_kwargs",
    "tensorboard_log",
    "seed",
    "device",
    "_init_setup_model",
)
"""Arguments that `make_algorithm` sets itself."""

ALGORITHMS: Mapping[str, type[OnPolicyAlgorithm]] = {
    "ppo": PPO,
    "a2c": A2C,
    "maskable_ppo": MaskablePPO,
    "reinforce": Reinforce,
}
"""Name -> class."""

POLICIES: Mapping[str, Any] = {
    "features": FeaturesPolicy,
    "maskable_features": MaskableFeaturesPolicy,
    "nodewise": NodewisePolicy,
    "maskable_nodewise": MaskableNodewisePolicy,
    "construct": ConstructPolicy,
    "maskable_construct": MaskableConstructPolicy,
    "parsing": GraphParsingPolicy,
    "rnn": RnnPolicy,
}
"""Name -> class."""


def make_algorithm(
    name: str,
    env: Env | VecEnv,
    *,
    formulation: str | None = None,
    seed: int = 0,
    torch_device: str = "cpu",
    tensorboard_log: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> BaseAlgorithm:
    """Make an untrained algorithm with the settings of its preset.

    Args:
        name: a name of `PRESETS`.
        env: a `DevicePlacementEnv`, wrapped or not, or a `VecEnv` of some; the preset names the
            reward and the features that they should have.
        formulation: that of the environment; by default the one that the preset is meant for.
        seed: of the weights, the sampled actions and the environment.
        torch_device: device of the network.
        tensorboard_log: folder for TensorBoard.
        overrides: arguments of the algorithm's class that differ from the preset; those of the
            features extractor begin with ``extractor.``.

    Raises:
        DevicePlacementError: on an unknown name, formulation, argument or torch device, or
            arguments that it can't be made with.

    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> algorithm = make_algorithm("ppo", env, formulation="assign", seed=0)
    >>> len(greedy_assignment(algorithm, env)) == env.unwrapped.coarse.num_groups
    True
    """
    chosen = preset(name, formulation)
    check_torch_device(torch_device)
    make, policy = ALGORITHMS[PRESETS[name].algorithm], POLICIES[PRESETS[name].policy]
    own, extractor = _overridden(make, policy, overrides or {})
    options = {**chosen.policy, "features_extractor_kwargs": {**chosen.extractor, **extractor}}
    try:
        algorithm = make(
            policy,
            env,
            policy_kwargs=options,
            seed=seed,
            device=torch_device,
            tensorboard_log=tensorboard_log,
            **{**chosen.arguments(_max_groups(env)), **own},
        )
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        if not overrides or isinstance(error, DevicePlacementError):
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in overrides.items())
        raise DevicePlacementError(
            f"The preset {name!r} can't be made with {given}: {type(error).__name__}: {error}"
        ) from error
    _silence_critic(algorithm)
    return algorithm


def load_algorithm(
    name: str,
    path: str | os.PathLike[str],
    env: Env,
    torch_device: str = "cpu",
    **options: Any,
) -> BaseAlgorithm:
    """Load a saved algorithm, ready to resume training; only weights are read, no code.

    Args:
        name: of the preset that it was made from.
        path: of the file.
        env: like those that it was trained in.
        torch_device: device of the network.
        options: further arguments of `make_algorithm`, with which it was made.

    Raises:
        DevicePlacementError: on an unknown name, or when the file can't be read or does not fit.
    """
    algorithm = make_algorithm(name, env, torch_device=torch_device, **options)
    load_state(algorithm, path)
    return algorithm


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
            f"torch can't use the device {name!r}: {reason}. Use cpu, or cuda with a GPU and a "
            "torch built for CUDA."
        ) from error


def check_overrides(name: str, overrides: Mapping[str, Any]) -> None:
    """Check that a preset's algorithm and features extractor have these settings.

    Raises:
        DevicePlacementError: on an unknown setting.
    """
    chosen = choose("preset", name, PRESETS)
    _overridden(ALGORITHMS[chosen.algorithm], POLICIES[chosen.policy], overrides)


def greedy_assignment(
    algorithm: BaseAlgorithm,
    env: Env,
    *,
    deterministic: bool = True,
    graph_id: int | None = None,
) -> list[int]:
    """Return the placement after one episode of the policy's likeliest actions.

    Args:
        algorithm: trained on environments like this one.
        env: a `DevicePlacementEnv`, wrapped or not.
        deterministic: False draws the actions instead.
        graph_id: number of the model, where the environment has several; drawn by default.

    Returns:
        (num_groups,) device of each group: the last proposal in ``assign``, the finished
        placement in ``construct`` and ``refine``.
    """
    observation, info = env.reset(options={"graph_id": graph_id})
    done = False
    while not done:
        masks = _masks(algorithm, env)
        action, _ = algorithm.predict(observation, deterministic=deterministic, **masks)
        observation, _, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    return list(info["placement"])


def _overridden(
    make: type[OnPolicyAlgorithm], policy: Any, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split overrides into those of the algorithm and those of the features extractor."""
    given: dict[str, dict[str, Any]] = {"": {}, EXTRACTOR: {}}
    allowed = {"": _arguments(make), EXTRACTOR: _arguments(policy.extractor)}
    for name, value in overrides.items():
        prefix = EXTRACTOR if name.startswith(EXTRACTOR) else ""
        argument = name.removeprefix(prefix)
        if argument not in allowed[prefix]:
            every = [f"{start}{one}" for start, names in allowed.items() for one in names]
            raise DevicePlacementError(unknown("setting", name, every))
        given[prefix][argument] = value
    return given[""], given[EXTRACTOR]


def _arguments(made: type[Any]) -> list[str]:
    """Return a class's arguments that a preset may set, with those of an extractor's layers."""
    parameters = inspect.signature(made).parameters.values()
    named = [one.name for one in parameters if one.name not in FIXED]
    if issubclass(made, nn.Module) and "options" in named:
        named += _arguments(MessageLayer)
    return [name for name in dict.fromkeys(named) if name != "options"]


def _max_groups(env: Env | VecEnv) -> int:
    """Return the number of groups of the largest model."""
    if isinstance(env, VecEnv):
        return int(env.get_attr("layout")[0].max_groups)
    return int(env.get_wrapper_attr("layout").max_groups)


def _masks(algorithm: BaseAlgorithm, env: Env) -> dict[str, Any]:
    """Return the masks for `predict`, which only MaskablePPO takes."""
    if not isinstance(algorithm, MaskablePPO):
        return {}
    return {"action_masks": env.get_wrapper_attr("action_masks")()}


def _silence_critic(algorithm: OnPolicyAlgorithm) -> None:
    """Make every value start at 0.

    Random first values would drown the rewards, whose differences are often a few percent.
    """
    value_net = algorithm.policy.value_net
    assert isinstance(value_net, nn.Linear)
    nn.init.zeros_(value_net.weight)
    nn.init.zeros_(value_net.bias)
