"""Gradients of pre-training: REINFORCE, with imitation of the best placement known.

For each problem the policy draws several placements. Their advantage is the log speed-up over the
mean of the problem (Williams 1992), divided by its standard deviation. A local search improves the
best of them, and the policy imitates the result, as in expert iteration (Anthony, Tian and Barber,
NeurIPS 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from device_placement.agents.placers.pretrained.drawing import (
    FREE,
    Drawn,
    SeenProblem,
    draw,
    joined,
    log_probabilities,
    static_arrays,
)
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.batches import Batch, samples_of
from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.envs.arrays import Float64, Int64
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.problems.generator import generate_problem
from device_placement.envs.simulation.simulator import SimulatedEvaluator

TYPICAL = 60.0  # groups of a problem, for the scale of the policy's loss
INVALID = math.log(0.5)  # log speed-up of an invalid placement over the best single
SPREAD = 1e-3  # least standard deviation of log speed-ups that counts


@dataclass(frozen=True)
class Gradient:
    """Gradient of a part of a step, with statistics of its problems."""

    gradients: dict[str, torch.Tensor]
    statistics: dict[str, float]


def see(evaluator: SimulatedEvaluator, sees_moves: bool = True) -> SeenProblem:
    """Return a simulated problem as the policy sees it.

    Args:
        evaluator: of the problem.
        sees_moves: whether the costs of moves are known.
    """
    costs = evaluator.costs
    if not sees_moves:
        nothing = np.zeros_like(costs.latency_s)
        costs = costs.with_times(costs.compute_s, nothing, nothing)
    known = KnownCosts(costs, evaluator.schedule, sees_moves)
    return SeenProblem(evaluator.coarse, known, SearchSpace.of(evaluator))


def gradient_of(
    network: ConstructNetwork,
    batch: Batch,
    options: PretrainOptions,
    stream: Sequence[int],
) -> Gradient:
    """Return the gradient of the loss on some problems.

    Args:
        network: of the policy.
        batch: the problems.
        options: of the loss.
        stream: seeds the random numbers; equal arguments give equal gradients.
    """
    numbers = np.random.default_rng(stream)
    generator = torch.Generator().manual_seed(int(numbers.integers(2**62)))
    evaluators = [generate_problem(seed, batch.config) for seed in batch.seeds]
    problems = [see(one, numbers.random() >= options.hidden_moves) for one in evaluators]
    network.train()
    network.zero_grad()
    encoded = network(static_arrays(problems))
    drawn = draw(network, problems, encoded, samples_of(options, batch), generator)
    samples = np.split(drawn.placements, len(problems))
    gains = np.stack([_gains(*one) for one in zip(evaluators, samples, strict=True)])
    taught = np.full((len(problems), drawn.placements.shape[1]), FREE, dtype=np.int64)
    for row, best in enumerate(gains.argmax(axis=1)):
        start = samples[row][best, : problems[row].num_groups]
        space, rounds = problems[row].space, options.teacher_rounds
        taught[row, : start.size] = improve(evaluators[row], space, start, rounds, numbers)
    both = joined([drawn, draw(network, problems, encoded, 1, given=taught)])
    terms = _terms(log_probabilities(network, encoded, both), both, problems, gains)
    loss = terms.reinforced + options.imitation * terms.imitated - options.entropy * terms.entropy
    loss.backward()  # type: ignore[no-untyped-call]
    learned = [_gains(*one)[0] for one in zip(evaluators, taught[:, None], strict=True)]
    return Gradient(
        {
            name: one.grad.clone()
            for name, one in network.named_parameters()
            if one.grad is not None
        },
        {
            "log_speedup/mean": float(gains.mean()),
            "log_speedup/best_sample": float(gains.max(axis=1).mean()),
            "log_speedup/taught": float(np.mean(learned)),
            "policy/entropy": terms.entropy.item(),
            "policy/cross_entropy": terms.imitated.item(),
            "policy/invalid": float((gains == INVALID).mean()),
        },
    )


class _Terms(NamedTuple):
    """Terms of the loss."""

    reinforced: Tensor
    imitated: Tensor
    entropy: Tensor


def _terms(
    log_probability: Tensor, drawn: Drawn, problems: Sequence[SeenProblem], gains: Float64
) -> _Terms:
    """Return the terms of the loss.

    Args:
        log_probability: (num_entries, max_devices) of all devices.
        drawn: the samples of each problem, then the placement that is taught of each.
        problems: that were placed.
        gains: (num_problems, num_samples) log speed-ups of the samples.
    """
    spread = gains.std(axis=1, keepdims=True) + SPREAD
    advantages = ((gains - gains.mean(axis=1, keepdims=True)) / spread).flatten()
    weights = torch.from_numpy(np.append(advantages, np.zeros(len(problems)))).float()[drawn.row]
    is_taught = (drawn.row >= gains.size).float()
    sizes = torch.tensor([one.num_groups for one in problems]).float()[drawn.problem]
    chosen = log_probability.gather(1, drawn.device[:, None]).squeeze(1)
    return _Terms(
        reinforced=-(weights * chosen / (sizes * TYPICAL).sqrt()).sum() / gains.size,
        imitated=-(is_taught * chosen / sizes).sum() / len(problems),
        entropy=-(log_probability.exp() * log_probability.clamp(min=-30.0)).sum(dim=1).mean(),
    )


def _gains(evaluator: SimulatedEvaluator, placements: Int64) -> Float64:
    """Return the log speed-ups of placements over the best single, (batch,)."""
    groups, devices = evaluator.coarse.supported.shape
    singles = np.tile(np.arange(devices)[:, None], groups)
    single_s = evaluator.evaluate_many(singles).min()
    times_s = evaluator.evaluate_many(placements[:, :groups])
    with np.errstate(divide="ignore"):
        gains = np.log(single_s / times_s)
    return np.asarray(np.where(np.isfinite(gains), gains, INVALID))


def improve(
    evaluator: SimulatedEvaluator,
    space: SearchSpace,
    start: Int64,
    rounds: int,
    generator: np.random.Generator,
    moves: int = 64,
) -> Int64:
    """Improve a placement by a short local search, and return the result.

    Each round tries random moves of windows of units to one device, all at once.

    Args:
        evaluator: of the problem.
        space: of its placements.
        start: (num_groups,) device numbers.
        rounds: number of rounds.
        generator: of the moves.
        moves: tried in each round.
    """
    best, best_s = start[space.first], float(evaluator.evaluate_many(start[None])[0])
    numbers, devices = np.arange(space.num_units), space.allowed.shape[1]
    for _ in range(rounds):
        length = np.exp2(generator.uniform(0, np.log2(space.num_units), moves)).astype(np.int64)
        first = generator.integers(1 - length, space.num_units)
        device = generator.integers(devices, size=moves)
        moved = (numbers >= first[:, None]) & (numbers < (first + length)[:, None])
        moved &= space.allowed[:, device].T
        tried = np.where(moved, device[:, None], best)
        times_s = evaluator.evaluate_many(tried[:, space.unit])
        winner = int(np.argmin(times_s))
        if times_s[winner] < best_s:
            best, best_s = tried[winner], float(times_s[winner])
    return np.asarray(best[space.unit])
