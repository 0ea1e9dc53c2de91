"""Must-learn: the final greedy policy is the optimum, in every seed, with the presets as shipped.

The placements of the optimum and of the singles are nowhere given to the agent.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from device_placement.agents.algorithms import greedy_assignment, make_algorithm
from device_placement.agents.saved import PolicyCard
from scripted import ScriptedEvaluator, diamond_evaluator, twelve_groups_evaluator

PROBLEMS: dict[str, Callable[[], ScriptedEvaluator]] = {
    "diamond": diamond_evaluator,
    "twelve groups": twelve_groups_evaluator,
}
# Steps in `assign`, where a step is an evaluation, on each problem.
STEPS = {
    "ppo": (320, 640),
    "a2c": (320, 640),
    "maskable_ppo": (320, 640),
    "nodewise_ppo": (320, 640),
    "nodewise_a2c": (960, 1920),
    "gdp": (640, 1280),
    "rnn": (1024, 1024),
}
SEEDS = range(3)


pytestmark = pytest.mark.usefixtures("one_thread")


def learn(
    name: str, evaluator: ScriptedEvaluator, steps: int, seed: int, formulation: str | None = None
) -> list[int]:
    """The placement that the policy gives greedily after so many steps."""
    env = PolicyCard.of(name, formulation, [evaluator]).make_env(evaluator)
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


@pytest.mark.parametrize("number", range(2), ids=PROBLEMS)
@pytest.mark.parametrize("name", STEPS)
def test_assign(name: str, number: int) -> None:
    evaluator = [*PROBLEMS.values()][number]()
    best = evaluator.ranked()[0][1]
    found = [learn(name, evaluator, STEPS[name][number], seed) for seed in SEEDS]
    assert found == [best] * len(SEEDS)


@pytest.mark.parametrize(("formulation", "steps"), [("construct", 1600), ("refine", 1200)])
def test_step_by_step(formulation: str, steps: int) -> None:
    evaluator = diamond_evaluator()
    best = evaluator.ranked()[0][1]
    found = [learn("ppo", evaluator, steps, seed, formulation) for seed in SEEDS]
    assert found == [best] * len(SEEDS)
