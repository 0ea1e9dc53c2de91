"""Sampling of placements from a trained policy, and the best of the samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.runs.recording import (
    REQUESTS_PER_BUDGET,
    RecordingEvaluator,
    num_placements,
)
from device_placement.agents.training.algorithms import greedy_assignment
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator


def sample_policy(
    algorithm: BaseAlgorithm,
    card: PolicyCard,
    evaluators: Sequence[Evaluator],
    graph_id: int,
    samples: int,
    profile: str | None = None,
) -> Iterator[list[int]]:
    """Draw distinct placements from a policy, until there are enough or hardly any is new.

    Args:
        algorithm: trained.
        card: of the policy.
        evaluators: one per model, as in the training.
        graph_id: number of the model to place.
        samples: how many to draw.
        profile: see `PolicyCard.make_env`.

    Yields:
        (num_groups,) devices: the placement at the end of an episode. In ``refine`` earlier ones
        of the episode are evaluated, too.
    """
    env = card.make_env(evaluators, horizon=last_horizon(card), profile=profile)
    drawn: set[tuple[int, ...]] = set()
    samples = min(samples, num_placements(evaluators[graph_id].coarse))
    for _ in range(REQUESTS_PER_BUDGET * samples):
        if len(drawn) == samples:
            break
        one = greedy_assignment(algorithm, env, deterministic=False, graph_id=graph_id)
        if tuple(one) not in drawn:
            drawn.add(tuple(one))
            yield one


def best_of_samples(
    algorithm: BaseAlgorithm,
    card: PolicyCard,
    evaluators: Sequence[Evaluator],
    graph_id: int,
    samples: int,
    profile: str | None = None,
) -> list[int]:
    """Draw placements from a policy and return the best.

    Args:
        algorithm: trained.
        card: of the policy.
        evaluators: one per model, as in the training; recorders also record the draws.
        graph_id: number of the model to place.
        samples: distinct placements to draw.
        profile: see `PolicyCard.make_env`.

    Returns:
        (num_groups,) devices; empty when no draw is valid.
    """
    mine = RecordingEvaluator.of(evaluators[graph_id], 0)  # which evaluates nothing twice
    seen = [*evaluators[:graph_id], mine, *evaluators[graph_id + 1 :]]
    best, best_s = list[int](), math.inf
    for one in sample_policy(algorithm, card, seen, graph_id, samples, profile):
        found = mine.evaluate(one)
        if found.valid and found.time_s < best_s:
            best, best_s = one, found.time_s
    return best


def last_horizon(card: PolicyCard) -> int | None:
    """Return the steps of an episode that ends with a usable placement; None: the preset's."""
    return 1 if card.formulation == "assign" else None


def check_counts(**counts: int) -> None:
    """Check that numbers of placements are not negative.

    Raises:
        DevicePlacementError: when one is negative.
    """
    for name, count in counts.items():
        if count < 0:
            raise DevicePlacementError(f"Got --{name} {count}; it must be 0 or more.")
