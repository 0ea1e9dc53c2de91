from __future__ import annotations

import math

import pytest

from device_placement.benchmarks.sampling import SamplingConfig, main, missed, sample, search
from device_placement.envs import DevicePlacementError
from device_placement.envs.measuring.timing import Timing

FEW = SamplingConfig(searches=3)


def test_a_larger_growth_takes_no_more_samples_of_any_placement() -> None:
    flat, some, large = (search(FEW, growth).num_samples for growth in (0.0, 1.0, 8.0))
    assert all(a >= b >= c for a, b, c in zip(flat, some, large, strict=True))
    assert sum(flat) > sum(some) > sum(large)


@pytest.mark.parametrize(("bursts", "as_many"), [(0.0, 2.5), (0.2, 3.0)])
def test_the_default_takes_less_time_and_misses_little(bursts: float, as_many: float) -> None:
    config, growth = SamplingConfig(searches=20), Timing().tolerance_growth
    flat, growing = search(config, 0.0, bursts), search(config, growth, bursts)
    assert sum(flat.search_s) > as_many * sum(growing.search_s)
    assert sum(growing.right) > 0.9 * len(growing.right)
    assert missed(config, growth, bursts) < 0.01


def test_sampling_ends_with_the_time_or_the_samples() -> None:
    wide = [1.0, 2.0] * 20
    assert sample(wide, 0.0, Timing()) == 40
    assert sample(wide, 1.0, Timing(max_seconds=5.0)) == 6
    assert sample([1.0] * 40, 0.0, Timing()) == 6


def test_a_line_for_each_growth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SamplingConfig(growths=(0.0, 8.0), searches=2)) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[0] for line in lines] == ["0", "8"]
    assert lines[0].split()[3] == "1.00"
    assert all(math.isfinite(float(one.rstrip("%"))) for one in lines[1].split())


def test_times_of_placements_are_at_least_that_of_the_best() -> None:
    with pytest.raises(DevicePlacementError, match=r"Got fastest=.* and slowest="):
        SamplingConfig(fastest=0.9)
    with pytest.raises(DevicePlacementError, match=r"Got bursts=.* from 0 to 1"):
        SamplingConfig(bursts=(2.0,))
