"""How fast an agent trains on the simulator, and where the time goes.

Run it with::

    python -m device_placement.benchmarks.speed --training
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.presets import preset
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.sb3_vec_env import SB3VecEnv
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.vector_env import DevicePlacementVectorEnv

STEPS_PER_S = 400.0  # target, with one environment


@dataclass(frozen=True)
class Effort:
    """How much to time."""

    name: str = "nodewise_ppo"
    model: str = "resnet50"
    warmup: int = 128
    steps: int = 2048
    copies: tuple[int, ...] = (1, 16)


def run(effort: Effort | None = None) -> int:
    """Print a line a number of copies of the environment."""
    effort = effort or Effort()
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{effort}, formulation assign, {torch.get_num_threads()} threads\n")
    print("copies  steps/s  environment  policy  update  rest  target")
    for copies in effort.copies:
        total_s, parts = time_training(copies, effort)
        rate = effort.steps / total_s
        shares = [*parts.values(), total_s - sum(parts.values())]
        judged = f"{'reaches' if rate >= STEPS_PER_S else 'MISSES'} {STEPS_PER_S:.0f}"
        print(
            f"{copies:>6}{rate:>9,.0f}{shares[0] / total_s:>13.0%}{shares[1] / total_s:>8.0%}"
            f"{shares[2] / total_s:>8.0%}{shares[3] / total_s:>6.0%}  {judged}",
            flush=True,
        )
    return 0


def time_training(copies: int, effort: Effort) -> tuple[float, dict[str, float]]:
    """Seconds of a training behind its warm-up: all of it, and of its parts."""
    env = make_env(copies, effort)
    algorithm = make_algorithm(effort.name, env, formulation="assign")
    algorithm.learn(effort.warmup)
    parts = {
        "environment": _timed(algorithm.env, "step"),
        "policy": _timed(algorithm.policy, "forward"),
        "update": _timed(algorithm, "train"),
    }
    start = time.perf_counter()
    algorithm.learn(effort.steps, reset_num_timesteps=False)
    total_s = time.perf_counter() - start
    return total_s, {name: sum(spent) for name, spent in parts.items()}


def make_env(copies: int, effort: Effort) -> Any:
    """One environment, or native copies."""
    chosen = preset(effort.name, "assign")
    settings: dict[str, Any] = {
        "model": effort.model,
        "evaluator": "simulator",
        "reward": chosen.reward,
        "features": chosen.features,
    }
    if copies == 1:
        return DevicePlacementEnv(**settings)
    return SB3VecEnv(DevicePlacementVectorEnv(copies, autoreset_mode="SameStep", **settings))


def _timed(owner: BaseAlgorithm | Any, name: str) -> list[float]:
    """The seconds of each call of a method from now on."""
    method: Callable[..., Any] = getattr(owner, name)
    spent: list[float] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = method(*args, **kwargs)
        spent.append(time.perf_counter() - start)
        return result

    setattr(owner, name, call)
    return spent
