from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_placement.envs.problems.draws import TAIL, Draws, exp2, log2, mean


def test_powers_of_two_are_exact_and_linear_in_between() -> None:
    assert exp2(np.array([-2.0, 0.0, 3.0, 3.5])).tolist() == [0.25, 1.0, 8.0, 12.0]
    assert [log2(number) for number in (0.25, 1.0, 8.0, 12.0)] == [-2.0, 0.0, 3.0, 3.5]


@given(st.floats(1e-9, 1e9))
def test_logarithms_invert_powers(number: float) -> None:
    assert math.isclose(exp2(np.array([log2(number)]))[0], number, rel_tol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(0, 50))
def test_draws_stay_in_their_ranges(seed: int, low: int, more: int) -> None:
    draws, high = Draws(seed), low + more
    assert low <= draws.whole(low, high) <= high
    assert low <= draws.whole_scale(low, high) <= high
    assert low <= draws.scale(low, high) <= high
    assert low <= draws.uniform(low, high) <= high
    assert ((draws.tails(20) >= 1) & (draws.tails(20) <= TAIL)).all()
    assert sorted(draws.some(range(more), more)) == [*range(more)]
    assert draws.pick({low: 1.0, high: 0.0}) == low


def test_bells_have_mean_0_and_variance_1() -> None:
    numbers = Draws(1).bells(100_000)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01


def test_tails_are_heavy() -> None:
    numbers = Draws(1).tails(100_000)
    assert (numbers > 8).mean() == pytest.approx(8 ** (-4 / 3), rel=0.05)


def test_streams_of_different_keys_differ() -> None:
    assert Draws(7, 1).uniform() == Draws(7, 1).uniform() != Draws(7, 2).uniform()


def test_a_mean_is_rounded_once() -> None:
    assert mean(np.array([1e16, 1.0, -1e16])) == 1 / 3
