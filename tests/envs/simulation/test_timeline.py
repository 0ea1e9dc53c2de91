"""The events behind a simulated time."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costs import costs_with_ends, make_costs, random_costs
from device_placement.envs import DevicePlacementError, PlacementError
from device_placement.envs.rendering.style import PALETTE, device_colours
from device_placement.envs.rendering.timeline import draw_timeline
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times
from device_placement.envs.simulation.timeline import Event, timeline

# A diamond: 0 feeds 1 and 2 with 2 bytes, 1 feeds 3 with 3 bytes, 2 feeds 3 with 1 byte.
COMPUTE = [[1.0, 2.0], [5.0, 1.0], [1.0, 5.0], [1.0, 2.0]]
DIAMOND = make_costs(COMPUTE, {0: (2.0, [1, 2]), 1: (3.0, [3]), 2: (1.0, [3])})


def test_the_diamond_by_hand() -> None:
    assert timeline(DIAMOND, [0, 1, 0, 0], "concurrent") == [
        Event(0, 0, 0.0, 1.0, 0),
        Event(0, 1, 1.0, 3.0, 0),
        Event(1, 1, 3.0, 4.0, 1),
        Event(0, 0, 1.0, 2.0, 2),
        Event(1, 0, 4.0, 7.0, 1),
        Event(0, 0, 7.0, 8.0, 3),
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4))
def test_it_ends_when_the_schedule_says(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    costs = random_costs(generator, groups, devices)
    placement = generator.integers(devices, size=groups)
    for schedule in SCHEDULES:
        events = timeline(costs, placement, schedule)
        (expected_s,) = schedule_times(costs, placement[None], schedule)
        assert max(one.end_s for one in events) == pytest.approx(expected_s)
        assert sorted(one.group for one in events if not one.moves and one.group >= 0) == [
            *range(groups)
        ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 4))
def test_regions_end_when_the_schedule_says(seed: int, groups: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    costs = costs_with_ends(generator, groups, devices)
    placement = generator.integers(devices, size=groups)
    events = timeline(costs, placement, "dataflow")
    (expected_s,) = schedule_times(costs, placement[None], "dataflow")
    assert max(one.end_s for one in events) == pytest.approx(expected_s)
    computed = sorted(one.group for one in events if not one.moves and one.group >= 0)
    assert computed == [*range(groups)]
    for lane in {(one.source, one.target) for one in events}:
        assert not overlaps([one for one in events if (one.source, one.target) == lane])


def test_subgraphs_are_events_of_their_own() -> None:
    costs = make_costs(COMPUTE, {0: (2.0, [1, 2])}, subgraph_s=np.array([0.5, 0.25]))
    events = timeline(costs, [0, 1, 0, 0], "sequential")
    (expected_s,) = schedule_times(costs, np.array([[0, 1, 0, 0]]), "sequential")
    assert events[-1].end_s == expected_s
    assert [one.group for one in events[-2:]] == [-1, -1]


def test_what_can_not_run_is_refused() -> None:
    costs = make_costs([[1.0, np.inf]], {})
    with pytest.raises(PlacementError, match="can't run a group"):
        timeline(costs, [1], "sequential")
    with pytest.raises(DevicePlacementError, match="Unknown schedule 'sequentail'"):
        timeline(costs, [0], "sequentail")


def overlaps(events: Sequence[Event]) -> bool:
    ordered = sorted(events, key=lambda one: one.start_s)
    return any(b.start_s < a.end_s for a, b in itertools.pairwise(ordered))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_lane_does_one_thing_at_a_time_and_is_drawn(schedule: str) -> None:
    costs = random_costs(np.random.default_rng(5), 12, 3)
    placement = np.random.default_rng(6).integers(3, size=12)
    events = timeline(costs, placement, schedule)
    for lane in {(one.source, one.target) for one in events}:
        assert not overlaps([one for one in events if (one.source, one.target) == lane])
    figure = draw_timeline(events, ["CPU", "GPU", "NPU"], "twelve groups")
    (axes,) = figure.axes
    assert axes.get_xlabel().startswith("time in ")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.partition(",")[0] for name in names[:3]] == ["CPU", "GPU", "NPU"]
    assert len(names) == len({(one.source, one.target) for one in events if one.moves}) + 3


def test_a_device_has_its_colour_wherever_it_stands() -> None:
    assert device_colours(["NPU", "CPU"]) == device_colours(["CPU", "NPU"])[::-1]
    many = device_colours([f"X{number}" for number in range(9)])
    assert many == [*PALETTE, *PALETTE[:2]]
    every = device_colours(["GPU", "GPU.0", "CPU", "CPU_2", "CPU_F32", "NPU", "GPU.1"])
    assert len(set(every)) == len(every)
