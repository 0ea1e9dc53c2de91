"""Algorithms as a user would write them, good and bad ones, for the benchmark's tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np


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


def nothing(evaluator: Any, budget: int, seed: int) -> None:
    return None


def wrong_parameters(model: Any) -> None:
    return None
