from __future__ import annotations

import numpy as np
import pytest

from device_placement.benchmarks import simulator_speed
from device_placement.benchmarks.simulator_speed import (
    Effort,
    SpeedTarget,
    growth,
    layered_costs,
    quickest_s,
    run,
    target_costs,
)
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times
from places import HELPERS

LITTLE = Effort(repeats=1, batch=4, num_envs=2, steps=2, growth=(20, 40))


def test_every_figure_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(effort=LITTLE) == 0
    text = capsys.readouterr().out
    for schedule in SCHEDULES:
        assert text.count(schedule) == 3  # on two graphs, and how it grows
    for word in ("1,500,000", "2 copies", "without Gymnasium's checker", "slope"):
        assert word in text


def test_costs_are_read_from_files_where_there_are_some() -> None:
    generator = np.random.default_rng(0)
    target = SpeedTarget("two_towers.json", 30, {})
    read = target_costs(target, str(HELPERS / "workloads"), generator)
    assert (read.num_groups, read.num_devices) == (8, 4)
    assert target_costs(target, "", generator).num_groups == 30


def test_random_graphs_repeat_and_are_topological() -> None:
    one, other = (layered_costs(95, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.reader, other.reader)
    for tensor in range(one.num_tensors):
        readers = one.readers(tensor)
        assert readers.size
        assert (np.diff(readers) > 0).all()
        assert readers.min() > one.tensor_group[tensor]
        assert set(readers // 10) == {one.tensor_group[tensor] // 10 + 1}
    assert set(one.reader) == set(range(10, 95))
    assert np.isfinite(schedule_times(one, np.zeros((1, 95), dtype=np.uint8), "concurrent")).all()


def test_growth_is_timed_for_each_size() -> None:
    times = growth("sequential", 0, LITTLE)
    assert len(times) == 2
    assert min(times) >= 0


def test_a_schedule_that_grows_faster_is_timed_up_to_its_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(simulator_speed.LARGEST, "dataflow", 20)
    assert len(growth("dataflow", 0, LITTLE)) == 1
    assert len(growth("concurrent", 0, LITTLE)) == 2


def test_what_takes_long_is_timed_less_often() -> None:
    calls: list[int] = []
    assert quickest_s(lambda: calls.append(1), 5) < 1
    assert len(calls) == 1 + 5
