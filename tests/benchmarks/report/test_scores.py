"""Scores and tables, of rows written by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rliable.metrics import probability_of_improvement

from device_placement.benchmarks.report.scores import (
    Scores,
    interquartile_means,
    probabilities_of_improvement,
)
from device_placement.benchmarks.report.tables import (
    BEGIN,
    END,
    compact_table,
    gap_cell,
    report,
    suite_table,
    summary_table,
    with_table,
)
from device_placement.benchmarks.suite.results import RunRow, append_rows, latest, read_rows
from device_placement.envs import DevicePlacementError

P, Q = ("s", "p"), ("s", "q")


def row(placer: str, seed: int, *bests: tuple[int, float], **more: Any) -> RunRow:
    time_s = bests[-1][1] if bests else math.nan
    fields: dict[str, Any] = {
        "time_s": time_s,
        "interval_s": (time_s, time_s),
        "single": "all on GPU",
        "single_s": 3.0,
        "single_interval_s": (3.0, 3.0),
        "evaluations": 9,
        "wall_s": 1.5,
        "improvements": bests,
    }
    known = {"suite": "s", "problem": "p", "budget": 9, "session": 0}
    return RunRow(placer=placer, seed=seed, **known | fields | more)


ROWS = [
    row("random", 0, (1, 4.0), (5, 2.2)),
    row("random", 1, (1, 3.0), (9, 2.0)),
    row("cp_sat", 0, (1, 2.0), bound_s=2.0),
    row("cp_sat", 0, (1, 1.0), problem="q", bound_s=0.8),
    row("random", 0, (1, 1.6), problem="q"),
    RunRow("s", "q", "random", 1, 9, 0, failure="its process ended with exit status 1"),
    RunRow("s", "q", "heft", 0, 9, 0, failure="found no\nvalid placement"),
    row("heft", 0, (1, 2.5)),
]


def test_a_name_may_have_a_bar() -> None:
    text = suite_table(Scores([row("a|b.py:f", 0, (1, 2.0))]), "s").markdown()
    assert r"| `a\|b.py:f` |" in text


def test_gaps_are_to_the_best_bound() -> None:
    scores = Scores(ROWS)
    assert scores.problems == [P, Q]
    assert scores.placers == ["random", "cp_sat", "heft"]
    assert scores.proven(P)
    assert not scores.proven(Q)
    assert scores.gaps(P, "random", 4) == [1.0, 0.5]
    assert gap_cell(scores.gaps(P, "random")) == "5.0 (2.5-7.5)"
    assert scores.gaps(Q, "random") == pytest.approx([1.0])
    assert scores.evaluations_within(P, "random", 0.2) == 7.0
    assert math.isinf(scores.evaluations_within(P, "random", 0.05))
    assert scores.speedups(P, "random") == pytest.approx([3 / 2.2, 1.5])


def test_the_tables_are_the_same_whoever_ended_first() -> None:
    rows = [row(name, 0, (1, 2.0), problem=q) for name in ("heft", "random") for q in "pq"]
    rows += [RunRow("s", q, "own:mine", 0, 9, 0, failure="is broken") for q in "pq"]
    text = report(latest(rows))
    assert report(latest(rows[::-1])) == text
    assert "- `own:mine` (2 runs; p, q): is broken" in text
    assert text.index("| `random` |") < text.index("| `heft` ‡ |")  # as in the list of all
    assert [one.seed for one in latest([row("heft", 1), row("heft", 0)])] == [0, 1]


def test_without_a_bound_they_are_to_the_best_known() -> None:
    scores = Scores([row("random", 0, (1, 3.5)), row("genetic", 0, (1, 4.0))])
    assert scores.floor_s(P) == 3.0  # a single's
    assert not scores.proven(P)


def test_a_failure_counts_nothing_and_nobody_is_scored_on_half_of_the_problems() -> None:
    found = Scores(ROWS).efficiencies(["s"])
    assert found.keys() == {"random", "cp_sat"}
    np.testing.assert_allclose(found["random"], [[2 / 2.2, 0.5], [1.0, 0.0]])
    np.testing.assert_allclose(found["cp_sat"], [[1.0, 0.8]])


def test_a_problem_that_nobody_solved_does_not_count() -> None:
    failed = [RunRow("s", "r", name, 0, 9, 0, failure="no") for name in ("random", "cp_sat")]
    found = Scores([*ROWS, *failed]).efficiencies(["s"])
    assert str(found) == str(Scores(ROWS).efficiencies(["s"]))


def test_half_of_the_runs_is_not_most_of_them() -> None:
    some = [row("random", 0, (3, 2.0)), row("random", 1, (5, 2.0)), row("cp_sat", 0, (1, 2.0))]
    failed = [RunRow("s", "p", "random", seed, 9, 0, failure="no") for seed in (2, 3)]
    assert Scores(some).evaluations_within(P, "random", 0.01) == 4.0
    assert Scores([*some, failed[0]]).evaluations_within(P, "random", 0.01) == 5.0
    assert math.isinf(Scores([*some, *failed]).evaluations_within(P, "random", 0.01))


def test_failed_placements_are_counted_by_problem_and_cause() -> None:
    rows = [
        row("random", 0, (1, 4.0), invalid={"a": 2, "b": 1}),
        row("heft", 0, (1, 4.0), invalid={"a": 5}),
        row("heft", 0, (1, 4.0), problem="q"),
    ]
    text = report(rows)
    shown = "Placements that failed:\n\n- p (7 of 18 placements): a\n- p (1 of 18 placements): b"
    assert text.endswith(shown)
    assert "Placements that failed" not in report(rows[2:])


def test_rows_of_an_earlier_version_are_kept_when_rows_are_added(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    append_rows(str(path), ROWS[:2])
    lines = [line.rpartition(",") for line in path.read_text().splitlines()]
    assert {last for _, _, last in lines} == {"invalid", ""}
    path.write_text("".join(f"{begin}\n" for begin, _, _ in lines))
    assert str(read_rows(str(path))) == str(ROWS[:2])
    failing = row("random", 3, (1, 1.0), invalid={"a": 7})
    append_rows(str(path), [failing])
    assert str(read_rows(str(path))) == str([*ROWS[:2], failing])


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = str(tmp_path / "runs.csv")
    placed = row("random", 2, (1, 1.0), assignment=(0, 11, 1), devices="CPU,A:K=1;L=2")
    timed = dataclasses.replace(placed, wall_s=math.nan, interval_s=(0.9, 1.1))
    append_rows(path, ROWS)
    append_rows(path, [timed])
    expected = [dataclasses.replace(one, failure=" ".join(one.failure.split())) for one in ROWS]
    assert str(read_rows(path)) == str([*expected, timed])
    with open(path, "a", encoding="utf-8") as file:
        file.write("s,p,random,3,9")  # whoever wrote this was killed
    assert len(read_rows(path)) == len(ROWS) + 1
    last = dataclasses.replace(timed, seed=3)
    append_rows(path, [last])
    assert str(read_rows(path)[-2:]) == str([timed, last])
    failing = row("random", 4, (1, 1.0), invalid={'of "it", N': 7, "other": 1})
    append_rows(path, [failing])
    assert read_rows(path)[-1].invalid == failing.invalid
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DevicePlacementError, match=r"other.csv' as runs of a benchmark"):
        read_rows(str(tmp_path / "other.csv"))


def test_aggregates_are_those_of_the_paper_and_the_same_each_time() -> None:
    # arXiv 2108.13264: the mean of the middle half; the share of pairs in which one is better.
    scores = {
        "one": np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]),
        "two": np.array([[0.5, 0.15], [0.5, 0.15]]),
    }
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr] # noqa: NPY002
    means = [interquartile_means(scores) for _ in range(2)]
    assert means[0] == means[1]
    assert means[0]["one"].value == pytest.approx((0.3 + 0.4 + 0.6 + 0.7) / 4)
    assert means[0]["one"].low < 0.5 < means[0]["one"].high
    better = probabilities_of_improvement(scores, "two")
    assert better.keys() == {"one"}
    assert better["one"].value == pytest.approx((1.0 + 0.75) / 2)
    generator = np.random.default_rng(0)
    pair = {
        "a": generator.integers(4, size=(5, 3)) / 4,
        "b": generator.integers(4, size=(4, 3)) / 4,
    }
    expected = probability_of_improvement(pair["a"], pair["b"])
    assert probabilities_of_improvement(pair, "b")["a"].value == pytest.approx(expected)
    after = np.random.get_state()[1]  # type: ignore[index] # noqa: NPY002
    assert (before == after).all()  # nobody else's draws are changed


def test_the_report_says_what_failed_and_what_is_not_proven() -> None:
    text = report(ROWS)
    assert "| gap in % | p | q † |" in text
    assert "| `random` | 5.0 (2.5-7.5) | 100.0, 1 failed |" in text
    assert "| `cp_sat` ‡ | 0.900 (0.900-0.900) | 0.8" in text
    assert "‡: sees the costs of groups and transfers." in text
    assert "- `heft` (1 run; q): found no\nvalid placement" in text
    assert "| gap in % after 4 | p | q † |" in suite_table(Scores(ROWS), "s", 4).markdown()


def test_who_sees_costs_is_marked_in_every_table() -> None:
    placers = ("random", "nodewise_ppo", "greedy", "nodewise_ppo_with_costs", "mine.py:search")
    scores = Scores([row(name, 0, (1, 2.0)) for name in placers])
    for table in (suite_table(scores, "s"), summary_table(scores, ["s"])):
        names = {line[0].partition("` ") for line in table.lines if line[0].startswith("`")}
        assert {name[1:].rstrip("`") for name, _, mark in names if mark == "‡"} == {
            "greedy",
            "nodewise_ppo_with_costs",
        }
    compact = [line[0] for line in compact_table(scores, ["s"]).lines]
    assert "`greedy` ‡" in compact
    assert "`nodewise_ppo`" in compact


def test_measured_suites_show_speed_ups() -> None:
    name = "resnet50 here"
    rows = [row("random", seed, (1, 2.0), suite="local", problem=name) for seed in range(2)]
    assert "| `random` | 1.500 (1.500-1.500) |" in report(rows)


def test_the_small_table_leaves_out_what_found_nothing_and_the_single_that_it_begins_with() -> None:
    more = [row("single", 0, (1, 3.0)), row("genetic", 0, failure="out of memory")]
    names = [line[0] for line in compact_table(Scores([*ROWS, *more]), ["s"]).lines]
    assert names == [line[0] for line in compact_table(Scores(ROWS), ["s"]).lines]
    assert "genetic" in report([*ROWS, *more])


def test_the_small_table_goes_between_its_marks(tmp_path: Path) -> None:
    table = compact_table(Scores(ROWS), ["s"])
    assert list(table.heads) == ["", "p", "q †"]
    assert table.lines[0] == ["best single", "50.0", "275.0"]
    assert table.lines[1] == ["`random`", "5.0", "100.0, 1 failed"]
    assert table.lines[-1] == ["`heft` ‡", "25.0", "-"]
    text = f"before\n{BEGIN}\nold\n{END}\nafter"
    path = tmp_path / "README.md"
    path.write_text(with_table(text, table))
    assert path.read_text().startswith(f"before\n{BEGIN}\n|  | p | q † |\n")
    assert with_table(path.read_text(), table) == path.read_text()
    assert "old" not in path.read_text()
    with pytest.raises(DevicePlacementError, match="no <!-- scores --> followed by"):
        with_table("nothing", table)
