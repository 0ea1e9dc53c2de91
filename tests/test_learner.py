"""Presets as placers, and the scores of both."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import pytest

from device_placement.agents.learner import Learner, named_search
from device_placement.agents.recording import RecordingEvaluator
from device_placement.benchmarks.gaps import Row, Scores, gap_cell
from device_placement.benchmarks.placers import PlacersConfig, append_rows, main, read_rows
from device_placement.benchmarks.suites import SUITES, Problem
from device_placement.envs import DevicePlacementError
from scripted import diamond_evaluator, twelve_groups_evaluator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["ppo", "hsdag", "placeto"])
def test_a_learner_keeps_the_budget_and_is_the_same_again(name: str) -> None:
    found = [Learner(name).place(twelve_groups_evaluator(), 60, 1) for _ in range(2)]
    assert found[0].evaluations == found[1].evaluations
    asked = [assignment for assignment, _ in found[0].evaluations]
    assert asked[:2] == [(0,) * 12, (1,) * 12]
    assert len(set(asked)) == len(asked) <= 60
    assert len(asked) == 60 or name == "hsdag"  # which may propose little that is new
    assert found[0].time_s == min(time_s for _, time_s in found[0].evaluations)
    assert math.isnan(found[0].bound_s)


def test_construct_has_steps_enough() -> None:
    found = Learner("ppo", formulation="construct").place(diamond_evaluator(), 10, 0)
    assert len(found.evaluations) == 10


def test_it_ends_when_the_policy_has_settled() -> None:
    recorder = RecordingEvaluator(diamond_evaluator(), 1000)
    Learner("ppo", settled=50).place(recorder, 1000, 0)  # there are 16 placements
    assert 50 < recorder.num_requests < 1000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nodewize_ppo", {}, "Unknown search 'nodewize_ppo'.*Did you mean 'nodewise_ppo'"),
        ("ppo", {"settled": 0}, "settled=0 for Learner; it must be 1 or more"),
        ("ppo", {"formulation": "asign"}, "asign"),
        ("genetic", {"population": 1}, "population=1 for Genetic"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        named_search(name, **options)


def test_the_table_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"tiny": Problem("diamond", "laptop", "CPU,GPU", "pipelined")}
    monkeypatch.setitem(cast(dict[str, Any], SUITES), "tiny", tiny)
    path = tmp_path / "rows.csv"
    one = PlacersConfig(("tiny",), ("random",), budget=5, early=4, seeds=1, out=str(path))
    assert main(one) == 0
    first = path.read_text()
    more = dataclasses.replace(one, searches=("random", "stages", "cp_sat"), seeds=2)
    assert main(more) == 0
    rows = path.read_text()
    assert rows.startswith(first)
    keys = [(row.placer, row.seed) for row in read_rows(str(path))]
    assert len(keys) == len(set(keys)) == 2 + 2 + 1 + 1
    capsys.readouterr()
    assert main(more) == 0  # nothing is left to do
    assert path.read_text() == rows
    assert "| cp_sat | 0.0 |" in capsys.readouterr().out


def test_gaps_are_to_the_best_bound(tmp_path: Path) -> None:
    def row(placer: str, seed: int, *bests: tuple[int, float], bound_s: float = math.nan) -> Row:
        return Row("p", placer, seed, bound_s, 9, 1.5, bests)

    rows = [row("all on CPU", 0, (1, 4.0)), row("all on NPU", 0), row("all on GPU", 0, (1, 3.0))]
    rows += [row("random", 0, (1, 4.0), (5, 2.2)), row("random", 1, (1, 3.0), (9, 2.0))]
    rows += [row("cp_sat", 0, (1, 2.0), bound_s=2.0)]
    scores = Scores(rows)
    assert scores.placers == ["best single", "random", "cp_sat"]
    assert scores.proven("p")
    assert scores.gaps("p", "best single", 9) == [0.5]
    assert scores.gaps("p", "random", 4) == [1.0, 0.5]
    assert gap_cell(scores.gaps("p", "random", 9)) == "5.0 (2.5-7.5)"
    assert scores.evaluations_within("p", "random", 0.2) == 7.0
    assert math.isinf(scores.evaluations_within("p", "random", 0.05))
    append_rows(str(tmp_path / "rows.csv"), rows)
    assert str(read_rows(str(tmp_path / "rows.csv"))) == str(rows)
