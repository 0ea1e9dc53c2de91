"""Must-learn: the final greedy policy is the optimum, in every seed, with the presets as shipped.

The placements of the optimum and of the singles are nowhere given to the agent.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from device_placement.agents.algorithms import ALGORITHMS, greedy_assignment, make_algorithm
from device_placement.agents.presets import preset
from device_placement.envs.env import DevicePlacementEnv
from scripted import ScriptedEvaluator, diamond_evaluator, twelve_groups_evaluator

PROBLEMS: dict[str, Callable[[], ScriptedEvaluator]] = {
    "diamond": diamond_evaluator,
    "twelve groups": twelve_groups_evaluator,
}
STEPS = {"diamond": 320, "twelve groups": 640}  # in `assign`, where a step is an evaluation
SEEDS = range(5)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def learn(
    name: str, evaluator: ScriptedEvaluator, formulation: str, steps: int, seed: int
) -> list[int]:
    """The placement that the policy gives greedily after so many steps."""
    env = DevicePlacementEnv(
        evaluator=evaluator,
        formulation=formulation,
        reward=preset(name, formulation)["reward"],
    )
    algorithm = make_algorithm(name, env, formulation=formulation, seed=seed)
    return greedy_assignment(algorithm.learn(steps), env)


@pytest.mark.parametrize("make_evaluator", PROBLEMS.values(), ids=PROBLEMS)
def test_the_optimum_is_one_mixed_placement(
    make_evaluator: Callable[[], ScriptedEvaluator],
) -> None:
    (best_s, best), (second_s, _), *_ = make_evaluator().ranked()
    assert best_s < 0.99 * second_s
    assert len(set(best)) == 2


def test_twelve_groups_are_a_trap_for_the_greedy() -> None:
    evaluator = twelve_groups_evaluator()
    best = evaluator.ranked()[0][1]
    alone = [0, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1]  # each group where it is soonest
    assert evaluator.evaluate(alone).time_s > 1.1 * evaluator.evaluate(best).time_s


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_assign(name: str, problem: str) -> None:
    evaluator = PROBLEMS[problem]()
    best = evaluator.ranked()[0][1]
    found = [learn(name, evaluator, "assign", STEPS[problem], seed) for seed in SEEDS]
    assert found == [best] * len(SEEDS)


@pytest.mark.parametrize(("formulation", "steps"), [("construct", 1600), ("refine", 1200)])
def test_step_by_step(formulation: str, steps: int) -> None:
    evaluator = diamond_evaluator()
    best = evaluator.ranked()[0][1]
    found = [learn("ppo", evaluator, formulation, steps, seed) for seed in SEEDS]
    assert found == [best] * len(SEEDS)
