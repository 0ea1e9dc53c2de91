"""Validation of a network on generated problems that nothing is trained on."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch

from device_placement.agents.placers.neighbourhoods import neighbourhood_search
from device_placement.agents.placers.pretrained.drawing import draw, static_arrays
from device_placement.agents.placers.search_space import Choices, SearchSpace
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.batches import distribution
from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.agents.pretraining.learning import see
from device_placement.envs.arrays import Float64
from device_placement.envs.problems.generator import generate_problem
from device_placement.envs.problems.seeds import VALIDATION_SEEDS
from device_placement.envs.simulation.simulator import SimulatedEvaluator

SAMPLES = 16
PATIENCE = 8  # batches of moves without success after which the search for the best known ends
INVALID = 4.0  # times the best known, that an invalid placement counts as


def validation_seeds(options: PretrainOptions) -> list[int]:
    """Return the seeds of the problems of a training's validations."""
    return list(VALIDATION_SEEDS[: options.validation])


def best_known_s(options: PretrainOptions, seeds: Sequence[int]) -> Float64:
    """Return the time of a good placement of each problem, found by a neighbourhood search.

    Args:
        options: of the training.
        seeds: of the problems.
    """
    found = []
    for seed in seeds:
        evaluator = generate_problem(seed, distribution(options))
        problem, generator = see(evaluator), np.random.default_rng(seed)
        space = problem.space
        groups, devices = evaluator.coarse.supported.shape
        singles = evaluator.evaluate_many(np.tile(np.arange(devices)[:, None], groups))
        start = np.full(space.num_units, int(singles.argmin()))
        _, time_s = neighbourhood_search(
            functools.partial(_times, evaluator, space),
            start,
            space.allowed,
            generator,
            PATIENCE,
        )
        found.append(time_s)
    return np.array(found)


def _times(evaluator: SimulatedEvaluator, space: SearchSpace, choices: Choices) -> Float64:
    return evaluator.evaluate_many(choices[:, space.unit])


def validate(network: ConstructNetwork, seeds: Sequence[int], options: PretrainOptions) -> Float64:
    """Return times of the greedy placement and of the best of `SAMPLES` samples of problems.

    Args:
        network: of the policy.
        seeds: of the problems.
        options: of the training.

    Returns:
        (len(seeds), 2) seconds; inf where no placement is valid.
    """
    evaluators = [generate_problem(seed, distribution(options)) for seed in seeds]
    problems = [see(one) for one in evaluators]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        encoded = network(static_arrays(problems))
    greedy = draw(network, problems, encoded, 1).placements
    samples = draw(network, problems, encoded, SAMPLES, generator).placements
    times = np.full((len(seeds), 2), np.inf)
    for number, one in enumerate(evaluators):
        groups = one.coarse.num_groups
        times[number, 0] = one.evaluate_many(greedy[number : number + 1, :groups])[0]
        drawn = samples[number * SAMPLES : (number + 1) * SAMPLES, :groups]
        times[number, 1] = one.evaluate_many(drawn).min()
    return times


def gaps(times_s: Float64, best_s: Float64) -> Float64:
    """Return how much longer placements take than the best known ones, relative.

    Args:
        times_s: (num_problems, count) seconds.
        best_s: (num_problems,) of the best known placements.
    """
    return np.asarray(np.minimum(times_s / best_s[:, None], INVALID) - 1)
