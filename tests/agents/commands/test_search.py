"""The command `device-placement search`: what it leaves, prints and refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.search import SearchCommand, describe_proof, search
from device_placement.agents.placers import PLACERS, PlacerEntry, make_placer
from device_placement.agents.placers.base import PlacerResult, Trace
from device_placement.agents.runs.resume import resume_config
from device_placement.envs import DevicePlacementError, Placement, make_evaluator
from device_placement.envs.evaluation import Evaluator
from platforms import needs_signals
from problems import FLUSHING, fading
from runs import interrupt, lines

COMMAND = [sys.executable, "-m", "device_placement.agents.cli", "search"]
SIMULATED: dict[str, Any] = {"model": "diamond", "evaluator": "simulator", "hardware": "laptop"}
NAMES = [name for name in PLACERS if name not in ("contiguous", "min_cut", "cp_sat")]


@pytest.mark.parametrize("name", NAMES)
def test_every_placer_leaves_a_whole_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    config = SearchCommand(**SIMULATED, schedule="concurrent", placer=name, budget=20, out=str(out))
    assert search(config) == 0
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "evaluations.jsonl",
        "best_placement.json",
        "result.json",
    }
    text = capsys.readouterr().out
    assert "all on CPU" in text
    assert "best found" in text
    result = json.loads((out / "result.json").read_text())
    assert result["bound_s"] is None
    assert result["settings"]["placer"] == name
    assert 3 <= result["evaluated"]["distinct"] <= 20
    times = {row["name"]: row["time_s"] for row in result["rows"]}
    assert times[result["result"]] == min(times.values())
    assert Placement.load(out / "best_placement.json").model_name == "diamond"


def test_a_generated_problem_is_searched_and_resumed_under_its_own_schedule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = make_evaluator("generated:3", evaluator="simulator")
    out = str(tmp_path / "run")
    words = ["search", "generated:3", "--placer", "annealing", "--evaluator", "simulator"]
    assert main([*words, "--budget", "30", "--out", out]) == 0
    assert main(["search", "--resume", "--out", out, "--budget", "40"]) == 0
    placement = json.loads((tmp_path / "run" / "best_placement.json").read_text())
    assert placement["model"] == own.coarse.graph.name
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["evaluated"]["distinct"] == 40
    best_s = min(row["time_s"] for row in result["rows"] if row["time_s"] is not None)
    (row,) = [row for row in result["rows"] if row["name"] == result["result"]]
    assert row["time_s"] == best_s
    assert main([*words[:2], "--placer", "annealing", "--out", f"{out}2"]) == 2
    assert "can only be simulated; add --evaluator simulator" in capsys.readouterr().err


def test_a_plan_that_is_no_improvement_has_a_row_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings: dict[str, Any] = {"model": "resnet50", "evaluator": "simulator", "hardware": "paper"}
    assert search(SearchCommand(**settings, placer="m_etf", budget=9, out=str(out))) == 0
    rows = {row["name"]: row for row in json.loads((out / "result.json").read_text())["rows"]}
    assert rows["m_etf"]["time_s"] > rows["best found"]["time_s"] == rows["all on GPU.1"]["time_s"]


class Prover:
    """Evaluates the singles and claims a bound of half the best."""

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        trace = Trace(evaluator, budget)
        return trace.result(bound_s=min(trace.singles()) / 2)


def test_a_bound_is_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "device_placement.agents.commands.search.make_placer", lambda name: Prover()
    )
    out = tmp_path / "run"
    assert search(SearchCommand(**SIMULATED, budget=9, out=str(out))) == 0
    assert "the one found takes 100.00 % more" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    best_s = min(row["time_s"] for row in result["rows"])
    assert result["bound_s"] == best_s / 2


@dataclass(frozen=True)
class Limited:
    """Takes a limit, and tells it as the bound that it proves."""

    time_limit_s: float = 60.0

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        return Trace(evaluator, budget).result(bound_s=self.time_limit_s)


def test_a_time_limit_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(PlacerEntry, "load", lambda self: Limited)
    words = "--model diamond --evaluator simulator --placer cp_sat --rounds 0 --time-limit 7"
    assert main(["search", *words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "No placement takes less than 7000.000 ms; none was found." in capsys.readouterr().out


def test_a_proof_in_words() -> None:
    found: dict[str, Any] = {"assignment": (0,), "time_s": 2e-3, "evaluations": (), "wall_s": 1.0}
    assert describe_proof(PlacerResult(**found)) == ""
    assert "2.000 ms; the one found is proven" in describe_proof(
        PlacerResult(**found, bound_s=2e-3)
    )
    assert "takes inf % more" in describe_proof(PlacerResult(**found, bound_s=0.0))
    none = found | {"assignment": (), "time_s": math.nan}
    assert "1.000 ms; none was found" in describe_proof(PlacerResult(**none, bound_s=1e-3))


def test_a_search_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"evaluator": "simulator", "placer": "random"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert search(SearchCommand(**settings, budget=30, rounds=0, out=str(whole))) == 0
    assert not (whole / "result.json").exists()
    assert search(SearchCommand(**settings, budget=12, out=str(parts))) == 0
    assert search(resume_config(SearchCommand, str(parts), budget=30)) == 0
    assert [line["assignment"] for line in lines(parts)] == [
        line["assignment"] for line in lines(whole)
    ]
    with pytest.raises(DevicePlacementError, match="has placer='random', not 'genetic'"):
        search(dataclasses.replace(resume_config(SearchCommand, str(parts)), placer="genetic"))


def test_what_was_asked_for_before_counts_once(tmp_path: Path) -> None:
    """Annealing asks for the same placements again and again."""
    settings: dict[str, Any] = {"evaluator": "simulator", "model": "diamond", "rounds": 0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = SearchCommand(**settings, placer="annealing", budget=14, out=str(parts))
    assert search(dataclasses.replace(config, budget=10)) == 0
    assert search(resume_config(SearchCommand, str(parts), budget=14)) == 0
    assert search(dataclasses.replace(config, out=str(whole))) == 0
    requests = [line["requests"] for line in lines(whole)]
    assert [line["requests"] for line in lines(parts)][10:] == requests[10:]


def test_settings_that_are_the_default_are_given_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    begun = ["--evaluator", "simulator", "--seed", "5", "--budget", "6", "--rounds", "0"]
    assert main(["random", *begun, *out]) == 0
    assert main(["random", "--resume", "--seed", "0", *out]) == 2
    assert "has --seed 5, not 0; leave the setting out" in capsys.readouterr().err
    assert main(["random", "--resume", *out]) == 0
    assert len(lines(tmp_path / "run")) == 6
    assert main(["random", "--resume", "--budget", "300", *out]) == 0  # the default
    assert len(lines(tmp_path / "run")) == 300


def test_where_no_single_is_valid_there_is_nothing_to_compare_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware = ["--hardware", "small_gpu", "--devices", "GPU.0,GPU.1", "--model", "bert_base"]
    words = ["--placer", "stages", "--evaluator", "simulator", *hardware, "--budget", "20"]
    assert main(["search", *words, "--out", str(tmp_path / "run")]) == 0
    (found,) = (line for line in capsys.readouterr().out.splitlines() if " *" in line)
    assert found.startswith("best found *")
    assert found.endswith(" -")


def test_failed_placements_are_counted_by_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device that takes tiny numbers as 0 gives wrong outputs for a model that needs them."""
    if FLUSHING not in ov.Core().get_property("CPU", "SUPPORTED_PROPERTIES"):
        pytest.skip("this CPU plugin has no setting for denormal numbers")
    f32 = "INFERENCE_PRECISION_HINT=f32"
    devices = ["--devices", f"CPU:{f32},CPU_F:{f32};{FLUSHING}=YES", "--max-output-error", "0.1"]
    quick = ["--timing", "plain", "--warmup", "0", "--max-samples", "1", "--store", "None"]
    out = tmp_path / "run"
    words = ["search", fading(tmp_path), "--placer", "single", *devices, *quick, "--budget", "3"]
    assert main([*words, "--rounds", "1", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    cause = "The outputs differ from the reference's by N in relative L2 norm; max_output_error=N"
    assert "1 of 2 placements failed:" in text
    assert text.count("file as it is, on CPU") == 1
    assert f"  1: {cause}" in text
    result = json.loads((out / "result.json").read_text())
    assert sum(row["name"].startswith("file as it is") for row in result["rows"]) == 2
    assert result["warnings"] == []  # one sample is too few for any
    (failure,) = result["failures"]
    assert failure["cause"].startswith(cause)
    assert failure["count"] == 1
    assert set(failure["assignment"]) == {1}
    assert "max_output_error=0.1 is allowed" in failure["example"]


def test_where_every_placement_fails_the_causes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither GPU holds the weights, and a single is all that this placer tries."""
    hardware = ["--hardware", "small_gpu", "--devices", "GPU.0,GPU.1", "--budget", "3"]
    words = ["bert_base", "--placer", "single", "--evaluator", "simulator", *hardware]
    assert main(["search", *words, "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert "2 of 2 placements failed:" in captured.out
    assert (
        "None of the 2 placements is valid. Their number by cause: 1: The weights on GPU.0 t"
        in (captured.err)
    )


def test_the_result_of_a_placer_has_the_causes() -> None:
    evaluator = make_evaluator(
        "bert_base", "GPU.0,GPU.1", evaluator="simulator", hardware="small_gpu"
    )
    found = make_placer("single").place(evaluator, 3, 0)
    assert [cause.count for cause in found.failures] == [1, 1]
    assert found.assignment == ()


@needs_signals
def test_ctrl_c_leaves_a_usable_result(tmp_path: Path) -> None:
    """A real search in its own process, interrupted once it has evaluated something."""
    out = tmp_path / "run"
    options = ["--evaluator", "simulator", "--placer", "annealing", "--budget", "1000000"]
    interrupt(out, "search", "resnet50", *options)
    spent = len(lines(out))
    more = ["--resume", "--out", str(out), "--budget", str(spent + 2), "--rounds", "1"]
    done = subprocess.run([*COMMAND, *more], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(lines(out)) == spent + 2
    assert b"best found" in done.stdout


def test_help_lists_the_placers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in PLACERS if name not in text] == []
    assert "--time-limit" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--placer anealing", "Unknown placer 'anealing'.*Did you mean 'annealing'"),
        (
            "--placer heft",
            "'heft' needs simulated costs; add --evaluator simulator, or use one of: .*genetic",
        ),
        ("--placer genetic --time-limit 5", "'genetic' has no time limit; use --budget"),
        ("--schedule concurrent", "are for the simulator; add --evaluator simulator"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(
    words: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--model", "diamond", *words.split()]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
