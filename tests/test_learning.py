"""Must-learn: the final greedy policy is the optimum.

One seed is not the same training on another CPU, whose sums round in another way. So where one of
three seeds fails, two more have to make up for it: three of five.

Presets are as shipped, but for one setting of one of them, in `OVERRIDES`. The placements of the
optimum and of the singles are nowhere given to the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.algorithms import greedy_assignment, make_algorithm
from device_placement.agents.presets import PRESETS
from device_placement.agents.saved import PolicyCard
from scripted import ScriptedEvaluator, diamond_evaluator, twelve_groups_evaluator

PROBLEMS: dict[str, Callable[[], ScriptedEvaluator]] = {
    "diamond": diamond_evaluator,
    "twelve groups": twelve_groups_evaluator,
}
# Steps on each problem, in the formulation that the preset is meant for; each is an evaluation.
STEPS = {
    "ppo": (320, 640),
    "a2c": (320, 640),
    "maskable_ppo": (320, 640),
    "nodewise_ppo": (320, 640),
    "nodewise_a2c": (960, 1280),
    "gdp": (640, 1280),
    "rnn": (1024, 1024),
    "hsdag": (2400, 3000),
    "hsdag_ppo": (800, 800),
    "placeto": (960, 1920),
}
# In HSDAG's published grouping every group keeps its best edge, so that none stays alone, as
# `left` of the diamond should; with this setting, of ours, it may. All else is as shipped.
OVERRIDES: dict[tuple[str, str], dict[str, Any]] = {
    ("hsdag", "diamond"): {"extractor.min_score": 0.5}
}
SEEDS, MORE_SEEDS = range(3), range(3, 5)


pytestmark = pytest.mark.usefixtures("one_thread")


def learn(
    name: str,
    evaluator: ScriptedEvaluator,
    steps: int,
    seed: int,
    formulation: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[list[int], BaseAlgorithm]:
    """The placement that the policy gives greedily after so many steps, and what gives it."""
    env = PolicyCard.of(name, formulation, [evaluator]).make_env(evaluator)
    algorithm = make_algorithm(name, env, formulation=formulation, seed=seed, overrides=overrides)
    return greedy_assignment(algorithm.learn(steps), env), algorithm


def learns(best: list[int], found_by: Callable[[int], list[int]]) -> bool:
    """Whether every one of three seeds ends with the best placement, or else three of five."""
    successes = [found_by(seed) == best for seed in SEEDS]
    if not all(successes):
        successes += [found_by(seed) == best for seed in MORE_SEEDS]
    return sum(successes) >= len(SEEDS)


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
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset(name: str, problem: str) -> None:
    evaluator = PROBLEMS[problem]()
    best = evaluator.ranked()[0][1]
    steps = STEPS[name][list(PROBLEMS).index(problem)]
    overrides = OVERRIDES.get((name, problem))
    assert learns(best, lambda seed: learn(name, evaluator, steps, seed, overrides=overrides)[0])


def test_in_the_published_grouping_nothing_stays_alone() -> None:
    evaluator = diamond_evaluator()
    best = evaluator.ranked()[0][1]
    assert sum(best) == 1
    for seed in SEEDS:
        placement, algorithm = learn("hsdag", evaluator, 20, seed)
        extractor = algorithm.policy.features_extractor
        assert extractor.num_groups <= 2
        assert placement != best


def test_learned_groups_are_neither_all_nor_one() -> None:
    evaluator = twelve_groups_evaluator()
    _, algorithm = learn("hsdag_ppo", evaluator, 320, seed=0)
    assert 2 <= algorithm.policy.features_extractor.num_groups <= 6


@pytest.mark.parametrize(("formulation", "steps"), [("construct", 1600), ("refine", 1200)])
def test_step_by_step(formulation: str, steps: int) -> None:
    evaluator = diamond_evaluator()
    best = evaluator.ranked()[0][1]
    assert learns(best, lambda seed: learn("ppo", evaluator, steps, seed, formulation)[0])
