"""Algorithms as a user would write them, good and bad ones, for the benchmark's tests."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_placement.envs import EvaluatorWrapper

KILLS = "FOLDER_WITH_A_FILE_FOR_EACH_KILL"


def guess(evaluator: Any, budget: int, seed: int) -> None:
    """Evaluates random placements until the budget is spent; the best of them counts."""
    generator = np.random.default_rng(seed)
    while not evaluator.spent:
        size = evaluator.coarse.num_groups
        evaluator.evaluate(generator.integers(len(evaluator.devices), size=size))


def step(env: Any, budget: int, seed: int) -> None:
    env.action_space.seed(seed)
    env.reset(seed=seed)
    while not env.unwrapped.evaluator.spent:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()


def answer(evaluator: Any, budget: int, seed: int) -> Sequence[int]:
    return [1] * evaluator.coarse.num_groups


def too_short(evaluator: Any, budget: int, seed: int) -> Sequence[int]:
    return [0]


def no_device(evaluator: Any, budget: int, seed: int) -> Sequence[int]:
    return [9] * evaluator.coarse.num_groups


def greedy_for_more(evaluator: Any, budget: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    while True:
        size = evaluator.coarse.num_groups
        evaluator.evaluate(generator.integers(len(evaluator.devices), size=size))


def one_more(evaluator: Any, budget: int, seed: int) -> Sequence[int]:
    guess(evaluator, budget, seed)
    placements = ([number >> group & 1 for group in range(4)] for number in range(16))
    return next(one for one in placements if evaluator.trace.recorder.known(one) is None)


def endless(evaluator: Any, budget: int, seed: int) -> None:
    while True:
        evaluator.evaluate([0] * evaluator.coarse.num_groups)


def broken(evaluator: Any, budget: int, seed: int) -> None:
    raise RuntimeError("a bug\nof mine")


def gone(evaluator: Any, budget: int, seed: int) -> None:
    os._exit(7)


def killed_ppo(evaluator: Any, budget: int, seed: int) -> None:
    """Trains ppo. Where `KILLS` names a folder, the benchmark is killed amid it, once a problem."""
    from device_placement.agents.training.preset_placer import PresetPlacer

    PresetPlacer("ppo").place(_Killing(evaluator), budget, seed)


class _Killing(EvaluatorWrapper):
    """The evaluator of a run whose benchmark is killed, if it was not killed before."""

    def __init__(self, evaluator: Any) -> None:
        super().__init__(evaluator)
        self._mark = Path(os.environ.get(KILLS, ""), evaluator.coarse.graph.name)
        self._left = 12 if KILLS in os.environ and not self._mark.exists() else math.inf

    def evaluate(self, assignment: Sequence[int]) -> Any:
        self._left -= 1
        if self._left == 0:
            self._mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)  # it ends with the benchmark
        return super().evaluate(assignment)


def nothing(evaluator: Any, budget: int, seed: int) -> None:
    return None


def wrong_parameters(model: Any) -> None:
    return None
