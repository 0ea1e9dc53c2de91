"""Partial schedules: prefixes take what the schedules say, in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costs import make_costs, random_costs
from device_placement.envs import DevicePlacementError
from device_placement.envs.costs import Costs
from device_placement.envs.simulation.partial_kernels import advance
from device_placement.envs.simulation.partial_schedule import (
    TIMINGS,
    PartialSchedules,
    can_run,
)
from partial_plainly import prefix_time

ROW = np.array([0])


def varied(seed: int, groups: int = 7, devices: int = 3, **changes: Any) -> Costs:
    """Random costs with everything that a schedule may charge."""
    generator = np.random.default_rng(seed)
    charged = {
        "subgraph_s": generator.integers(0, 4, devices).astype(float),
        "pays": generator.random(devices) < 0.7,
    }
    return random_costs(generator, groups, devices, **charged | changes)


@pytest.mark.parametrize("schedule", TIMINGS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16), groups=st.integers(1, 9), devices=st.integers(1, 4))
def test_a_prefix_takes_its_time(schedule: str, seed: int, groups: int, devices: int) -> None:
    costs = varied(seed, groups, devices)
    partial = PartialSchedules([costs], [schedule], num_rows=1)
    chosen = np.random.default_rng(seed + 1).integers(devices, size=groups)
    outlook = partial.look(ROW)
    for group in range(groups):
        expected = [
            prefix_time(costs, schedule, [*chosen[:group], device]) for device in range(devices)
        ]
        np.testing.assert_array_equal(outlook.value_s[0], expected)
        outlook = partial.place(ROW, chosen[[group]])
        assert partial.value_s[0] == expected[chosen[group]]
    assert partial.cursor[0] == groups


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**16))
def test_rows_of_several_problems_do_not_disturb_each_other(seed: int) -> None:
    problems = [varied(seed, 7, 3), varied(seed + 1, 4, 2, memory_bytes=np.array([3.0, np.inf]))]
    schedules = ["concurrent", "max_load"]
    together = PartialSchedules(problems, schedules, num_rows=5)
    alone = [PartialSchedules([c], [s], 1) for c, s in zip(problems, schedules, strict=True)]
    generator = np.random.default_rng(seed)
    of = generator.integers(2, size=5)
    rows = np.arange(5)
    seen = together.begin(rows, of).values
    chosen = generator.integers(2, size=(7, 5))
    for row in rows:
        one = alone[of[row]]
        expected = one.begin(ROW, ROW).values
        np.testing.assert_array_equal(seen[row, : expected.shape[1]], expected[0])
    for group in range(7):
        active = rows[together.cursor < np.array([7, 4])[of]]
        seen = together.place(active, chosen[group, active]).values
        for row, values in zip(active, seen, strict=True):
            one = alone[of[row]]
            one.begin(ROW, ROW)
            for device in chosen[: group + 1, row]:
                expected = one.place(ROW, np.array([device])).values
            np.testing.assert_array_equal(values[: expected.shape[1]], expected[0])
            assert not values[expected.shape[1] :].any()


def test_a_problem_can_be_replaced_by_a_larger_one() -> None:
    small, large = varied(0, 3, 2), varied(1, 9, 4, memory_bytes=np.array([9.0, 9.0, 5.0, 5.0]))
    partial = PartialSchedules([small, small], ["concurrent", "concurrent"], num_rows=2)
    rows = np.arange(2)
    partial.begin(rows, rows)
    partial.place(rows, np.array([1, 0]))
    partial.replace(1, large, "sequential")
    partial.begin(np.array([1]), np.array([1]))
    partial.place(rows, np.array([0, 3]))
    assert partial.value_s[0] == prefix_time(small, "concurrent", [1, 0])
    assert partial.value_s[1] == prefix_time(large, "sequential", [3])


def test_compiled_and_plain_python_agree() -> None:
    costs = varied(3, 9, 3)
    chosen = np.random.default_rng(3).integers(3, size=9)
    results = []
    for function in (advance, advance.__wrapped__):  # type: ignore[attr-defined]
        partial = PartialSchedules([costs], ["sequential"], num_rows=1)
        values = np.zeros((1, 3, 11))
        for device in chosen:
            function(partial._costs, partial._state, ROW, np.array([device]), values)
            results.append((values.copy(), partial.value_s[0]))
    for (one, value), (other, same) in zip(results[:9], results[9:], strict=True):
        np.testing.assert_array_equal(one, other)
        assert value == same


def test_weights_that_do_not_fit_are_seen() -> None:
    costs = make_costs(
        [[1.0, 1.0], [1.0, np.inf]],
        {0: (1.0, [1])},
        group_bytes=np.array([2.0, 3.0]),
        memory_bytes=np.array([4.0, np.inf]),
    )
    partial = PartialSchedules([costs], ["sequential"], num_rows=1)
    assert can_run(partial.look(ROW)).tolist() == [[True, True]]
    outlook = partial.place(ROW, ROW)
    assert outlook.room_bytes.tolist() == [[-1.0, np.inf]]
    assert can_run(outlook).tolist() == [[False, False]]


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match="Unknown schedule 'sequentiel'"):
        PartialSchedules([varied(0)], ["sequentiel"], num_rows=1)
