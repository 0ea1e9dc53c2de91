"""Rows that were edited: `replay` finds each, from the trace, the record or the row alone."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.benchmarks.suite.results import read_lines, read_rows
from device_placement.benchmarks.suite.suites import SUITES, Suite
from device_placement.benchmarks.suite.task import packed_path, record_path, slug, trace_path
from device_placement.envs import DevicePlacementError
from tiny_benchmark import OWN, TINY, make_here

pytestmark = pytest.mark.usefixtures("tiny_suite")
Fields = dict[str, str]
PLACER = "cp_sat"  # proves a bound


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, Suite], SUITES), "tiny", TINY)
        make_here(folder / "made", [PLACER, OWN + "guess", OWN + "broken"], seeds=1)
    return folder / "made"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(out: Path, change: Callable[[Fields], object], placer: str = PLACER) -> None:
    """Change the row of a placer on the first problem."""
    path = out / "runs.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(next(row for row in rows if row["placer"] == placer))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def setting(**fields: str) -> Callable[[Fields], object]:
    return lambda row: row.update(fields)


def scaled(*names: str, factor: float = 0.5) -> Callable[[Fields], object]:
    return lambda row: row.update({name: f"{float(row[name]) * factor:.9g}" for name in names})


def with_faster_bests(row: Fields) -> None:
    bests = [item.split(":") for item in row["bests_ms"].split()]
    row["bests_ms"] = " ".join(f"{int(number) + 1}:{time_ms}" for number, time_ms in bests)


def consistently_faster(row: Fields) -> None:
    """Every time of the placement is halved, so that nothing in the row contradicts itself."""
    scaled("time_ms", "low_ms", "high_ms", "bound_ms")(row)
    row["bests_ms"] = f"1:{row['time_ms']}"


def a_second_longer(row: Fields) -> None:
    row["wall_s"] = f"{float(row['wall_s']) + 1:.2f}"


SEEN_IN_THE_ROW = {
    "time alone": scaled("time_ms"),
    "interval widened and time": lambda row: row.update(
        time_ms=f"{float(row['time_ms']) * 0.5:.9g}", low_ms="1e-9", high_ms="1e9"
    ),
    "every time": consistently_faster,
    "single": scaled("single_ms", "single_low_ms", "single_high_ms", factor=2.0),
    "bound above": scaled("bound_ms", factor=1.1),
    "time above": scaled("time_ms", "low_ms", "high_ms", "bound_ms", factor=2.0),
    "bests": setting(bests_ms="3:1e-3 2:5e-4"),
    "more evaluations than the budget": setting(evaluations="9"),
    "no evaluations": setting(evaluations="0"),
    "devices": setting(devices="CPU,GPU.0"),
    "groups": setting(groups="5"),
    "budget": setting(budget="20"),
    "seed": setting(seed="7"),
    "session": setting(session="3"),
    "placer": setting(placer="random"),
    "own placer": setting(placer="other.py:search"),
    "too long": setting(wall_s="1e8"),
    "placement": setting(assignment="9999"),
    "short placement": setting(assignment="0"),
    "name of the single": setting(single="all on NPU"),
}
SEEN_IN_THE_TRACE = {
    "earlier bests": with_faster_bests,
    "fewer evaluations": lambda row: row.update(evaluations=str(int(row["evaluations"]) - 1)),
}
SEEN_IN_THE_RECORD = {
    "wall time": a_second_longer,
    "no wall time": setting(wall_s=""),
    "bound below": scaled("bound_ms", factor=0.9),
}


def replayed(out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(["replay", str(out)])
    return status, capsys.readouterr().err


def test_what_was_not_edited_reproduces(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in read_rows(str(copy / "runs.csv")):
        assert record_path(trace_path(copy, *row.key)).exists() != bool(row.failure)
    assert main(["replay", str(copy)]) == 0
    assert "no trace" not in capsys.readouterr().out
    shutil.rmtree(copy / "traces")
    (copy / "replay.csv").unlink()
    assert main(["replay", str(copy)]) == 0
    assert "4 of 4 rows have no trace here" in capsys.readouterr().out


@pytest.mark.parametrize("name", SEEN_IN_THE_ROW)
def test_some_edits_are_found_without_traces(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "traces")
    edit(copy, SEEN_IN_THE_ROW[name])
    status, errors = replayed(copy, capsys)
    assert (status, errors.count("now it is")) == (1, 1)


@pytest.mark.parametrize("name", SEEN_IN_THE_TRACE)
def test_some_edits_are_found_by_the_trace(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for record in copy.rglob("*.row.json"):
        record.unlink()
    edit(copy, SEEN_IN_THE_TRACE[name], OWN + "guess")
    status, errors = replayed(copy, capsys)
    assert (status, errors.count("now it is")) == (1, 1)
    assert "its trace" in errors


@pytest.mark.parametrize("name", [*SEEN_IN_THE_ROW, *SEEN_IN_THE_TRACE, *SEEN_IN_THE_RECORD])
def test_all_edits_are_found_where_nothing_is_missing(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edits = SEEN_IN_THE_ROW | SEEN_IN_THE_TRACE | SEEN_IN_THE_RECORD
    edit(copy, edits[name])
    status, errors = replayed(copy, capsys)
    assert (status, errors.count("now it is")) == (1, 1)


def test_a_missing_or_damaged_trace_among_others_is_told(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = (
        packed_path(trace_path(copy, "tiny", problem, PLACER, 0)) for problem in TINY.problems
    )
    one.unlink()
    other.write_bytes(other.read_bytes()[:50])
    status, errors = replayed(copy, capsys)
    assert status == 1
    assert "it has no trace of its own" in errors
    assert "its trace can't be read: EOFError" in errors


def test_a_result_that_became_a_failure_is_told(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copy, setting(failure="was slow"))
    status, errors = replayed(copy, capsys)
    assert status == 1
    assert "recorded a result, not a failure" in errors


def test_an_edit_after_the_replay_is_noticed(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(copy)]) == 0
    whole = (copy / "runs.csv").read_text()
    assert len(read_folders([str(copy)], replayed=True)) == 6
    edit(copy, a_second_longer)
    with pytest.raises(DevicePlacementError, match=r"1 of the 6 runs .* changed since"):
        read_folders([str(copy)], replayed=True)
    status, errors = replayed(copy, capsys)
    assert status == 1
    assert "wall_s changed since the run ended" in errors
    (copy / "runs.csv").write_text(whole)
    assert replayed(copy, capsys)[0] == 0


def test_replays_of_an_earlier_version_are_read_and_made_again(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(copy)]) == 0
    lines = read_lines(str(copy / "replay.csv"))
    with (copy / "replay.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0])[:-1], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    assert len(read_folders([str(copy)], replayed=True)) == 6
    assert "4 runs in" in (note := capsys.readouterr().err)
    assert "not hashed" in note
    assert main(["replay", str(copy)]) == 0
    assert "earlier version" in capsys.readouterr().out
    assert read_lines(str(copy / "replay.csv")) == lines


def test_traces_of_an_earlier_version_are_found_where_they_are_of_one_run(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for problem in TINY.problems:
        for placer in (PLACER, OWN + "guess"):
            trace = trace_path(copy, "tiny", problem, placer, 0)
            record_path(trace).unlink()
            packed_path(trace).rename(trace.with_name(f"{slug(placer)}-0.jsonl.gz"))
    assert main(["replay", str(copy)]) == 0
    assert "no trace" not in capsys.readouterr().out
    text = (copy / "runs.csv").read_text()
    others = [line.replace(":", "_", 1) for line in text.splitlines(True) if ":guess" in line]
    (copy / "runs.csv").write_text(text + "".join(others))
    (copy / "replay.csv").unlink()
    status, errors = replayed(copy, capsys)
    assert status == 1  # both made one file
    assert errors.count("no trace of its own") == 2
