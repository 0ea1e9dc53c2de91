"""The pretrained policy as its users meet it: `place` without a policy, `search`, wrong options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_placement.agents.cli import main
from device_placement.agents.placers.pretrained.weights import shipped_weights
from problems import TWO_CPUS
from runs import lines

pytestmark = pytest.mark.usefixtures("one_thread")

SIMULATED = [
    *("inception_v3", "--evaluator", "simulator", "--hardware", "laptop"),
    *("--schedule", "concurrent", "--max-groups", "40", "--devices", "CPU,GPU,NPU"),
]
MEASURED = ["diamond", "--devices", TWO_CPUS, "--max-samples", "4", "--rounds", "2"]


def times(out: Path) -> dict[str, float]:
    result = json.loads((out / "result.json").read_text())
    return {row["name"]: row["time_s"] for row in result["rows"]}


def test_a_model_is_placed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "placed"
    assert main(["place", *SIMULATED, "--out", str(out)]) == 0
    assert "policy, at once" in capsys.readouterr().out
    assert len(lines(out)) <= 3 + 1
    found = times(out)
    assert found["policy, at once"] < min(found["all on CPU"], found["all on GPU"])


def test_samples_and_fine_tuning_are_rows_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "placed"
    words = ["place", *SIMULATED, "--samples", "16", "--finetune", "60", "--out", str(out)]
    assert main([*words, "--policy", str(shipped_weights())]) == 0
    assert 3 + 1 + 16 < len(lines(out)) <= 3 + 1 + 16 + 60
    found = times(out)
    assert found["best found"] <= found["best of 16 samples"]
    assert found["best found"] <= found["policy, at once"]
    assert "fine-tuned, greedy" in found


def test_a_measured_model_is_placed_with_costs_of_profiled_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "placed"
    assert main(["place", *MEASURED, "--finetune", "4", "--out", str(out)]) == 0
    assert "measured again in turns" in capsys.readouterr().out
    assert 2 <= len(lines(out)) <= 2 + 1 + 4


def test_it_is_a_placer_and_a_start_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *SIMULATED, "--budget", "40"]
    assert main([*words, "--placer", "pretrained", "--out", str(tmp_path / "a")]) == 0
    assert main([*words, "--start", "pretrained", "--out", str(tmp_path / "b")]) == 0
    assert "best found" in capsys.readouterr().out
    one, other = ([row["assignment"] for row in lines(tmp_path / name)] for name in ("a", "b"))
    assert one[:4] == other[:4]  # the singles, then the greedy placement
    assert one != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "--start", "pretrained", "--placer", "genetic"], "which has no start"),
        (["search", "--start", "best"], "Unknown start 'best'"),
        (["place", "--policy", "none.safetensors"], "Can't read 'none.safetensors'"),
        (["place", "--torch-device", "cuda"], "cuda"),
        (["place", "--samples", "-1"], "samples -1"),
    ],
)
def test_a_wrong_option_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *options = words
    out = str(tmp_path / "run")
    assert main([command, *SIMULATED, *options, "--out", out]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_search_takes_a_profile_as_its_prior(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["search", *MEASURED, "--budget", "4", "--profile", "auto", "--rounds", "0"]
    words += ["--isolation", "none", "--placer"]
    out = tmp_path / "run"
    assert main([*words, "posterior_sampling", "--out", str(out)]) == 0
    assert len(lines(out)) <= 4
    assert main([*words, "genetic"]) == 2
    assert "does not know costs when placements are measured" in capsys.readouterr().err
