"""What a trained policy proposes: greedily, or the best of some draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.algorithms import Env, greedy_assignment
from device_placement.agents.budget import REQUESTS_PER_BUDGET
from device_placement.agents.recording import RecordingEvaluator
from device_placement.agents.saved import PolicyCard
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.execution.evaluation import Evaluator


def draw_placements(
    algorithm: BaseAlgorithm,
    env: Env,
    recorder: RecordingEvaluator,
    samples: int,
    graph_id: int | None = None,
) -> list[list[int]]:
    """Draw placements until so many distinct ones were evaluated, or none is new any more.

    Args:
        algorithm: trained.
        env: made with the recorder, of episodes that end with a placement to take.
        recorder: counts what is distinct.
        samples: how many to draw; fewer where the recorder's budget is less.
        graph_id: number of the model, where the environment has several.

    Returns:
        Each (num_groups,), the placements at the ends of the episodes.
    """
    wanted = min(recorder.num_distinct + samples, recorder.budget)
    drawn: list[list[int]] = []
    for _ in range(REQUESTS_PER_BUDGET * samples):
        if recorder.num_distinct >= wanted:
            break
        drawn.append(greedy_assignment(algorithm, env, deterministic=False, graph_id=graph_id))
    return drawn


def best_of_samples(
    algorithm: BaseAlgorithm,
    card: PolicyCard,
    evaluators: Sequence[Evaluator],
    graph_id: int,
    samples: int,
) -> list[int]:
    """The best of some placements that are drawn from a policy; nothing goes into a record.

    Args:
        algorithm: trained.
        card: of the policy.
        evaluators: one a model, as in the training.
        graph_id: number of the model to place.
        samples: distinct placements to draw.

    Returns:
        (num_groups,) devices; empty when none that was drawn is valid.
    """
    mine = evaluators[graph_id]
    singles = len(mine.devices)
    recorder = RecordingEvaluator(mine, singles + samples)
    recorder.evaluate_singles()
    seen = [recorder if one is mine else one for one in evaluators]
    env = card.make_env(seen, horizon=last_horizon(card))
    drawn = draw_placements(algorithm, env, recorder, samples, graph_id)
    times = {}
    for one in map(tuple, drawn):
        known = recorder.known(one)
        times[one] = known.time_s if known is not None and known.valid else math.inf
    best = min(times, key=times.__getitem__, default=())
    return list(best) if times.get(best, math.inf) < math.inf else []


def last_horizon(card: PolicyCard) -> int | None:
    """Steps of an episode that ends with a placement to take; None: as in the training."""
    return 1 if card.formulation == "assign" else None


def check_counts(**counts: int) -> None:
    """Check numbers of placements.

    Raises:
        DevicePlacementError: when one is negative.
    """
    for name, count in counts.items():
        if count < 0:
            raise DevicePlacementError(f"Got --{name} {count}; it must be 0 or more.")
