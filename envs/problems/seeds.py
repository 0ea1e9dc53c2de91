"""Seeds of generated problems: names of problems, and seeds set aside for validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from device_placement.envs.errors import MAX_SEED, DevicePlacementError

PREFIX = "generated:"
VALIDATION_SEEDS = range(4_000_000_000, 4_000_100_000)
"""Seeds of problems that nothing may train on, so that policies can be compared on them."""


def is_validation_seed(seed: int) -> bool:
    """Return whether a seed is set aside for validation.

    >>> is_validation_seed(4_000_000_007), is_validation_seed(7)
    (True, False)
    """
    return seed in VALIDATION_SEEDS


def training_seeds(generator: np.random.Generator) -> Iterator[int]:
    """Yield seeds without end, none of which is set aside for validation.

    >>> seeds = training_seeds(np.random.default_rng(0))
    >>> is_validation_seed(next(seeds))
    False
    """
    while True:
        seed = int(generator.integers(MAX_SEED + 1))
        if not is_validation_seed(seed):
            yield seed


def is_generated(model: Any) -> bool:
    """Return whether a model is the name of a generated problem, ``generated:SEED``."""
    return isinstance(model, str) and model.startswith(PREFIX)


def parse_seed(model: str) -> int:
    """Return the seed in the name of a generated problem.

    Raises:
        DevicePlacementError: when there is none, or it is too large.

    >>> parse_seed("generated:7")
    7
    """
    text = model.removeprefix(PREFIX)
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MAX_SEED:
        raise DevicePlacementError(
            f"Got the model {model[:60]!r}; a generated problem is {PREFIX}SEED, a whole number "
            f"from 0 to {MAX_SEED}, as in {PREFIX}7."
        )
    return int(text)
