"""The command `optimize`: a whole folder, its verdict, resumed and interrupted runs, bad input."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents import optimize
from device_placement.agents.cli import main
from device_placement.agents.commands import optimize as command
from device_placement.agents.optimizing.confirm import FOUND
from device_placement.agents.optimizing.verdict import Verdict
from device_placement.agents.runs.recording import LostError
from device_placement.envs import DevicePlacementError
from device_placement.envs.profiling import measured_profile
from problems import chain
from runs import lines

ALIKE = "CPU,CPU_B"
QUICK = ["--isolation", "none", "--max-samples", "2", "--rounds", "2", "--minutes", "0.3"]
FILES = {
    *("model.xml", "model.bin", "run.py", "run.json", "run.cpp", "CMakeLists.txt"),
    *("RESULT.md", "result.json", "config.json", "profile.json"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    return chain(folder)


@pytest.fixture
def promising(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that continues, whatever the clock says."""
    monkeypatch.setattr(Verdict, "promising", True)
    monkeypatch.setattr(command, "RESERVE_S", 16.0)  # of 18 seconds


@pytest.fixture(scope="module")
def optimized(folder: Path, model: str) -> Path:
    """The folder of a run with a search."""
    out = folder / "optimized"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Verdict, "promising", True)
        patch.setattr(command, "RESERVE_S", 16.0)
        assert main(["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]) == 0
    return out


def result_of(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "result.json").read_text())
    return content


def test_a_run_leaves_a_whole_folder(optimized: Path) -> None:
    left = {path.name for path in optimized.iterdir()}
    assert left >= FILES
    assert "best_placement.json" not in left
    found = result_of(optimized)
    assert {"all on CPU", "all on CPU_B", "OpenVINO AUTO"} <= found["as_it_is"].keys()
    assert [one for one in found["as_it_is"] if one.startswith("file as it is, ")] != []
    assert found["placements_measured"] >= 2 + 8
    assert found["check"]["outputs_hold"]
    assert found["search_ended"]
    assert found["machine"]["openvino"]
    names = {row["name"] for row in found["rows"]}
    assert {"OpenVINO AUTO", "file as it is, by OpenVINO AUTO"} <= names
    times = {row["name"]: row["time_s"] for row in found["rows"]}
    if found["winner"] == FOUND:  # the clock decides, but never something slower
        assert times[FOUND] == min(times.values())
        assert (optimized / "affinities.json").exists()
    else:
        assert found["headline"].startswith("No placement beats what OpenVINO does by itself")
    text = (optimized / "RESULT.md").read_text()
    assert found["headline"] in text
    assert "## Verdict before the search" in text


def test_a_run_is_resumed_with_what_is_known(
    optimized: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lines(optimized)
    monkeypatch.setattr(
        measured_profile, "measure_op_times", lambda *_: pytest.fail("profiled again")
    )
    words = ["optimize", "--resume", "--out", str(optimized), "--minutes", "0.01"]
    assert main(words) == 0
    assert lines(optimized)[: len(before)] == before
    assert "Everything is in" in capsys.readouterr().out
    assert main([*words, "--devices", "CPU,CPU_C"]) == 2
    assert "has --devices" in capsys.readouterr().err


def test_a_verdict_alone_measures_and_writes_no_program(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "verdict"
    options: dict[str, Any] = {"isolation": "none", "max_samples": 2, "rounds": 2}
    found = optimize(model, ALIKE, minutes=0.05, verdict=True, out=str(out), **options)
    assert "Verdict: " in capsys.readouterr().out
    assert (found.folder, found.confirmed, found.verdict.executor) == (out, None, "hetero")
    assert not (out / "run.py").exists()
    result = result_of(out)
    assert result["headline"] == result["verdict"]["summary"] == found.verdict.summary
    assert "winner" not in result
    assert not json.loads((out / "config.json").read_text())["settings"]["verdict"]
    with pytest.raises(DevicePlacementError, match="exists already; nothing was measured"):
        optimize(model, ALIKE, out=str(out))


def test_an_interrupted_search_ends_with_the_best_so_far(
    model: str, tmp_path: Path, promising: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run: Any, *_: Any) -> str:
        groups = run.models[0].recorder.coarse.num_groups
        run.models[0].recorder.evaluate([0] * (groups - 1) + [1])
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "search", interrupted)
    out = tmp_path / "run"
    assert main(["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]) == 130
    assert {path.name for path in out.iterdir()} >= FILES
    assert result_of(out)["search_ended"] == "it was interrupted"


def test_what_was_measured_before_a_device_failed_is_kept(
    model: str,
    tmp_path: Path,
    promising: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lost(*_: Any) -> str:
        raise LostError("Nothing can be measured any more: remove the cause, then resume the run.")

    monkeypatch.setattr(command, "search", lost)
    out = tmp_path / "run"
    words = ["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]
    assert main(words) == 2
    assert capsys.readouterr().err.endswith("then resume the run.\n")
    assert len(lines(out)) == 2
    assert (out / "profile.json").exists()


def test_a_full_disk_says_how_to_continue(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "fit_profile", full)  # it writes to the store, and the log
    out = tmp_path / "run"
    assert main(["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"No space left on device: free space, then continue with --resume --out {out}" in line
    assert len(lines(out)) == 2


def test_a_model_that_can_not_be_profiled_is_one_line(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("PERF_COUNT is not supported.")

    real = measured_profile.measure_op_times
    monkeypatch.setattr(
        measured_profile, "measure_op_times", lambda _, *rest: real(Refusing(), *rest)
    )
    out = tmp_path / "run"
    assert main(["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "CPU can't run 'chain' with its profiler on: PERF_COUNT is not supported." in line
    assert line.endswith("Leave the device out.")
    assert len(lines(out)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--minutes", "0"], "Got minutes=0.0; give a number above 0"),
        (["--rounds", "0"], "give 1 or more"),
        (["--devices", "CPU"], "Got one device"),
        (["--budget", "3"], "Unknown option --budget"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["optimize", "diamond", *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_one_core_is_nothing_to_place_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if len(command.discover_devices()) > 2:
        pytest.skip("this machine has other devices")
    monkeypatch.setattr(command, "cpu_affinity", lambda: [3])
    assert main(["optimize", "diamond", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "core 3 only: there is nothing to place, as no second device" in said
    assert not (tmp_path / "run").exists()


def test_an_interruption_at_the_end_says_how_to_continue(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "deploy", interrupted)
    out = tmp_path / "run"
    words = ["optimize", model, "--devices", ALIKE, *QUICK, "--out", str(out)]
    assert main(words) == 130
    assert f"continue with --resume --out {out}" in capsys.readouterr().out
    assert (out / "profile.json").exists()
