"""Folders of benchmarks that somebody damaged or made up: one line says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.suite.problems import problems_of
from device_placement.benchmarks.suite.results import (
    FIELDS,
    MAX_FAILURE,
    RunRow,
    append_rows,
    read_lines,
    read_rows,
    write_lines,
)
from device_placement.benchmarks.suite.suites import SUITES, Suite
from tiny_benchmark import TINY, make_here

pytestmark = pytest.mark.usefixtures("tiny_suite")
posix = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of POSIX")
COMMANDS = ("scores", "replay", "report")
FAILED = RunRow("tiny", "diamond", "mine.py:search", 0, 8, 0, failure="no")


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, Suite], SUITES), "tiny", TINY)
        make_here(folder / "made", ["random"], seeds=1)
    return folder / "made"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def refused(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Each command refuses the folder in one line; return that of the last."""
    for command in COMMANDS:
        capsys.readouterr()
        assert main([command, str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("device-placement: ")
    return line


def in_the_first_row(**fields: str) -> Callable[[bytes], bytes]:
    def changed(content: bytes) -> bytes:
        head, row, *rest = content.decode().splitlines(True)
        cells = dict(zip(FIELDS, next(csv.reader([row])), strict=True)) | fields
        line = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells.values())
        return "".join([head, line + "\n", *rest]).encode()

    return changed


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a short line": lambda content: content + b"tiny,diamond,random\n",
    "a long line": lambda content: content.replace(b"\n", b",1\n").replace(b",1\n", b"\n", 1),
    "no header": lambda content: content.partition(b"\n")[2],
    "a header without a name": lambda content: content.replace(b"bound_ms", b"bound", 1),
    "zeros": lambda content: content.replace(b"diamond", b"dia\0ond"),
    "bytes that are no text": lambda content: content.replace(b"diamond", b"dia\xff\xfeond"),
    "an open quote": lambda content: content.replace(b"random", b'"random', 1),
    "a line twice": lambda content: content + content.splitlines(True)[1],
    "an escape in a name": in_the_first_row(placer="\x1b[2Jrandom"),
    **{
        f"{name}={text}": in_the_first_row(**{name: text})
        for name, text in (
            ("time_ms", "nan"),
            ("time_ms", "-1"),
            ("time_ms", "0"),
            ("time_ms", "1e999"),
            ("time_ms", ""),
            ("single_ms", ""),
            ("high_ms", "inf"),
            ("bound_ms", "-1"),
            ("wall_s", "-1"),
            ("wall_s", "soon"),
            ("evaluations", "-3"),
            ("evaluations", "1e3"),
            ("budget", "0"),
            ("seed", "9" * 5000),
            ("groups", "four"),
            ("bests_ms", "1:nan"),
            ("bests_ms", "one:1"),
            ("bests_ms", "1"),
            ("assignment", "0 1"),
        )
    },
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_table_is_refused(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "runs.csv"
    path.write_bytes(DAMAGES[name](path.read_bytes()))
    assert "runs.csv" in refused(copy, capsys)


def test_the_line_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_rows(str(copy / "runs.csv"), [FAILED])
    path = copy / "runs.csv"
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(True)[2])
    line = refused(copy, capsys)
    assert "Can't read line 5 of" in line
    assert "random on pipelined with the seed 0 has a row already" in line


def test_only_failures_of_other_calls_are_repeated(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.csv")
    again = RunRow(*FAILED.key, 8, 1, failure="no")
    append_rows(path, [FAILED, again])
    assert read_rows(path) == [FAILED, again]
    append_rows(path, [again])
    with pytest.raises(ValueError, match=r"line 4 .* has a row already"):
        read_rows(path)


def session_with(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {"sessions": [content["sessions"][0] | changed]}


def problem_with(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    def with_fields(content: dict[str, Any]) -> Any:
        (suite, name, fields), *others = content["sessions"][0]["problems"]
        return session_with(problems=[[suite, name, fields | changed], *others])(content)

    return with_fields


WRONG_SESSIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "number": lambda _: {"sessions": [1]},
    "empty": lambda _: {"sessions": [{}]},
    "object": lambda _: {"sessions": {"0": {}}},
    "none": lambda _: {},
    "list": lambda _: [],
    "settings": session_with(settings=[]),
    "problems": session_with(problems={"a": 1}),
    "a problem": session_with(problems=[["tiny", "diamond"]]),
    "machine": session_with(machine="mine"),
    "started": session_with(started=5),
    "requests": session_with(settings={"requests": "many"}),
    "objective": session_with(settings={"objective": "fame"}),
    "budget": session_with(settings={"budget": [1]}),
    "timeout": session_with(settings={"timeout_s": float("nan")}),
    "unknown field": problem_with(colour="red"),
    "type of a field": problem_with(max_groups="4"),
    "evaluator": problem_with(evaluator="guess"),
    "truth for a number": problem_with(max_groups=True),
}


@pytest.mark.parametrize("name", WRONG_SESSIONS)
def test_wrong_sessions_are_refused(
    name: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "benchmark.json"
    path.write_text(json.dumps(WRONG_SESSIONS[name](json.loads(path.read_text()))))
    assert "benchmark.json" in refused(copy, capsys)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"sessions": "\xff"}'])
def test_what_is_no_json_is_refused(
    text: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "benchmark.json").write_bytes(text.encode("latin-1"))
    assert "benchmark.json" in refused(copy, capsys)


@pytest.mark.parametrize(
    "text",
    [
        "suite,problem\ntiny,diamond\n",
        "suite,problem,placer,seed,reproduces\ntiny,diamond,random,one,yes\n",
        "suite,problem,placer,seed,reproduces\ntiny,diamond,random,0,perhaps\n",
        "suite\ntiny,diamond\n",
    ],
)
def test_wrong_replays_are_refused(
    text: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "replay.csv").write_text(text)
    assert main(["replay", str(copy)]) == 2
    assert "replay.csv" in capsys.readouterr().err


def test_failures_are_short_plain_and_no_formulas(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = ["=HYPERLINK(1)", "+1-1|cmd", "-x", "@sum(A1)", "'=1", "\x1b[2Jgone", "x" * 200_000]
    rows = [
        RunRow("tiny", "diamond", f"=mine{number}.py:search", 0, 8, 0, failure=reason)
        for number, reason in enumerate(reasons)
    ]
    path = copy / "runs.csv"
    append_rows(str(path), rows)
    with path.open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not any(cell.startswith(("=", "+", "@", "-x", "\x1b")) for cell in cells)
    found = read_rows(str(path))[2:]
    assert [row.placer for row in found] == [row.placer for row in rows]
    assert [row.failure for row in found[:5]] == reasons[:5]
    assert found[5].failure == r"\x1b[2Jgone"
    assert len(found[6].failure) == MAX_FAILURE
    assert main(["scores", str(copy)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_longer_failures_of_an_earlier_version_are_read(copy: Path) -> None:
    path = copy / "runs.csv"
    cells = dict.fromkeys(FIELDS, "")
    cells |= {"suite": "tiny", "problem": "diamond", "placer": "mine.py:search", "seed": "0"}
    cells |= {"budget": "8", "session": "0", "groups": "0", "evaluations": "0"}
    cells["failure"] = "\x1b" + "x" * 200_000
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerow(cells.values())
    before = csv.field_size_limit()
    row = read_rows(str(path))[-1]
    assert csv.field_size_limit() == before
    assert row.failure.startswith(r"\x1bxxx")
    assert len(row.failure) == MAX_FAILURE


def test_numbers_are_no_formulas(tmp_path: Path) -> None:
    path = str(tmp_path / "numbers.csv")
    write_lines(path, ["a", "b", "c"], [(-1.5, "-", "-2.5")])
    assert (tmp_path / "numbers.csv").read_text() == "a,b,c\n-1.5,-,-2.5\n"
    assert read_lines(path) == [{"a": "-1.5", "b": "-", "c": "-2.5"}]


@pytest.mark.parametrize("kind", ["large", pytest.param("pipe", marks=posix), "folder"])
def test_a_table_without_an_end_is_refused(
    kind: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "runs.csv"
    if kind == "large":
        os.truncate(path, 1 << 40)  # takes no space
    else:
        path.unlink()
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
    expected = "larger than 1024 MiB" if kind == "large" else "not a regular file"
    assert expected in refused(copy, capsys)


@posix
def test_nothing_is_written_through_a_link_in_the_folder(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for command, name in (("replay", "replay.csv"), ("report", "report.html")):
        (copy / name).symlink_to(victim)
        assert main([command, str(copy)]) == 2
        assert f"is a link to {str(victim)!r}" in capsys.readouterr().err
        (copy / name).unlink()
    assert victim.read_text() == "mine"


@posix
def test_names_of_workloads_are_lines_that_can_be_read_again(tmp_path: Path) -> None:
    for name in ("a\nb", "a\tb", "a\x1b[2Jb", "=a", "a,b", 'a"b'):
        (tmp_path / f"{name}.json").touch()
    names = [*problems_of("workloads", str(tmp_path))]
    assert len(names) == 6
    path = str(tmp_path / "runs.csv")
    append_rows(
        path, [RunRow("workloads", name, "random", 0, 8, 0, failure="no") for name in names]
    )
    assert [row.problem for row in read_rows(path)] == names
