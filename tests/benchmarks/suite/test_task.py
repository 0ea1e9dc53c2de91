"""One run of a benchmark, and the files that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_placement.benchmarks.suite.problems import problems_of
from device_placement.benchmarks.suite.results import MAX_FAILURE, RunRow, append_rows, read_rows
from device_placement.benchmarks.suite.task import (
    MAX_REASON,
    Task,
    packed_path,
    run_task,
    short_name,
    trace_path,
)
from device_placement.envs.measuring.config import MeasureConfig
from tiny_benchmark import lines_of

SEARCH = """
def search(evaluator, budget, seed):
    return [{device}] * evaluator.coarse.num_groups
"""

RAISING = r"""
def search(evaluator, budget, seed):
    raise RuntimeError("\x1b[2J" + "x" * 200_000)
"""


def task(out: Path, placer: str, problem: str = "diamond") -> Task:
    trace = trace_path(out, "quick", problem, placer, 0)
    (known, *_) = problems_of("quick").values()
    return Task("quick", problem, known, placer, 0, 8, trace, MeasureConfig())


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a-b/alg.py:search", "a_b/alg.py:search"),
        ("mine:search", "mine_search"),
        ("Random", "random"),
        ("x" * 300 + "a", "x" * 300 + "b"),
        ("é.py:f", "è.py:f"),
        ("a b", "a  b"),
    ],
)
def test_no_two_names_share_a_path(one: str, other: str) -> None:
    assert short_name(one).lower() != short_name(other).lower()
    for name in (one, other):
        assert len(short_name(name).encode()) <= 60
    placers = {trace_path(Path(), "s", "p", name, 0) for name in (one, other)}
    problems = {trace_path(Path(), "s", name, "random", 0) for name in (one, other)}
    assert len(placers) == len(problems) == 2


def test_algorithms_of_like_names_keep_their_own_results(tmp_path: Path) -> None:
    for folder, device in (("a-b", 0), ("a_b", 1)):
        written(tmp_path / folder / "alg.py", SEARCH.format(device=device))
    names = [f"{tmp_path / folder / 'alg.py'}:search" for folder in ("a-b", "a_b")]
    rows = [run_task(task(tmp_path / "out", name)) for name in names]
    assert [row.assignment[0] for row in rows] == [0, 1]
    for name in names:
        trace = packed_path(trace_path(tmp_path / "out", "quick", "diamond", name, 0))
        assert len(lines_of(trace)) == 2  # the singles


def test_a_long_path_of_an_algorithm_or_a_problem_works(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["long" * 20] * 4)
    mine = written(folder / "mine.py", SEARCH.format(device=1))
    row = run_task(task(tmp_path / "out", f"{mine}:search", problem="long" * 90))
    assert not row.failure
    append_rows(str(tmp_path / "runs.csv"), [row])
    assert read_rows(str(tmp_path / "runs.csv"))[0].placer == f"{mine}:search"


def test_a_reason_is_short_and_never_lost(tmp_path: Path) -> None:
    raising = (
        "def search(evaluator, budget, seed):\n    raise RuntimeError('\\x1b[2J' + 'x' * 200_000)\n"
    )
    mine = written(tmp_path / "mine.py", raising)
    row = run_task(task(tmp_path / "out", f"{mine}:search"))
    assert row.failure.startswith(r"RuntimeError: \x1b[2Jxxx")
    assert len(row.failure) == MAX_FAILURE
    (reason,) = (tmp_path / "out").rglob("*.error.txt")
    assert len(reason.read_text()) <= MAX_REASON
    blocked = written(tmp_path / "blocked", "a file where a folder is needed")
    row = run_task(task(blocked, "random"))
    assert isinstance(row, RunRow)
    assert "Error: " in row.failure
