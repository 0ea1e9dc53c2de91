"""Trainings that must learn: presets, problems, and how much of what there is to gain they get.

As a program, it trains with some seeds and appends a row each to a file. The marks were chosen
from such rows, of ten seeds under each of two other roundings than the machine's own::

    ATEN_CPU_CAPABILITY=default python tests/helpers/must_learn.py --out rows.csv
    OPENBLAS_CORETYPE=Haswell MKL_CBWR=COMPATIBLE python tests/helpers/must_learn.py --out rows.csv
    python tests/helpers/must_learn.py --table rows.csv
"""

from __future__ import annotations

import argparse
import csv
import functools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents import SB3VecEnv, greedy_assignment, make_algorithm
from device_placement.agents.presets import preset
from device_placement.agents.training.copies import algorithm_on_copies, num_copies
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.envs import DevicePlacementVectorEnv
from device_placement.envs.evaluation import Evaluator
from scripted import diamond_evaluator, simulated_diamond, twelve_groups_evaluator

SEEDS = range(2)  # of a test
DRAWN = 64  # placements that tell how good a policy is
COPIES = 4
PROBLEMS = {
    "diamond": diamond_evaluator,
    "twelve groups": twelve_groups_evaluator,
    "simulated diamond": simulated_diamond,
}


@dataclass(frozen=True)
class Case:
    """A preset that must learn a problem in some steps, each of which is a proposal or a move."""

    preset: str
    problem: str
    steps: int
    mark: float
    """How much the mean of two seeds must reach: three standard errors below that of many."""
    formulation: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    native: bool = False
    """On `COPIES` environments of one vector environment."""
    greedy: bool = False
    """The mark is on the placement of the likeliest actions, not on those that are drawn."""

    @property
    def name(self) -> str:
        native = "native copies" if self.native else None
        return ", ".join(filter(None, (self.preset, self.formulation, self.problem, native)))

    @property
    def evaluator(self) -> Evaluator:
        return _problem(self.problem)

    def train(self, seed: int) -> tuple[BaseAlgorithm, Any]:
        """The trained algorithm, and an environment such as it was trained in."""
        card = PolicyCard.of(self.preset, self.formulation, [self.evaluator], **self.overrides)
        env = card.make_env(self.evaluator)
        if not self.native:
            copies = num_copies(card, [self.evaluator], self.steps)
            algorithm = algorithm_on_copies(card, [self.evaluator], copies, seed=seed)
            return algorithm.learn(self.steps), env
        envs = DevicePlacementVectorEnv(
            COPIES,
            autoreset_mode="SameStep",
            evaluator=[self.evaluator],
            formulation=card.formulation,
            reward=preset(self.preset, self.formulation).reward,
        )
        algorithm = make_algorithm(
            self.preset,
            SB3VecEnv(envs),
            formulation=card.formulation,
            seed=seed,
            overrides=self.overrides,
        )
        return algorithm.learn(self.steps), env

    def gap_closed(self, placements: Sequence[Sequence[int]]) -> float:
        """The share of the way from random placements, 0, to the optimum, 1, in the mean."""
        every_s = [time_s for time_s, _ in ranked(self.problem)]
        mean_s = np.mean([self.evaluator.evaluate(one).time_s for one in placements])
        return float((np.mean(every_s) - mean_s) / (np.mean(every_s) - every_s[0]))

    def score(self, seed: int) -> dict[str, float]:
        """How far a training gets."""
        start = time.process_time()
        algorithm, env = self.train(seed)
        taken_s = time.process_time() - start
        greedy, drawn = greedy_assignment(algorithm, env), draw(algorithm, env)
        best = ranked(self.problem)[0][1]
        return {
            "drawn": self.gap_closed(drawn),
            "greedy": self.gap_closed([greedy]),
            "optimal": float(greedy == best),
            "cpu_s": taken_s,
        }


_problem = functools.cache(lambda name: PROBLEMS[name]())


@functools.cache
def ranked(problem: str) -> list[tuple[float, list[int]]]:
    """All placements of a problem with their times, the best first."""
    evaluator = _problem(problem)
    every = product(range(len(evaluator.devices)), repeat=evaluator.coarse.num_groups)
    return sorted((evaluator.evaluate(one).time_s, list(one)) for one in every)


def draw(algorithm: BaseAlgorithm, env: Any) -> list[list[int]]:
    """Placements by the probabilities of a policy: proposals, or those that episodes end with."""
    torch.manual_seed(0)
    proposals = len(env.action_space.shape) == 1
    found: list[list[int]] = []
    while len(found) < DRAWN:
        observation, _ = env.reset()
        done = False
        while not done:
            masks: dict[str, Any] = {}
            if isinstance(algorithm, MaskablePPO):
                masks = {"action_masks": env.action_masks()}
            action, _ = algorithm.predict(observation, deterministic=False, **masks)
            observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if proposals or done:
                found.append(list(info["placement"]))
    return found


