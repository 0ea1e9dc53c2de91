"""Copies that share evaluators: what a step evaluates is prepared together, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from device_placement.agents.training.copies import SharingVecEnv
from device_placement.envs import (
    DevicePlacementEnv,
    Evaluation,
    EvaluatorWrapper,
    MeasuredVectorEnv,
    PlacementError,
    make_evaluator,
)


class Noting(EvaluatorWrapper):
    """Notes what it is asked to prepare, and what it evaluates afterwards."""

    def __init__(self) -> None:
        super().__init__(make_evaluator("diamond", "CPU,GPU", evaluator="simulator"))
        self.prepared: list[list[int]] = []
        self.evaluated: list[list[int]] = []

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        assert not self.evaluated
        self.prepared += [list(one) for one in assignments]

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        self.evaluated.append(list(assignment))
        return super().evaluate(assignment)

    def take(self) -> tuple[list[list[int]], list[list[int]]]:
        """What was noted since the last call."""
        found = self.prepared, self.evaluated
        self.prepared, self.evaluated = [], []
        return found


@pytest.mark.parametrize("formulation", ["assign", "construct", "refine"])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_step_prepares_what_it_evaluates(formulation: str, mode: AutoresetMode) -> None:
    noting = Noting()
    envs = MeasuredVectorEnv(
        3, evaluator=noting, formulation=formulation, horizon=3, autoreset_mode=mode
    )
    envs.action_space.seed(0)
    envs.reset(seed=0)
    noting.take()
    evaluated = 0
    for _ in range(11):
        *_, terminated, truncated, _ = envs.step(envs.action_space.sample())
        prepared, found = noting.take()
        if formulation == "refine" and mode is not AutoresetMode.DISABLED:
            assert all(one in found for one in prepared)  # resets evaluate their start, too
        else:
            assert prepared == found
        evaluated += len(prepared)
        ended = terminated | truncated
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
            noting.take()
    assert evaluated >= 6
    envs.close()


def test_a_proposal_changes_nothing_and_is_checked() -> None:
    env = DevicePlacementEnv("diamond", "CPU,GPU", evaluator="simulator", formulation="construct")
    env.reset(seed=0)
    assert env.proposal(1) is None  # not the last group
    for _ in range(3):
        env.step(1)
    proposal = env.proposal(0)
    assert proposal is not None
    assert proposal.tolist() == [1, 1, 1, 0]
    with pytest.raises(PlacementError):
        env.proposal(7)
    *_, info = env.step(0)
    assert info["placement"] == [1, 1, 1, 0]


def test_copies_of_stable_baselines3_do_the_same() -> None:
    noting = Noting()
    envs = SharingVecEnv([lambda: DevicePlacementEnv(evaluator=noting, horizon=4)] * 2)
    envs.reset()
    noting.take()
    envs.step(np.array([[0, 1, 0, 1], [1, 1, 0, 0]]))
    assert noting.take() == ([[0, 1, 0, 1], [1, 1, 0, 0]],) * 2
    envs.close()
