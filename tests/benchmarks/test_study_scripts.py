from __future__ import annotations

import dataclasses
from pathlib import Path

import openvino as ov
import pytest

from device_placement.benchmarks import problem_speed, study, training_speed
from device_placement.benchmarks.accuracy import AccuracyConfig
from device_placement.benchmarks.accuracy import main as search_under_a_limit
from device_placement.benchmarks.correctness import CorrectnessConfig, check_model
from device_placement.benchmarks.correctness import main as check_correctness
from device_placement.benchmarks.isolation import IsolationConfig
from device_placement.benchmarks.isolation import main as compare_isolations
from device_placement.benchmarks.memory import MemoryConfig
from device_placement.benchmarks.memory import main as check_memory
from device_placement.benchmarks.noise import NoiseConfig
from device_placement.benchmarks.noise import main as measure_noise
from device_placement.benchmarks.own_models import Found, OwnModelsConfig, check, holds, is_clear
from device_placement.benchmarks.own_models import main as check_own_models
from device_placement.benchmarks.ranking import RankingConfig, pairs_apart
from device_placement.benchmarks.ranking import main as rank
from device_placement.benchmarks.speed import SpeedConfig, StepTimes
from device_placement.benchmarks.speed import main as print_speed
from device_placement.benchmarks.startup import StartupConfig
from device_placement.benchmarks.startup import main as time_startup
from others import FILES, shapes_text


@pytest.mark.parametrize("model", ["resnet50", "inception_v3"])
def test_placed_models_compute_the_same_where_they_were_told_to(model: str) -> None:
    found = check_model(model, CorrectnessConfig(placements=1, seed=7))
    assert found.num_failed == 0
    assert found.error <= found.tolerance
    assert found.num_misplaced == 0
    capabilities = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in capabilities:  # otherwise both instances run in f32 and nothing tells them apart
        assert found.num_seen > 50
    assert found.holds


def test_the_correctness_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert check_correctness(CorrectnessConfig(models=("diamond",), placements=2)) == 0
    assert "diamond" in capsys.readouterr().out


def test_own_shares_are_what_is_left_of_a_step() -> None:
    assert StepTimes([2.0, 4.0], [1.0, 1.0], [0.5, 3.0]).own_shares() == [0.25, 0.0]


def test_speed_and_memory_print_a_line_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_speed(SpeedConfig(models=("diamond",), steps=2)) == 0
    assert check_memory(MemoryConfig(model="diamond", evaluations=3)) == 0
    text = capsys.readouterr().out
    assert "placements/min" in text
    assert "growth" in text


def test_steps_over_many_problems_are_counted_and_shared_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    effort = problem_speed.Effort(problems=4, steps=3, repeats=1, shapes=((4, 2), (4, 1)))
    assert problem_speed.run(0, effort) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [row[:2] for row in rows if row[0] == "4" and len(row) > 3][1:] == [
        ["4", "2"],
        ["4", "1"],
    ]
    assert rows[-2][0] == "place"
    assert float(rows[-1][-1]) > 0


def test_the_time_of_a_training_is_shared_out(capsys: pytest.CaptureFixture[str]) -> None:
    effort = training_speed.Effort(
        "nodewise_ppo", "diamond", 32, 32, (1, 2), ("ppo", "hsdag"), least=1, rounds=2
    )
    assert training_speed.run(effort) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines[3:5]:
        shares = [int(one[:-1]) for one in line.split() if one.endswith("%")]
        assert len(shares) == 4
        assert 97 <= sum(shares) <= 103
    rows = [line.split() for line in lines[7:]]
    assert [row[:3] for row in rows] == [
        ["ppo", "assign", "16"],
        ["hsdag", "assign", "1"],
    ]
    assert all(float(row[5]) > 0 for row in rows)


def test_startup_is_timed_in_seconds_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    assert time_startup(StartupConfig(repeats=1, commands=("devices",))) in (0, 1)
    rows = [line.split()[-2:] for line in capsys.readouterr().out.splitlines()[1:4]]
    assert float(rows[0][1]) == 1.0
    assert all(float(seconds) > 0 and float(ratio) < 20 for seconds, ratio in rows)


def test_noise_is_told_for_both_protocols_in_both_conditions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert measure_noise(NoiseConfig(model="diamond", repeats=2)) == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line.split()[:2] for line in lines if "varies" not in line][-4:]
    assert told == [["quiet", "plain"], ["quiet", "paired"], ["loaded", "plain"],
                    ["loaded", "paired"]]  # fmt: skip


def test_ranking_counts_and_times_all_ways(capsys: pytest.CaptureFixture[str]) -> None:
    config = RankingConfig(models=("diamond",), placements=4, best=2, difference=0.0, rounds=2)
    assert rank(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["diamond", "flat"],
        ["diamond", "growing"],
        ["diamond", "naive"],
    ]
    assert all("of 1" in line for line in lines[2:5])
    assert "times as many placements a minute" in lines[-2]
    assert "times as long as that of flat" in lines[-1]


