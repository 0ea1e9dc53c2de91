"""Settings of pre-training; light to import."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from device_placement.envs.errors import DevicePlacementError, check_seed
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.seeds import training_seeds


@dataclass(frozen=True)
class PretrainOptions:
    """Settings that determine the weights.

    Raises:
        DevicePlacementError: when one is out of range.
    """

    steps: int = 2500
    """Updates of the network."""
    seed: int = 0
    """Random seed of the weights, the problems and the samples."""
    problems: int = 16
    """Problems per step, each drawn for it."""
    samples: int = 16
    """Placements drawn per problem."""
    groups: int = 250
    """Groups of the largest problems; they have 10 or more, log-uniform."""
    distinct: int = 0
    """Distinct problems, which are then repeated step by step; 0: every problem is new."""
    learning_rate: float = 3e-3
    """Learning rate of Adam; it falls linearly to a twentieth."""
    imitation: float = 0.3
    """Weight of the cross-entropy on the best placement known of each problem."""
    entropy: float = 0.003
    """Weight of the entropy."""
    teacher_rounds: int = 16
    """Rounds of the local search that improves the best sample before it is imitated."""
    hidden_moves: float = 0.1
    """Share of the problems in which the policy sees no costs of moves, as where only the times of
    groups are known."""
    hidden: int = 64
    """Size of an embedding."""
    layers: int = 4
    """Rounds of messages."""
    without: str = ""
    """Inputs that the network does not see, to find out what they are worth: costs or
    partial_schedule."""
    validation: int = 100
    """Problems, of seeds set aside, that choose between checkpoints."""
    validate_every: int = 250
    """Steps between two validations."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, least in (
            *(("steps", 1), ("problems", 2), ("samples", 2), ("groups", 10), ("distinct", 0)),
            *(("teacher_rounds", 0), ("hidden", 2), ("layers", 1), ("validation", 2)),
            ("validate_every", 1),
        ):
            if getattr(self, name) < least:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)}; it must be {least} or more."
                )
        for name in ("imitation", "entropy", "learning_rate", "hidden_moves"):
            most = 1.0
            if not 0 <= getattr(self, name) <= most:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)}; it must be from 0 to {most:g}."
                )
        if self.problems % PARTS:
            raise DevicePlacementError(
                f"Got problems={self.problems}; it must be a multiple of {PARTS}, the parts of a "
                "step."
            )
        distribution(self)


FEWEST = 10  # groups
WIDTH = 1.25  # of the sizes of a step: largest over central
PARTS = 2
"""Parts of a step, which different processes can compute."""


def distribution(options: PretrainOptions) -> GeneratorConfig:
    """Return the distribution of all problems.

    Raises:
        DevicePlacementError: when the generator refuses a setting.
    """
    return GeneratorConfig(groups=(FEWEST, options.groups))


@dataclass(frozen=True)
class Batch:
    """Problems of a step: seeds and their distribution."""

    seeds: tuple[int, ...]
    config: GeneratorConfig


def batch_of(options: PretrainOptions, step: int) -> Batch:
    """Return the problems of a step: of similar size and as many devices, to need no padding.

    Args:
        options: of the training.
        step: number of the step, from 0.

    >>> batch_of(PretrainOptions(problems=2), 5) == batch_of(PretrainOptions(problems=2), 5)
    True
    """
    if options.distinct:
        step %= max(options.distinct // options.problems, 1)
    generator = np.random.default_rng([options.seed, step])
    least, most = distribution(options).groups
    centre = _log_uniform(generator, least, most)
    sizes = (max(round(centre / WIDTH), least), min(round(centre * WIDTH), most))
    fewest, many = distribution(options).devices
    count = min(int(_log_uniform(generator, fewest, many + 1)), many)
    seeds = itertools.islice(training_seeds(generator), options.problems)
    return Batch(tuple(seeds), GeneratorConfig(groups=sizes, devices=(count, count)))


def _log_uniform(generator: np.random.Generator, least: float, most: float) -> float:
    return math.exp(generator.uniform(math.log(least), math.log(most)))
