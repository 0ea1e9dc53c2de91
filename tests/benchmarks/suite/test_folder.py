"""Runs of several folders in one table, where they can be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.runs.run import write_json
from device_placement.benchmarks.suite.folder import read_folders, read_measuring
from device_placement.benchmarks.suite.results import RunRow, append_rows
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from device_placement.envs import DevicePlacementError
from tiny_benchmark import write_replays

PLAIN = Problem("diamond", "desktop")


def row(placer: str, **more: Any) -> RunRow:
    known: dict[str, Any] = {"suite": "s", "problem": "p", "seed": 0, "budget": 9, "session": 0}
    return RunRow(placer=placer, time_s=1.0, **known | more)


def folder(path: Path, rows: list[RunRow], problem: Problem = PLAIN, **settings: Any) -> str:
    path.mkdir()
    append_rows(str(path / "runs.csv"), rows)
    machine = {"processor": settings.pop("processor", "one"), "cores": "2", "python": "3.11"}
    session = {
        "started": "2026-01-01",
        "machine": machine,
        "settings": settings,
        "problems": [["s", "p", dataclasses.asdict(problem)]],
    }
    write_json(path / "benchmark.json", {"sessions": [session]})
    return str(path)


def test_runs_of_several_folders_stand_together(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", [row("random"), row("genetic", failure="no")])
    other = folder(tmp_path / "other", [row("mine:search")], processor="two", tolerance=0.1)
    found = read_folders([other, one])
    assert [one.placer for one in found] == ["random", "genetic", "mine:search"]
    with pytest.raises(DevicePlacementError, match="random on p with the seed 0 is in"):
        read_folders([one, other, one])


def test_what_was_not_replayed_or_did_not_reproduce_is_no_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("random"), row("genetic"), row("ppo", failure="no")]
    out = folder(tmp_path / "out", rows)
    with pytest.raises(DevicePlacementError, match=r"2 of the 3 runs .* device-placement replay"):
        read_folders([out], replayed=True)
    write_replays(tmp_path / "out", rows[:1])
    write_replays(tmp_path / "out", rows[1:2], "no")
    assert [one.placer for one in read_folders([out], replayed=True)] == ["random", "ppo"]
    assert "1 runs in" in capsys.readouterr().err
    assert len(read_folders([out])) == 3


def test_other_budgets_can_not_be_compared(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", [row("random")])
    other = folder(tmp_path / "other", [row("genetic", budget=8)])
    with pytest.raises(DevicePlacementError, match="with a budget of 9, others with 8"):
        read_folders([one, other])


@pytest.mark.parametrize(
    ("problem", "changed", "message"),
    [
        (dataclasses.replace(PLAIN, schedule="pipelined"), {}, "of another problem 'p'"),
        (Problem("diamond", evaluator=MEASURED), {"processor": "two"}, "processor='one'"),
        (Problem("diamond", evaluator=MEASURED), {"objective": "throughput"}, "objective=None"),
    ],
)
def test_other_problems_machines_or_ways_can_not_be_compared(
    problem: Problem, changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    plain = PLAIN if problem.evaluator != MEASURED else problem
    one = folder(tmp_path / "one", [row("random")], plain)
    other = folder(tmp_path / "other", [row("genetic")], problem, **changed)
    with pytest.raises(DevicePlacementError, match=message):
        read_folders([one, other])


def test_how_runs_were_measured_is_read_back(tmp_path: Path) -> None:
    out = folder(tmp_path / "out", [row("random")], objective="throughput", note="of old")
    assert read_measuring(Path(out)).objective == "throughput"
    assert read_measuring(tmp_path).objective == "latency"
