from __future__ import annotations

import numpy as np
import openvino as ov
import pytest

from device_placement.benchmarks.correctness import CorrectnessConfig, check_model, relative_error
from device_placement.benchmarks.correctness import main as check_correctness
from device_placement.benchmarks.memory import MemoryConfig
from device_placement.benchmarks.memory import main as check_memory
from device_placement.benchmarks.speed import SpeedConfig, StepTimes
from device_placement.benchmarks.speed import main as print_speed


@pytest.mark.parametrize("model", ["resnet50", "inception_v3", "bert_base"])
def test_placed_models_compute_the_same_where_they_were_told_to(model: str) -> None:
    found = check_model(model, CorrectnessConfig(placements=2, seed=7))
    assert found.num_failed == 0
    assert found.error <= found.tolerance
    assert found.num_misplaced == 0
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in capabilities:  # otherwise both instances run in f32 and nothing tells them apart
        assert found.num_seen > 50
    assert found.holds


def test_a_nan_in_an_output_is_an_error() -> None:
    assert np.isnan(relative_error([np.array([np.nan, 1.0])], [np.array([1.0, 1.0])]))
    assert relative_error([np.array([3.0, 4.0])], [np.array([0.0, 4.0])]) == 0.75


def test_the_correctness_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_correctness(CorrectnessConfig(models=("diamond",), placements=2)) == 0
    assert "diamond" in capsys.readouterr().out


def test_own_shares_are_what_is_left_of_a_step() -> None:
    assert StepTimes([2.0, 4.0], [1.0, 1.0], [0.5, 3.0]).own_shares() == [0.25, 0.0]


def test_speed_and_memory_print_a_line_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_speed(SpeedConfig(models=("diamond",), steps=3)) == 0
    assert check_memory(MemoryConfig(model="diamond", evaluations=6)) == 0
    text = capsys.readouterr().out
    assert "placements/min" in text
    assert "growth" in text
