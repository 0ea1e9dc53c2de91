"""Problems of a pre-training: their distribution, and those of each step."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np

from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.seeds import training_seeds

FEWEST = 10  # groups
# Mean seconds of a move over those of a group. Of models on real devices it is often near 1, where
# it matters most what goes together.
TRANSFERS = (0.03, 5.0)
WIDTH = 1.25  # of the sizes of a step: largest over central
EVEN = 0.5  # share of steps
SMALL = 80  # groups of the largest problems that get all samples
FEW = 4  # samples that the largest get at least


def distribution(options: PretrainOptions) -> GeneratorConfig:
    """Return the distribution of all problems.

    Raises:
        DevicePlacementError: when the generator refuses a setting.
    """
    return GeneratorConfig(groups=(FEWEST, options.groups), transfer_ratio=TRANSFERS)


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
    # Half of the steps log-uniform, half uniform: large graphs are few otherwise.
    even = generator.random() < EVEN
    centre = generator.uniform(least, most) if even else _log_uniform(generator, least, most)
    sizes = (max(round(centre / WIDTH), least), min(round(centre * WIDTH), most))
    fewest, many = distribution(options).devices
    count = min(int(_log_uniform(generator, fewest, many + 1)), many)
    seeds = itertools.islice(training_seeds(generator), options.problems)
    config = dataclasses.replace(distribution(options), groups=sizes, devices=(count, count))
    return Batch(tuple(seeds), config)


def samples_of(options: PretrainOptions, batch: Batch) -> int:
    """Return the number of placements to draw of each problem: fewer of large ones.

    >>> from dataclasses import replace
    >>> options = PretrainOptions()
    >>> one = batch_of(options, step=0)
    >>> [
    ...     samples_of(options, replace(one, config=replace(one.config, groups=(10, most))))
    ...     for most in (50, 160, 250)
    ... ]
    [16, 8, 5]
    """
    _, most = batch.config.groups
    return min(options.samples, max(round(options.samples * SMALL / most), FEW))


def _log_uniform(generator: np.random.Generator, least: float, most: float) -> float:
    return math.exp(generator.uniform(math.log(least), math.log(most)))