def test_pairs_are_of_the_fastest_and_differ_enough() -> None:
    true = {4: 1.04, 7: 1.0, 2: 1.06, 9: 5.0}
    assert pairs_apart(true, best=3, difference=0.05) == [(7, 2)]
    assert pairs_apart(true, best=4, difference=0.05) == [(7, 2), (7, 9), (4, 9), (2, 9)]


def test_isolations_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    compare_isolations(IsolationConfig(model="diamond", placements=2))
    assert "difference" in capsys.readouterr().out


def test_searches_under_an_accuracy_limit_are_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store, out = str(tmp_path / "store.sqlite"), str(tmp_path / "found.csv")
    config = AccuracyConfig(
        ("diamond",), ("random",), budget=4, seeds=1, rounds=2, store=store, out=out
    )
    assert search_under_a_limit(config) == 0
    more = dataclasses.replace(config, searches=("random", "ppo"))
    assert search_under_a_limit(more) == 0
    output = capsys.readouterr()
    assert output.out.count("diamond: outputs within") == 2
    assert "ppo, median over the seeds" in output.out
    assert output.err.count("random, seed 0") == 1  # the second call goes on with the first


def test_own_models_are_described_split_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    paths = (str(FILES["nncf_int8"]), str(FILES["lstm_state"]))
    config = OwnModelsConfig(paths, splits=2, compiles=1, rounds=2, max_slowdown=1e9)
    assert check_own_models(config) == 0
    output = capsys.readouterr()
    lines = [line.split() for line in output.out.splitlines()]
    assert lines[1][0] == "nncf_int8.xml"
    assert lines[2][:2] + lines[2][4:7] == ["lstm_state.xml", "3", "2", "0", "2/2"]
    assert "2 of 2 models hold" in output.out
    assert output.err == ""


@pytest.mark.filterwarnings("default::device_placement.envs.InventedInputsWarning")
def test_a_study_warns_of_invented_inputs_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(FILES["if_loop"]), "--splits", "1", "--compiles", "0"]
    with pytest.raises(SystemExit) as ended:
        study.run(check_own_models, OwnModelsConfig, None, words)
    output = capsys.readouterr()
    assert ended.value.code == 0
    assert "1 of 1 models hold, reaches all 1: right splits\n" in output.out
    lines = output.err.splitlines()
    assert lines
    assert all(line.startswith("device-placement: 'x', 'steps' of 'if_loop'") for line in lines)


def test_own_models_take_the_shapes_of_their_inputs() -> None:
    shapes = f"{shapes_text('nncf_int4')};{shapes_text('vit')}"
    devices = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_F32:INFERENCE_PRECISION_HINT=f32"
    config = OwnModelsConfig((), devices=devices, input_shapes=shapes, splits=1, compiles=0)
    for name in ("nncf_int4", "vit"):
        found = check(str(FILES[name]), config)
        assert (found.error, found.valid, found.loaded) == ("", 1, [])
        assert holds(found, config)
    assert "Dynamic shapes" in check(str(FILES["whisper_encoder"]), config).error


def test_own_models_that_do_not_load_are_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    config = OwnModelsConfig((str(broken), "diamond"), compiles=0)
    assert check_own_models(config) == 1
    text = capsys.readouterr().out
    assert "broken.onnx  FAILS: OpenVINO can't read the model file" in text
    assert "diamond  FAILS: Got the bundled model 'diamond'; give paths of model files." in text
    assert "0 of 2 models hold, MISSES" in text


def test_a_model_holds_with_all_splits_right_and_no_slower_than_its_file() -> None:
    config = OwnModelsConfig((), splits=5, max_slowdown=0.03)
    assert holds(Found("m", valid=5, loaded=[1.2, 1.03, 0.9]), config)
    assert not holds(Found("m", valid=5, loaded=[1.2, 1.04, 0.9]), config)
    assert not holds(Found("m", valid=5, loaded=[0.9], single=[1.2, 1.04, 0.9]), config)
    assert not holds(Found("m", valid=4, loaded=[0.9]), config)
    assert not holds(Found("m", error="no", valid=5), config)


def test_compiles_end_when_the_interval_is_on_one_side_of_the_limit() -> None:
    fast, slow = [0.9, 0.95, 1.0, 0.97, 0.93, 0.99], [1.2, 1.1, 1.04, 1.05, 1.3, 1.09]
    assert is_clear(fast, 1.03)
    assert is_clear(slow, 1.03)
    assert not is_clear(fast[:5], 1.03)
    assert not is_clear([*fast, *slow], 1.03)
