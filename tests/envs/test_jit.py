from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from costs import random_costs
from device_placement.envs import jit
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times

STARTS = """
import sys
import gymnasium as gym
env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
env.reset(seed=0)
env.step(env.action_space.sample())
assert "numba" not in sys.modules, "compiled for one placement"
env.unwrapped.evaluator.evaluate_many([[0, 1, 0, 1]] * 1000)
assert "numba" in sys.modules, "a thousand placements are left to Python"
"""


def test_a_small_problem_starts_without_a_compiler() -> None:
    subprocess.run([sys.executable, "-c", STARTS], check=True)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_python_and_machine_code_give_the_same_numbers(
    schedule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    for _ in range(10):
        costs = random_costs(generator, groups=7, devices=3)
        placements = generator.integers(0, 3, (4, 7))
        compiled = schedule_times(costs, placements, schedule)
        monkeypatch.setattr(jit, "_machine_code", lambda function: function)
        interpreted = schedule_times(costs, placements, schedule)
        monkeypatch.undo()
        np.testing.assert_array_equal(interpreted, compiled)


def test_large_calls_and_many_calls_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(jit, "_machine_code", lambda function: asked.append(0) or function)

    @jit.compiled_above(4)
    def total(numbers: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return float(numbers.sum())

    for _ in range(jit.PATIENCE):
        total(np.ones(4))
    assert not asked
    total(np.ones(4))
    assert len(asked) == 1
    large = jit.compiled_above(4)(total)
    large(np.ones(5))
    large(np.ones(4))  # what was compiled once stays so
    assert len(asked) == 5


def test_an_interrupt_while_code_is_made_comes_after_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numba loses a Ctrl-C in its callbacks, so that a search would run on."""

    def interrupted(function: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return function

    monkeypatch.setattr(jit, "_machine_code", interrupted)
    done = []
    with pytest.raises(KeyboardInterrupt):
        jit.compiled(done.append)(4)
    assert done == [4]
