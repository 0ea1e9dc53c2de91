from __future__ import annotations

import itertools

import numpy as np
import pytest

from device_placement.envs import DevicePlacementError, is_validation_seed, training_seeds
from device_placement.envs.errors import MAX_SEED
from device_placement.envs.problems.seeds import VALIDATION_SEEDS, is_generated, parse_seed


def test_validation_seeds_are_in_range_and_known_as_such() -> None:
    first, last = VALIDATION_SEEDS[0], VALIDATION_SEEDS[-1]
    assert 0 <= first <= last <= MAX_SEED
    assert is_validation_seed(first)
    assert is_validation_seed(last)
    assert not is_validation_seed(first - 1)
    assert not is_validation_seed(last + 1)


class Stub(np.random.Generator):
    """Generator that returns given numbers."""

    def __init__(self, *numbers: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = iter(numbers)

    def integers(self, *_: object, **__: object) -> int:  # type: ignore[override]
        return next(self.numbers)


def test_training_seeds_leave_validation_seeds_out() -> None:
    first, last = VALIDATION_SEEDS[0], VALIDATION_SEEDS[-1]
    drawn = training_seeds(Stub(first - 1, first, last, last + 1, 3))
    assert [*itertools.islice(drawn, 3)] == [first - 1, last + 1, 3]


def test_training_seeds_are_reproducible_and_spread() -> None:
    one, other = (training_seeds(np.random.default_rng(0)) for _ in range(2))
    seeds = [*itertools.islice(one, 1000)]
    assert seeds == [*itertools.islice(other, 1000)]
    assert len({*seeds}) > 990
    assert not any(map(is_validation_seed, seeds))


@pytest.mark.parametrize("seed", [0, 7, MAX_SEED])
def test_names_hold_a_seed(seed: int) -> None:
    assert is_generated(f"generated:{seed}")
    assert parse_seed(f"generated:{seed}") == seed


@pytest.mark.parametrize(
    "seed",
    ["", "abc", "-1", "1.5", " 7", "7 ", "1e3", "\u0667", "4294967296", "9" * 5000, "1,2", "1+2"],
)
def test_other_names_are_refused_with_the_form(seed: str) -> None:
    message = r"is generated:SEED, a whole number from 0 to 4294967295, as in generated:7\."
    with pytest.raises(DevicePlacementError, match=message) as raised:
        parse_seed(f"generated:{seed}")
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("model", ["diamond", "my_generated:7", None, 7, ["generated:7"]])
def test_other_models_are_not_generated(model: object) -> None:
    assert not is_generated(model)
