"""Speed of training on the simulator: the shares of its parts, and what copies gain each preset.

Run it with::

    python -m device_placement.benchmarks.speed --training
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger

from device_placement.agents.presets import PRESETS, preset
from device_placement.agents.runs.recording import MAX_BUDGET, RecordingEvaluator
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.copies import algorithm_on_copies, num_copies, update_steps
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.agents.training.sb3_vec_env import SB3VecEnv
from device_placement.benchmarks.study import LiveTable, judge, timed
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.vector_env import DevicePlacementVectorEnv

STEPS_PER_S = 400.0  # target, with one environment
BUDGET = 2000  # of the suites on the simulator


@dataclass(frozen=True)
class Effort:
    """Extent of the study."""

    name: str = "nodewise_ppo"
    model: str = "resnet50"
    warmup: int = 128
    steps: int = 2048
    copies: tuple[int, ...] = (1, 16)
    presets: tuple[str, ...] = tuple(PRESETS)
    """Those that are timed with one copy and with as many as they step together."""
    least: int = 160
    """Least steps of each of them in a round; whole updates."""
    rounds: int = 5


def run(effort: Effort | None = None) -> int:
    """Print one line per number of copies of the environment, then one per preset."""
    effort = effort or Effort()
    _print_shares(effort)
    print()
    _print_presets(effort)
    return 0


def _print_shares(effort: Effort) -> None:
    print(f"{effort}, formulation assign, {torch.get_num_threads()} threads\n")
    shares = "environment:>13.0%", "policy:>8.0%", "update:>8.0%", "rest:>6.0%"
    table = LiveTable("copies:>6", "steps/s:>9,.0f", *shares, "  target:<1")
    for copies in effort.copies:
        total_s, spent_s = time_training(copies, effort)
        rate = effort.steps / total_s
        found = [one / total_s for one in (*spent_s.values(), total_s - sum(spent_s.values()))]
        judged = judge(rate >= STEPS_PER_S, f"{STEPS_PER_S:.0f}")
        table.add(copies, rate, *found, f"  {judged}")


def _print_presets(effort: Effort) -> None:
    """Print steps per second with one copy and with all; both train in turns, round by round."""
    evaluator = make_evaluator(effort.model, evaluator="simulator")
    columns = "preset:<14", "formulation:<13", "copies:>6", "one copy, steps/s:>19,.0f"
    table = LiveTable(*columns, "copies, steps/s:>17,.0f", "  times as fast (95 % interval):<1")
    for name in effort.presets:
        card = PolicyCard.of(name, None, [evaluator])  # in the formulation that it is meant for
        copies = num_copies(card, [evaluator], BUDGET)
        trainings = [Training(card, evaluator, number) for number in (1, copies)]
        rates = [[one.rate(effort) for one in trainings] for _ in range(effort.rounds)]
        one_copy, together = (statistics.median(column) for column in zip(*rates, strict=True))
        ratios = [after / before for before, after in rates]
        low, high = median_interval(ratios)
        said = f"  {statistics.median(ratios):.2f} ({low:.2f} - {high:.2f})"
        table.add(name, card.formulation, copies, one_copy, together, said)


class Training:
    """Training of a preset that goes on from one timing to the next, after an update to warm up.

    Args:
        card: of its policy.
        evaluator: of the model; every placement is recorded, as in a search.
        copies: of the environment.
    """

    def __init__(self, card: PolicyCard, evaluator: Evaluator, copies: int) -> None:
        recorder = RecordingEvaluator(evaluator, MAX_BUDGET)
        self._algorithm = algorithm_on_copies(card, [recorder], copies)
        self._algorithm.set_logger(Logger(folder=None, output_formats=[]))
        steps = update_steps(card, [evaluator])
        assert isinstance(steps, int)
        self._update = steps
        self._algorithm.learn(self._update)

    def rate(self, effort: Effort) -> float:
        """Return steps per second of some more updates."""
        steps = -(-effort.least // self._update) * self._update
        _, seconds = timed(self._algorithm.learn, steps, reset_num_timesteps=False)
        return steps / seconds


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