# In HSDAG's published grouping every group keeps its best edge, so that none stays alone, as
# `left` of the diamond should; and without a baseline its likeliest placements change long before
# its probabilities do. So on twelve groups, of which a second pass would leave two, it parses and
# updates once, and its likeliest placement counts; on the diamond it also has a baseline and a
# state that does not move, and groups may stay alone.
_ONCE: Mapping[str, Any] = {"extractor.passes": 1, "n_epochs": 1}
_WITH_BASELINE: Mapping[str, Any] = {
    **_ONCE,
    "extractor.min_score": 0.5,
    "extractor.moves_state": False,
    "learning_rate": 1e-3,
    "baseline": "mean",
}
# With as much of it as the preset has, half of the trainings are not there after these steps.
_LESS_ENTROPY: Mapping[str, Any] = {"ent_coef": 0.02, "learning_rate": 2e-3}
# With the preset's rate, one training in five stays at a single or next to it.
_SLOWER: Mapping[str, Any] = {"n_steps": 16, "learning_rate": 1e-3}
CASES = (
    Case("ppo", "diamond", 320, 0.95),
    Case("ppo", "twelve groups", 640, 0.95),
    Case("ppo", "diamond", 1600, 0.75, "construct"),
    Case("ppo", "diamond", 1200, 0.95, "refine"),
    Case("ppo", "simulated diamond", 640, 0.95, "assign", {"n_steps": 4}, native=True),
    Case("ppo", "simulated diamond", 2000, 0.9, "construct", _SLOWER, native=True),
    Case("a2c", "diamond", 320, 0.95),
    Case("a2c", "twelve groups", 640, 0.95),
    Case("maskable_ppo", "diamond", 320, 0.95),
    Case("maskable_ppo", "twelve groups", 640, 0.95),
    Case("nodewise_ppo", "diamond", 320, 0.75),
    Case("nodewise_ppo", "twelve groups", 640, 0.95),
    Case("construct_ppo", "simulated diamond", 1600, 0.95),
    Case("nodewise_a2c", "diamond", 960, 0.75),
    Case("nodewise_a2c", "twelve groups", 1280, 0.95),
    Case("gdp", "diamond", 640, 0.95),
    Case("gdp", "twelve groups", 960, 0.95),
    Case("rnn", "diamond", 1024, 0.6),
    Case("rnn", "twelve groups", 1024, 0.75),
    Case("hsdag", "diamond", 1600, 0.65, overrides=_WITH_BASELINE),
    Case("hsdag", "twelve groups", 3000, 0.7, overrides=_ONCE, greedy=True),
    Case("hsdag_ppo", "diamond", 800, 0.85),
    Case("hsdag_ppo", "twelve groups", 800, 0.95),
    Case("placeto", "diamond", 960, 0.65),
    Case("placeto", "twelve groups", 1920, 0.55, overrides=_LESS_ENTROPY),
)


def train_and_write(given: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    with given.out.open("a", newline="", encoding="utf-8") as file:
        for case in CASES:
            for seed in range(given.first, given.first + given.seeds):
                if given.case in case.name:
                    row = case.score(seed)
                    csv.writer(file).writerow([case.name, seed, given.label, *row.values()])
                    file.flush()


def print_table(path: Path) -> None:
    """A line a case: of all rows, how many end with the optimum, and what the mean of two is."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    print("| case | optimal | drawn | greedy | mean less 3 errors | mark | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        mine = [[float(cell) for cell in row[3:]] for row in rows if row[0] == case.name]
        drawn, greedy, optimal, cpu_s = zip(*mine, strict=True)
        counted = greedy if case.greedy else drawn
        error = statistics.stdev(counted) / len(SEEDS) ** 0.5
        print(
            f"| {case.name} | {sum(optimal):.0f} of {len(mine)} | {statistics.mean(drawn):.3f} "
            f"({min(drawn):.3f}) | {statistics.mean(greedy):.3f} ({min(greedy):.3f}) | "
            f"{statistics.mean(counted) - 3 * error:.3f} | {case.mark} | "
            f"{statistics.mean(cpu_s):.1f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--label", default="", help="written into each row")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--out", type=Path, help="file to append rows to")
    parser.add_argument("--table", type=Path, help="file of rows to show instead")
    given = parser.parse_args()
    if given.table:
        print_table(given.table)
    elif given.out:
        train_and_write(given)
    else:
        sys.exit("Give --out or --table.")
