"""Speed of training on the simulator, and the shares of its parts.

Run it with::

    python -m device_placement.benchmarks.speed --training
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.presets import preset
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.sb3_vec_env import SB3VecEnv
from device_placement.benchmarks.study import LiveTable, judge, timed
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.vector_env import DevicePlacementVectorEnv

STEPS_PER_S = 400.0  # target, with one environment


@dataclass(frozen=True)
class Effort:
    """Extent of the study."""

    name: str = "nodewise_ppo"
    model: str = "resnet50"
    warmup: int = 128
    steps: int = 2048
    copies: tuple[int, ...] = (1, 16)


def run(effort: Effort | None = None) -> int:
    """Print one line per number of copies of the environment."""
    effort = effort or Effort()
    print(f"{effort}, formulation assign, {torch.get_num_threads()} threads\n")
    shares = "environment:>13.0%", "policy:>8.0%", "update:>8.0%", "rest:>6.0%"
    table = LiveTable("copies:>6", "steps/s:>9,.0f", *shares, "  target:<1")
    for copies in effort.copies:
        total_s, spent_s = time_training(copies, effort)
        rate = effort.steps / total_s
        found = [one / total_s for one in (*spent_s.values(), total_s - sum(spent_s.values()))]
        judged = judge(rate >= STEPS_PER_S, f"{STEPS_PER_S:.0f}")
        table.add(copies, rate, *found, f"  {judged}")
    return 0


def time_training(copies: int, effort: Effort) -> tuple[float, dict[str, float]]:
    """Return the seconds of a training after its warm-up: all of it, and its parts."""
    env = make_env(copies, effort)
    algorithm = make_algorithm(effort.name, env, formulation="assign")
    algorithm.learn(effort.warmup)
    parts = {
        "environment": _time_calls(algorithm.env, "step"),
        "policy": _time_calls(algorithm.policy, "forward"),
        "update": _time_calls(algorithm, "train"),
    }
    _, total_s = timed(algorithm.learn, effort.steps, reset_num_timesteps=False)
    return total_s, {name: sum(spent) for name, spent in parts.items()}


def make_env(copies: int, effort: Effort) -> Any:
    """Make one environment, or native copies."""
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


def _time_calls(owner: BaseAlgorithm | Any, name: str) -> list[float]:
    """Replace a method by one that records the seconds of each call in the list returned."""
    method: Callable[..., Any] = getattr(owner, name)
    spent: list[float] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        result, seconds = timed(method, *args, **kwargs)
        spent.append(seconds)
        return result

    setattr(owner, name, call)
    return spent
